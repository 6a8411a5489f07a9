"""What batch norm cannot do is refused before Ray starts and before a folder is made."""

import pytest

from sgnray.errors import UsageError
from sgnray.train.checks import check_batch_norm
from sgnray.train.run import train_run


def changed(recipe, **sections):
    updates = {
        name: getattr(recipe, name).model_copy(update=values) for name, values in sections.items()
    }
    return recipe.model_copy(update=updates)


@pytest.mark.parametrize("workers", [0, 2])
def test_one_pose_in_a_batch_leaves_no_folder(tiny_recipe, tiny_folder, tmp_path, caplog, workers):
    size = max(1, workers)
    recipe = changed(tiny_recipe, data={"num_segments": 1}, optim={"batch_size": size})
    with pytest.raises(UsageError, match="batch norm needs more than one pose") as caught:
        train_run(recipe, tiny_folder, workers=workers, runs_dir=tmp_path / "runs", device="cpu")
    assert ("fewer workers" in caught.value.now) is (workers == 2)
    assert not (tmp_path / "runs").exists()
    assert "starting Ray" not in caplog.text


@pytest.mark.parametrize(
    ("num_segments", "batch_size", "num_clips", "num_workers", "is_refused"),
    [
        (1, 1, 9, 1, True),
        (1, 6, 1, 1, True),
        (1, 3, 9, 2, True),
        (1, 4, 9, 2, False),
        (1, 2, 9, 1, False),
        (2, 1, 9, 1, False),
        (2, 2, 9, 2, False),
    ],
)
def test_the_smallest_share_counts(
    tiny_recipe, num_segments, batch_size, num_clips, num_workers, is_refused
):
    recipe = changed(
        tiny_recipe, data={"num_segments": num_segments}, optim={"batch_size": batch_size}
    )
    if not is_refused:
        check_batch_norm(recipe, num_clips, num_workers, device="cpu", address=None)
        return
    with pytest.raises(UsageError, match="a batch has one"):
        check_batch_norm(recipe, num_clips, num_workers, device="cpu", address=None)


def test_synchronizing_on_cpus_is_refused_before_ray_starts(
    tiny_recipe, tiny_folder, tmp_path, caplog
):
    recipe = changed(tiny_recipe, train={"sync_batch_norm": True})
    with pytest.raises(UsageError, match="between GPUs only"):
        train_run(recipe, tiny_folder, workers=2, runs_dir=tmp_path / "runs", device="cpu")
    assert "starting Ray" not in caplog.text
    # A cluster may have what this machine lacks; it is asked for it.
    check_batch_norm(recipe, 18, 2, device="auto", address="head:6379")
    check_batch_norm(recipe, 18, 1, device="cpu", address=None)
