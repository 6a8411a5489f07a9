"""The whole measurement in this process, on a model that takes milliseconds."""

import json

import pytest

from sgnray.bench import bench_recipe
from sgnray.bench.run import shorten_to_time, worker_counts
from sgnray.distributed.resources import WorkerRequest
from sgnray.errors import UsageError
from sgnray.train.tracking import trackers

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_dataset_is_measured(tiny_recipe, tiny_folder, tiny_dataset):
    heard = []
    result = bench_recipe(
        tiny_recipe,
        tiny_folder,
        device="cpu",
        seconds=1,
        on_progress=lambda *args: heard.append(args),
    )
    workload = result.workload
    assert workload.has_dataset
    assert workload.num_train + workload.num_test == tiny_dataset.info.num_clips
    assert workload.batch_size == 6
    assert result.workers == ()
    assert [row.num_workers for row in result.estimates] == [0]
    assert {(row.what, row.precision) for row in result.speeds} >= {
        ("training step", "float32"),
        ("forward", "float32"),
    }
    for row in result.speeds:
        assert row.clips_per_s.low <= row.clips_per_s.median <= row.clips_per_s.high
        product = next(item for item in result.products if item.precision == row.precision)
        flops = workload.step_flops if row.what == "training step" else workload.forward_flops
        assert row.flops_per_s == pytest.approx(row.clips_per_s.median * flops)
        assert row.share_of_product == pytest.approx(row.flops_per_s / product.flops_per_s)
    assert result.epoch.outside.median < 1
    assert heard
    assert all(done <= total for done, total in heard)


def test_noise_replaces_a_missing_dataset_and_is_removed_afterwards(
    tiny_recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)  # nothing is tracked
    recipe = tiny_recipe.replacing({"train.selection": "validation", "train.log": ("wandb",)})
    result = bench_recipe(recipe, device="cpu", seconds=1)
    workload = result.workload
    assert not workload.has_dataset
    assert (workload.num_train, workload.num_validation) == (512 - 102, 102)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"address": "127.0.0.1:6379"}, "without workers, Ray is not used"),
        ({"request": WorkerRequest(wait_s=9)}, "without workers, Ray is not used"),
        (
            {"workers": 2, "address": "local", "request": WorkerRequest(num_cpus=4096)},
            "this machine has no room for 2 workers",
        ),
    ],
)
def test_workers_that_cannot_start_are_refused_before_the_measurement(tiny_recipe, settings, what):
    measured = []
    with pytest.raises(UsageError, match=what):
        bench_recipe(
            tiny_recipe,
            device="cpu",
            seconds=1,
            on_progress=lambda *args: measured.append(args),
            **settings,
        )
    assert measured == []


def test_the_estimate_is_clips_over_clips_per_second(tiny_recipe):
    result = bench_recipe(tiny_recipe, device="cpu", seconds=1)
    (here,) = result.estimates
    forward = next(
        row.clips_per_s.median
        for row in result.speeds
        if (row.what, row.precision) == ("forward", "float32")
    )
    # 85 batches of 6 are what 512 clips give in each of 4 epochs.
    assert here.training_s == pytest.approx(4 * 510 / result.epoch.clips_per_s.median)
    assert here.evaluation_s == pytest.approx(256 * 2 / forward)
    assert here.total_s == here.training_s + here.evaluation_s


def test_plain_data(tiny_recipe, tiny_folder):
    content = bench_recipe(tiny_recipe, tiny_folder, device="cpu", seconds=1).to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)).keys() == {
        "format_version",
        "workload",
        "data_clips_per_s",
        "products",
        "speeds",
        "epoch",
        "workers",
        "estimates",
    }
    assert content["format_version"] == 3
    assert content["estimates"][0]["total_s"] > 0


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"workers": 7}, "a batch of 6 clips cannot be shared by 7 workers"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(tiny_recipe, options, what):
    with pytest.raises(UsageError, match=what):
        bench_recipe(tiny_recipe, seconds=1, **options)


def test_another_dataset_than_the_recipes_is_refused(tiny_recipe, tiny_folder):
    recipe = tiny_recipe.replacing({"data.dataset": "ntu60"})
    with pytest.raises(UsageError, match="the recipe is for ntu60"):
        bench_recipe(recipe, tiny_folder, seconds=1)


def test_worker_counts_double_up_to_the_last():
    assert [worker_counts(most) for most in (0, 1, 2, 3, 8)] == [
        [],
        [1],
        [1, 2],
        [1, 2, 3],
        [1, 2, 4, 8],
    ]


def test_a_shortened_recipe_has_as_many_epochs_as_its_time_allows(tiny_recipe):
    # 8 steps of 6 clips are an epoch: 0.48 s at 100 clips/s.
    recipe = shorten_to_time(tiny_recipe, seconds=4.8, clips_per_s=100)
    assert recipe.train.num_epochs == 10
    assert recipe.evaluate.num_views == 1
    assert shorten_to_time(tiny_recipe, seconds=0.1, clips_per_s=100).train.num_epochs == 4
