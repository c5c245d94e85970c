"""Stacked MNIST: three random digits as red, green and blue; 10 x 10 x 10 = 1000 modes.

Source: Metz et al. 2017 (unrolled GAN, arXiv:1611.02163), Srivastava et al. 2017 (VEEGAN, arXiv:1705.07761), Lin et al.
2018 (PacGAN, arXiv:1712.04086). They store a fixed set of triples (128,000 in PacGAN); here each step draws new ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vistudy.trainables.data.base import Kind, Split
from vistudy.trainables.data.images.idx import MNIST, IdxImages
from vistudy.trainables.data.images.image_dataset import ImageData
from vistudy.trainables.data.images.prepared_images import Prepared, Source
from vistudy.trainables.random_streams import BLOCK, Draw, generator


@dataclass(frozen=True, kw_only=True, slots=True)
class Stacked(ImageData):
    """Samples whose channels are independent random images of `digits`. Only the single images are stored.

    `classes` and `labelled` are those of the single images (N, 1, H, W), since the classifier is applied to one channel
    at a time. The mode of a sample is its triple of classes.
    """

    kind: ClassVar[Kind] = "stacked"
    classes: ClassVar[int] = IdxImages.classes
    digits: IdxImages
    """What the channels show."""
    width: int = 32
    z_dim: int = 64

    def source(self) -> Source:
        """The source of the single images: both data sets share one file in the cache."""
        return self.digits.source()

    @property
    def prepared(self) -> Prepared:
        """The single images."""
        return self.digits.prepared

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the single images' fingerprint and the number of channels."""
        return hashlib.sha256(f"{self.shape[0]} x {self.digits.fingerprint}".encode()).hexdigest()

    @property
    def to_learn(self) -> int | None:
        """None: see `_draw`."""
        return None

    @property
    def modes(self) -> int:
        """Number of combinations of classes."""
        return int(self.classes ** self.shape[0])

    def _draw(self, batch_size: int) -> Draw:
        """Independent images per channel. There are no epochs, since there are too many triples."""
        train, size = self.prepared.train, (BLOCK, batch_size, self.shape[0])
        return lambda seed, block: generator(seed, "data", block).integers(train, size=size)

    def image_indices(self, n: int, split: Split) -> np.ndarray:
        """Indices into `prepared.images` of the channels of `real`, int64 (n, channels)."""
        pool = self._pool(split)
        indices: np.ndarray = pool[
            generator(0, f"real/{self.name}/{split}").integers(len(pool), size=(n, self.shape[0]))
        ]
        return indices

    def real(self, n: int, split: Split) -> np.ndarray:
        """Keyed draws from the single images of a split, so `n` is unlimited. Disjoint splits share no single image."""
        return self._samples(self.prepared.images[self.image_indices(n, split)], (n,))


STACKED_MNIST = Stacked(name="stacked_mnist", shape=(3, 28, 28), digits=MNIST)
