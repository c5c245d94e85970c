"""Real-data baselines of stacked images, computed efficiently from the features of single images.

A comparison of 26,000 triples with as many others involves 156,000 channels, but only 10,000 (or 70,000) single images.
Each of these is classified once, and the view of a triple is assembled from its channels.
"""

from __future__ import annotations

import numpy as np
import torch

from vistudy.trainables.data.images.device_batches import to_float
from vistudy.trainables.data.images.stacked import Stacked
from vistudy.trainables.metrics.evaluate import METRICS, feature_view, n_samples
from vistudy.trainables.metrics.views import StackedView


def view_singles(dataset: Stacked) -> StackedView:
    """View every single image, those to learn first, as a stack of one channel."""
    return feature_view(dataset).transform(to_float(torch.from_numpy(np.asarray(dataset.prepared.images))))  # type: ignore[no-any-return]


def assemble_stacks(singles: StackedView, indices: np.ndarray) -> StackedView:
    """Assemble the view of stacks whose channels are the single images `indices` (n, channels)."""
    index = torch.from_numpy(indices)
    return StackedView(
        features=singles.features[index].flatten(1),
        labels=singles.labels[index, 0],
        confidence=singles.confidence[index].amin(dim=1),
    )


def stacked_pair(dataset: Stacked, singles: StackedView, pair: int) -> dict[str, float]:
    """Metrics of one real set against another, disjoint one. See `reference.real_pair`."""
    n = n_samples(dataset)
    real, against = (assemble_stacks(singles, dataset.image_indices(n, split)) for split in (2 * pair, 2 * pair + 1))
    metrics = [metric(dataset, against) for metric in METRICS["stacked"]]
    return {name: value for metric in metrics for name, value in metric(real).items()}
