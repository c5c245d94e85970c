"""FID, KID, precision, recall, density and coverage in features of Inception, if the user provides its weights."""

from __future__ import annotations

from typing import ClassVar

from vistudy.trainables.data.base import Dataset
from vistudy.trainables.metrics.coverage.prdc import prdc, radii
from vistudy.trainables.metrics.distances.frechet import frechet_distance, moments
from vistudy.trainables.metrics.distances.kid import kid_of_subsets
from vistudy.trainables.metrics.features.inception import inception, inception_provenance
from vistudy.trainables.metrics.views import ImageView


class InceptionMetrics:
    """`inception_fd`, `inception_kid` (100 subsets of 1,000) and the four shares (k = 5) in 2,048 features.

    N is that of the evaluation. FID is biased upwards by about 1/N, strongly for N below 20,480, so it is comparable at
    equal N only. KID is unbiased.
    """

    names: ClassVar[tuple[str, ...]] = (
        "inception_fd",
        "inception_kid",
        "inception_precision",
        "inception_recall",
        "inception_density",
        "inception_coverage",
    )

    def __init__(self, dataset: Dataset, reference: ImageView) -> None:
        self._features = inception()
        self.provenance = inception_provenance()
        self._real = self._features(reference.images)
        self._moments, self._radii = moments(self._real), radii(self._real)

    def __call__(self, view: ImageView) -> dict[str, float]:
        """Distances to the reference, and shares with it as the real set."""
        fake = self._features(view.images)
        size = min(1000, len(fake))
        shares = prdc(self._real, fake, self._radii)
        return {
            "inception_fd": frechet_distance(self._moments, moments(fake)),
            "inception_kid": kid_of_subsets(fake, self._real, size=size)[0],
        } | {f"inception_{name.removeprefix('prdc_')}": value for name, value in shares.items()}
