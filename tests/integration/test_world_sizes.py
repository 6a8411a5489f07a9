"""One, two and three workers: the same gradient, the same count of correct clips."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sgnray.config import dump_recipe


@pytest.fixture(scope="module")
def results(tiny_recipe, tiny_folder, tmp_path_factory):
    """What rank 0 of each world size found; batches of 7 make uneven slices."""
    folder = tmp_path_factory.mktemp("worlds")
    recipe = folder / "recipe.yaml"
    recipe.write_text(dump_recipe(tiny_recipe.replacing({"optim.batch_size": 7})))
    script = Path(__file__).parent / "ddp_rank.py"
    ranks = [
        subprocess.Popen([sys.executable, script, str(rank), folder, tiny_folder])
        for rank in range(3)
    ]
    try:
        assert [rank.wait(timeout=500) for rank in ranks] == [0, 0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return {size: torch.load(folder / f"world{size}.pt") for size in (1, 2, 3)}


@pytest.mark.parametrize("size", [2, 3])
def test_the_gradient_equals_that_of_a_single_worker(results, size):
    assert results[size]["slice"] < results[1]["slice"] == 7
    for name, expected in results[1]["gradients"].items():
        gradient = results[size]["gradients"][name]
        torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0, msg=name)
    assert any(gradient.abs().max() > 1e-3 for gradient in results[1]["gradients"].values())


@pytest.mark.parametrize("size", [2, 3])
def test_every_test_clip_is_scored_once_with_the_same_result(results, size):
    single, several = results[1]["tally"], results[size]["tally"]
    assert several["confusion_KK"].sum() == 9
    assert torch.equal(several["confusion_KK"], single["confusion_KK"])
    assert torch.equal(several["num_in_top5"], single["num_in_top5"])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_running_statistics_are_averaged_over_ranks(results, size):
    assert results[size]["mean_rank"] == pytest.approx((size - 1) / 2)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("moment", ["validate", "on_epoch"])
def test_all_ranks_score_and_write_the_same_running_statistics(results, size, moment):
    first, *others = (rank["statistics"][moment] for rank in results[size]["epoch_of_ranks"])
    assert len(others) == size - 1
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("size", [2, 3])
def test_each_rank_draws_its_own_dropout(results, size):
    masks = [tuple(rank["mask"].flatten().tolist()) for rank in results[size]["epoch_of_ranks"]]
    assert len(set(masks)) == size
    assert {value for mask in masks for value in mask} == {False, True}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_trial_resumes_on_all_ranks_if_one_can_read_its_state(results, size):
    assert results[size]["resumed_epochs"] == size
