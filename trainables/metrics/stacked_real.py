"""Real stacked images on the metrics' scale, cheaply: their channels are the same single images again and again.

A floor of 26,000 triples against as many shows the classifier 156,000 channels, but of 10,000 (or 70,000) images. They
are looked at once; a triple's view is put together from its channels'.
"""

from __future__ import annotations

import numpy as np
import torch

from vistudy.trainables.data.images.device_batches import to_float
from vistudy.trainables.data.images.stacked import Stacked
from vistudy.trainables.metrics.evaluate import METRICS, feature_view, n_samples
from vistudy.trainables.metrics.views import StackedView


def view_singles(dataset: Stacked) -> StackedView:
    """Every single image, those to learn first, as a stack of one channel."""
    return feature_view(dataset).transform(to_float(torch.from_numpy(np.asarray(dataset.prepared.images))))  # type: ignore[no-any-return]


def put_together(singles: StackedView, drawn: np.ndarray) -> StackedView:
    """The view of stacks whose channels are the single images `drawn` (n, channels)."""
    index = torch.from_numpy(drawn)
    return StackedView(
        features=singles.features[index].flatten(1),
        labels=singles.labels[index, 0],
        confidence=singles.confidence[index].amin(dim=1),
    )


def stacked_pair(dataset: Stacked, singles: StackedView, pair: int) -> dict[str, float]:
    """As `reference.real_pair`: metrics of one real set judged against another that is disjoint from it."""
    n = n_samples(dataset)
    of, against = (put_together(singles, dataset.image_indices(n, split)) for split in (2 * pair, 2 * pair + 1))
    metrics = [metric(dataset, against) for metric in METRICS["stacked"]]
    return {name: value for metric in metrics for name, value in metric(of).items()}
