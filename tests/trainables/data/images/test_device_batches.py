from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vistudy.trainables.data.images import device_batches as resident
from vistudy.trainables.data.images.device_batches import RESIDENT_SHARE, EpochOrder, ImageBatches, fits, to_float
from vistudy.trainables.data.images.prepared_images import Prepared
from vistudy.trainables.random_streams import BLOCK, generator

PIXELS = generator(3, "test").integers(256, size=(60, 1, 5, 5)).astype(np.uint8)
CPU = torch.device("cpu")


def images(pixels: np.ndarray = PIXELS, train: int = 50) -> Prepared:
    return Prepared(images=pixels, labels=None, train=train, split="", fingerprint="")


def batches(*, stays: bool | None, device: torch.device = CPU, seeds: tuple[int, ...] = (4, 1, 4)) -> ImageBatches:
    return ImageBatches(images(), EpochOrder(50, 8), seeds, device, (1, 5, 5), resident=stays)


def test_pixels_fill_minus_one_to_one_and_are_rounded_once() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    got = to_float(levels)
    assert got.dtype == torch.float32
    assert got[0] == -1
    assert got[255] == 1
    assert torch.equal(got, -got.flip(0))
    exact = (2 * np.arange(256) - 255) / 255
    assert np.abs(got.double().numpy() - exact).max() < 1e-7
    assert (got.diff() > 0).all()
    assert torch.equal(levels, torch.arange(256, dtype=torch.uint8))  # the pixels themselves are left alone


@pytest.mark.parametrize("stays", [True, False])
def test_a_batch_holds_the_images_of_its_indices(stays: bool) -> None:
    got, order = batches(stays=stays), EpochOrder(50, 8)
    for step in (0, 5, BLOCK + 3, 1):
        block, offset = divmod(step, BLOCK)
        batch = got.at(step)
        assert batch.shape == (3, 8, 1, 5, 5)
        for row, seed in enumerate((4, 1, 4)):
            expected = PIXELS[order(seed, block)[offset]]
            assert np.array_equal(batch[row].numpy(), to_float(torch.from_numpy(expected)).numpy())


def test_resident_and_streamed_are_the_same_numbers() -> None:
    one, other = batches(stays=True), batches(stays=False)
    for step in range(2 * BLOCK + 2):
        assert torch.equal(one.at(step), other.at(step))


def test_several_images_make_a_sample() -> None:
    def draw(seed: int, block: int) -> np.ndarray:
        return generator(seed, "triples", block).integers(50, size=(BLOCK, 4, 3))

    one, other = (ImageBatches(images(), draw, [2, 3], CPU, (3, 5, 5), resident=stays) for stays in (True, False))
    batch = one.at(9)
    assert batch.shape == (2, 4, 3, 5, 5)
    assert torch.equal(batch, other.at(9))
    assert np.array_equal(batch[1, 2, 1].numpy(), to_float(torch.from_numpy(PIXELS[draw(3, 0)[9, 2, 1], 0])).numpy())


def test_images_of_the_reference_are_never_learnt() -> None:
    stream = batches(stays=True, seeds=(1,))
    seen = {stream.at(step)[0, i].numpy().tobytes() for step in range(40) for i in range(8)}
    learn = {image.tobytes() for image in to_float(torch.from_numpy(PIXELS[:50])).numpy()}
    assert seen == learn


def test_a_trial_sees_the_same_in_any_pack() -> None:
    alone = batches(stays=True, seeds=(1,))
    assert torch.equal(alone.at(70)[0], batches(stays=True, seeds=(9, 4, 1)).at(70)[2])


def test_every_epoch_shows_every_image_once_in_another_order() -> None:
    order = EpochOrder(50, 5)
    stream = np.concatenate([order(6, block).ravel() for block in range(3)])
    epochs = [stream[i : i + 50] for i in range(0, 900, 50)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({epoch.tobytes() for epoch in epochs}) == 18


def test_blocks_may_be_asked_for_in_any_order() -> None:
    forward = EpochOrder(1000, 4)
    expected = {(seed, block): forward(seed, block) for block in range(9) for seed in (1, 2)}
    backward = EpochOrder(1000, 4)
    for seed, block in reversed(expected):
        assert np.array_equal(backward(seed, block), expected[seed, block])
    assert np.array_equal(EpochOrder(1000, 4)(2, 5), expected[2, 5])


@pytest.mark.parametrize(("n", "batch_size"), [(7, 3), (64, 1), (1, 2), (5000, 64)])
def test_the_order_does_not_depend_on_the_batch_size(n: int, batch_size: int) -> None:
    got = EpochOrder(n, batch_size)(3, 1)
    assert got.shape == (BLOCK, batch_size)
    singles = np.concatenate([EpochOrder(n, 1)(3, block).ravel() for block in range(batch_size, 2 * batch_size)])
    assert np.array_equal(got.ravel(), singles)


def test_an_order_is_drawn_once_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def counting(seed: int, role: str, block: int = 0) -> np.random.Generator:
        drawn.append((seed, block))
        return generator(seed, role, block)

    monkeypatch.setattr(resident, "generator", counting)
    order = EpochOrder(BLOCK * 4 * 3, 4)  # an epoch of three blocks
    for block in range(7):
        order(1, block)
    assert drawn == [(1, 0), (1, 1), (1, 2)]


def test_what_fits_is_a_share_of_the_devices_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(total_memory=1000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    cuda = torch.device("cuda")
    assert RESIDENT_SHARE == 0.15
    assert fits(150, cuda)
    assert not fits(151, cuda)
    assert fits(10**15, CPU)  # mapped from the file


@pytest.mark.gpu
def test_all_ways_to_a_gpu_are_the_cpus_numbers() -> None:
    cuda = torch.device("cuda")
    cpu, there, streamed = batches(stays=True), *(batches(stays=stays, device=cuda) for stays in (True, False))
    for step in (0, 1, 2, 3, 90):
        expected = cpu.at(step)
        for way in (there, streamed):
            got = way.at(step)
            assert got.device.type == "cuda"
            assert torch.equal(got.cpu(), expected)


@pytest.mark.gpu
def test_streamed_batches_survive_later_steps() -> None:
    streamed, cpu = batches(stays=False, device=torch.device("cuda")), batches(stays=True)
    kept = [streamed.at(step) for step in range(50)]  # a reused pinned buffer would overwrite a copy under way
    assert all(torch.equal(kept[step].cpu(), cpu.at(step)) for step in range(50))
