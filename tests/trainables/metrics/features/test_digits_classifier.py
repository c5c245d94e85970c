from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import pytest
import torch

from vistudy.trainables.metrics.features import digits_classifier
from vistudy.trainables.metrics.features.digits_classifier import SHA256, WEIGHTS, classifier, read, split, train


def test_committed_weights_know_unseen_digits() -> None:
    _, (images, labels) = split()
    assert len(images) == 500
    assert classifier().accuracy(images, labels) >= 0.96


def test_the_split_shares_no_image() -> None:
    seen, unseen = ({image.numpy().tobytes() for image in part[0]} for part in split())
    assert len(seen) == 1297
    assert not seen & unseen


def test_features_are_the_64_outputs_of_the_last_relu() -> None:
    (images, _), _ = split()
    features, logits = classifier()(images[:7])
    assert features.shape == (7, 64)
    assert bool((features >= 0).all())
    assert torch.allclose(features @ classifier().w3.T + classifier().b3, logits, atol=1e-5)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    content = bytearray(WEIGHTS.read_bytes())
    content[5000] ^= 1
    damaged = tmp_path / "weights.npz"
    damaged.write_bytes(content)
    with pytest.raises(RuntimeError, match=f"weights.npz.*damaged or foreign.*expected {SHA256}"):
        read(damaged, SHA256)


def test_training_learns_and_repeats_itself() -> None:
    (images, labels), unseen = split()
    once, twice = train(images, labels, epochs=4), train(images, labels, epochs=4)
    assert once.accuracy(*unseen) > 0.85
    assert torch.equal(once.w1, twice.w1)


def test_new_weights_can_be_written_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(digits_classifier, "train", lambda images, labels: classifier())
    target = tmp_path / "new.npz"
    monkeypatch.setattr(sys, "argv", ["digits_classifier", "--write", str(target)])
    digits_classifier.main()
    said = re.search("SHA256 = '([0-9a-f]{64})'", capsys.readouterr().out)
    assert said is not None
    assert said[1] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert torch.equal(read(target, said[1]).w2, classifier().w2)
