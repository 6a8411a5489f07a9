from __future__ import annotations

import pytest
import torch

from sgnray.config import load_recipe
from sgnray.train.optim import build_optimizer, learning_rate


def test_the_papers_schedule():
    config = load_recipe("ntu60-cs").optim
    rates = [learning_rate(config, epoch) for epoch in range(120)]
    assert rates[:60] == [1e-3] * 60
    assert rates[60:90] == pytest.approx([1e-4] * 30)
    assert rates[90:110] == pytest.approx([1e-5] * 20)
    assert rates[110:] == pytest.approx([1e-6] * 10)


@pytest.mark.parametrize(("scaling", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
def test_the_learning_rate_follows_the_batch(scaling, factor):
    overrides = ["optim.batch_size=256", f"optim.lr_scaling={scaling}"]
    config = load_recipe("ntu60-cs", overrides).optim
    assert learning_rate(config, 0) == pytest.approx(factor * 1e-3)


def test_weight_decay_is_added_to_the_gradient():
    """Adam with L2: the first step moves by the learning rate in the sign of g + w d."""
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 10.0)
    optimizer = build_optimizer(layer, load_recipe("ntu60-cs").optim)
    layer.weight.grad = torch.tensor([[-5e-4]])  # smaller than 10 * 1e-4, and against it
    optimizer.step()
    assert layer.weight.item() == pytest.approx(10.0 - 1e-3, abs=1e-5)
