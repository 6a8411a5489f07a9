from __future__ import annotations

import numpy as np
import pytest
import torch

from sgnray.checkpoints.checkpoint import build_model
from sgnray.data.batches import view_draws
from sgnray.data.pose_bank import PoseBank
from sgnray.data.skeleton import NTU25
from sgnray.evaluate.score import score_clips

CPU = torch.device("cpu")


@pytest.fixture
def model(tiny_recipe, tiny_dataset):
    torch.manual_seed(1)
    num_classes = len(tiny_dataset.info.class_names)
    return build_model(tiny_recipe, NTU25, num_classes)


def test_matches_one_clip_and_view_at_a_time(model, tiny_dataset):
    bank, draws = PoseBank.of(tiny_dataset, CPU), view_draws(27, 3, model.num_frames)
    tally = score_clips(model, bank, np.arange(27), num_views=3, windows="paper")
    model.eval()
    for row in range(27):
        rows = torch.tensor([row])
        with torch.no_grad():
            views = [model(bank.gather(rows, draws[rows, w], windows="paper"))[0] for w in range(3)]
        predicted = int(torch.stack(views).mean(dim=0).argmax())
        tally.confusion_KK[tiny_dataset.clips.labels[row], predicted] -= 1
    assert not tally.confusion_KK.any()


def test_the_mode_of_the_model_is_restored(model, tiny_dataset):
    bank = PoseBank.of(tiny_dataset, CPU)
    for mode in (True, False):
        model.train(mode)
        score_clips(model, bank, np.arange(5), num_views=1, windows="paper")
        assert model.training is mode


def test_progress_reaches_the_end(model, tiny_dataset):
    steps = []
    bank = PoseBank.of(tiny_dataset, CPU)
    score_clips(
        model,
        bank,
        np.arange(27),
        num_views=1,
        windows="paper",
        on_progress=lambda *step: steps.append(step),
    )
    assert steps[-1] == (27, 27)
