from __future__ import annotations

import pytest
import torch

from vistudy.trainables.optim import Adam, Sgd, column

CPU = torch.device("cpu")
RATES = [1e-4, 3e-3, 0.5]
BETAS = [0.5, 0.9, 0.0]


def test_adam_equals_torch_for_each_trial():
    torch.manual_seed(0)
    start, gradients = torch.randn(3, 40), torch.randn(25, 3, 40)
    flat = start.clone()
    mine = Adam(flat, column(RATES, CPU), column(BETAS, CPU), column([0.999] * 3, CPU))
    theirs = [start[i].clone().requires_grad_() for i in range(3)]
    optimizers = [torch.optim.Adam([p], lr, (b, 0.999)) for p, lr, b in zip(theirs, RATES, BETAS, strict=True)]
    for gradient in gradients:
        mine.step(flat, gradient)
        for i, optimizer in enumerate(optimizers):
            theirs[i].grad = gradient[i].clone()
            optimizer.step()
    for i in range(3):
        torch.testing.assert_close(flat[i], theirs[i].detach(), rtol=2e-5, atol=2e-6)


def test_sgd_equals_torch_for_each_trial():
    start, gradient = torch.randn(3, 4), torch.randn(3, 4)
    flat = start.clone()
    Sgd(column(RATES, CPU)).step(flat, gradient)
    for i, rate in enumerate(RATES):
        torch.testing.assert_close(flat[i], start[i] - rate * gradient[i])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_gradient_stays_in_its_trial(bad):
    flats = []
    for spoil in (False, True):
        flat, gradient = torch.ones(3, 8), torch.full((3, 8), 0.25)
        if spoil:
            gradient[1, 3] = bad
        optimizer = Adam(flat, column(RATES, CPU), column(BETAS, CPU), column([0.999] * 3, CPU))
        for _ in range(3):
            optimizer.step(flat, gradient)
        flats.append(flat)
    assert torch.equal(flats[0][[0, 2]], flats[1][[0, 2]])
    assert not flats[1][1].isfinite().all()


def test_adam_goes_on_from_its_state():
    gradients = torch.randn(6, 2, 5)

    def new(flat: torch.Tensor) -> Adam:
        return Adam(flat, column([1e-2] * 2, CPU), column([0.5] * 2, CPU), column([0.99] * 2, CPU))

    through = torch.zeros(2, 5)
    optimizer = new(through)
    for gradient in gradients:
        optimizer.step(through, gradient)
    resumed = torch.zeros(2, 5)
    first = new(resumed)
    for gradient in gradients[:3]:
        first.step(resumed, gradient)
    second = new(resumed)
    second.load(first.state())
    for gradient in gradients[3:]:
        second.step(resumed, gradient)
    assert torch.equal(through, resumed)
