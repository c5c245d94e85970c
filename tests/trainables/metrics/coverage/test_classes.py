from __future__ import annotations

import pytest
import torch

from tests.trainables.metrics.fakes import BARS, PLAIN
from vistudy.trainables.data.data_root import DataError
from vistudy.trainables.data.images.digits import DIGITS, load
from vistudy.trainables.metrics.coverage.classes import ClassCoverage, Confidence, class_coverage
from vistudy.trainables.metrics.views import ImageView, view_images


def test_a_class_counts_from_a_tenth_of_its_fair_share() -> None:
    # 100 labels of 10 classes: fair is 10 each, so 1 is enough; of 1,000 it takes 10.
    few = torch.tensor([0] * 99 + [1])
    many = torch.tensor([0] * 981 + [1] * 10 + [2] * 9)
    assert class_coverage(few, 10) == 0.2
    assert class_coverage(many, 10) == 0.2


def test_digits_of_three_classes_cover_three() -> None:
    images, labels = load()
    three = view_images(torch.from_numpy(images[labels < 3][:400]))
    assert ClassCoverage(DIGITS, three)(three) == {"class_coverage": 0.3}


def test_confident_is_nine_tenths_of_the_probability() -> None:
    odds = torch.tensor([8.9, 9.1, 1.0, 900.0])  # of the first of two classes
    logits = torch.stack([odds.log(), torch.zeros(4)], dim=1)
    view = ImageView(images=torch.zeros(4, 1, 2, 2), features=torch.zeros(4, 3), logits=logits)
    assert Confidence(BARS, view)(view) == {"confident_share": 0.5}


@pytest.mark.parametrize("metric", [ClassCoverage, Confidence])
def test_a_labelled_metric_on_unlabelled_data_is_refused(metric: type[ClassCoverage | Confidence]) -> None:
    view = ImageView(images=torch.zeros(4, 1, 2, 2), features=torch.zeros(4, 3), logits=None)
    with pytest.raises(DataError, match=f"{metric.names[0]}: data 'plain' has no labels"):
        metric(PLAIN, view)
