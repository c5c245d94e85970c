from __future__ import annotations

import torch

from trainables.data.digits import DIGITS, load
from trainables.metrics.classes import ClassCoverage, class_coverage
from trainables.metrics.views import view_images


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
