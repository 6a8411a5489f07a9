from __future__ import annotations

import pytest
import torch

from sgnray.config import load_recipe
from sgnray.train.optim import build_optimizer, learning_rate, set_learning_rate, sync_learning_rate


def test_the_papers_schedule():
    config = load_recipe("ntu60-cs").optim
    rates = [learning_rate(config, epoch, 120) for epoch in range(120)]
    assert rates[:60] == [1e-3] * 60
    assert rates[60:90] == pytest.approx([1e-4] * 30)
    assert rates[90:110] == pytest.approx([1e-5] * 20)
    assert rates[110:] == pytest.approx([1e-6] * 10)


@pytest.mark.parametrize(("scaling", "factor"), [("none", 1), ("linear", 4), ("sqrt", 2)])
def test_the_learning_rate_follows_the_batch(scaling, factor):
    overrides = ["optim.batch_size=256", f"optim.lr_scaling={scaling}"]
    config = load_recipe("ntu60-cs", overrides).optim
    assert learning_rate(config, 0, 120) == pytest.approx(factor * 1e-3)


def test_weight_decay_is_added_to_the_gradient():
    """Adam with L2: the first step moves by the learning rate in the sign of g + w d."""
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 10.0)
    optimizer = build_optimizer(layer, load_recipe("ntu60-cs").optim)
    layer.weight.grad = torch.tensor([[-5e-4]])  # smaller than 10 * 1e-4, and against it
    optimizer.step()
    assert layer.weight.item() == pytest.approx(10.0 - 1e-3, abs=1e-5)


def test_adamw_takes_the_weight_decay_off_the_weights():
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 10.0)
    overrides = ["optim.optimizer=adamw", "optim.weight_decay=0.5", "optim.learning_rate=1e-2"]
    optimizer = build_optimizer(layer, load_recipe("ntu60-cs", overrides).optim)
    layer.weight.grad = torch.tensor([[-1.0]])
    optimizer.step()
    assert layer.weight.item() == pytest.approx(10.0 - 1e-2 * 0.5 * 10.0 + 1e-2, abs=1e-5)


def test_cosine_falls_to_zero_after_the_warm_up():
    overrides = ["optim.schedule=cosine", "optim.warmup_epochs=4"]
    config = load_recipe("ntu60-cs", overrides).optim
    rates = [learning_rate(config, epoch, 24) for epoch in range(24)]
    assert rates[:5] == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3])
    assert rates[14] == pytest.approx(5e-4)
    assert rates == sorted(rates[:5]) + sorted(rates[5:], reverse=True)
    assert 0 < rates[-1] < 1e-5


def test_warm_up_comes_before_the_papers_steps_too():
    config = load_recipe("ntu60-cs", ["optim.warmup_epochs=1"]).optim
    assert [learning_rate(config, epoch, 120) for epoch in (0, 1, 60)] == pytest.approx(
        [5e-4, 1e-3, 1e-4]
    )


def test_graph_settings_of_a_checkpoint_are_reset():
    layer = torch.nn.Linear(1, 1)
    optimizer = build_optimizer(layer, load_recipe("ntu60-cs").optim)
    saved = optimizer.state_dict()
    saved["param_groups"][0] |= {"lr": torch.tensor(0.5), "capturable": True}
    optimizer.load_state_dict(saved)
    sync_learning_rate(optimizer)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["capturable"]) == (0.5, False)
    assert isinstance(group["lr"], float)
    set_learning_rate(optimizer, 0.25)
    assert group["lr"] == 0.25
