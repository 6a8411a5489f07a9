"""`sgn predict --workers`: a real Ray cluster changes no prediction, whatever happens to it."""

from __future__ import annotations

import json
import shutil
import time
from itertools import chain

import psutil
import pytest

from sgnray.distributed import pool
from sgnray.distributed.precision import choose_precision
from sgnray.errors import ClusterError, InputError
from sgnray.predict import Prediction, predict_clips, write_predictions

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def recordings(tiny_raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    shutil.copytree(tiny_raw, folder, dirs_exist_ok=True)
    (folder / "S001C001P001R001A000.skeleton").write_text("x")
    return folder


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("sgnray.predict.clips.PART_RECORDINGS", 2)


def check_equal(found, expected):
    for item, other in zip(found, expected, strict=True):
        if not isinstance(other, Prediction):
            assert item == other
            continue
        assert (item.clip, item.place, item.span) == (other.clip, other.place, other.span)
        assert [one.label for one in item.guesses] == [one.label for one in other.guesses]
        shares = [one.probability for one in other.guesses]
        assert [one.probability for one in item.guesses] == pytest.approx(shares, abs=1e-6)


def test_an_unreachable_cluster_is_an_error(recordings, tiny_run):
    with pytest.raises(ClusterError) as caught:
        list(predict_clips(recordings, tiny_run, workers=1, address="127.0.0.1:1"))
    assert "127.0.0.1:1" in caught.value.where


@pytest.fixture(scope="module")
def cluster():
    """One cluster on this machine for the tests that only use it."""
    from sgnray.distributed.cluster import connected

    with connected("local", num_workers=2):
        yield


@pytest.mark.usefixtures("cluster")
def test_workers_change_nothing(recordings, tiny_folder, tiny_run):
    for source, options in ((recordings, {"window": 12}), (tiny_folder, {})):
        seen = []
        plan = predict_clips([source, recordings], tiny_run, workers=2, **options)
        found = plan.run(on_progress=lambda *step, seen=seen: seen.append(step))
        check_equal(
            chain.from_iterable(found), predict_clips([source, recordings], tiny_run, **options)
        )
        assert seen[-1] == (seen[-1][1], seen[-1][1])
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.usefixtures("cluster")
def test_the_precision_is_decided_once_for_all_workers(recordings, tiny_run, monkeypatch):
    """Here and not on the workers, whose hardware may differ: this process has another one."""
    has_bf16 = choose_precision("cpu") == "bf16"
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": not has_bf16})
    auto = list(predict_clips(recordings, tiny_run, precision="auto", workers=2))
    same, other = ("float32", "bf16") if has_bf16 else ("bf16", "float32")
    check_equal(auto, predict_clips(recordings, tiny_run, precision=same))
    with pytest.raises(AssertionError):
        check_equal(auto, predict_clips(recordings, tiny_run, precision=other))


@pytest.mark.usefixtures("cluster")
def test_an_interrupted_prediction_is_continued_with_workers(recordings, tiny_run, tmp_path):
    def interrupt(done, total):
        if done > 12:
            raise KeyboardInterrupt

    alone, out = predict_clips(recordings, tiny_run), tmp_path / "p.jsonl"
    with pytest.raises(KeyboardInterrupt):
        write_predictions(alone, out, on_progress=interrupt)
    spread, seen = predict_clips(recordings, tiny_run, workers=2), []
    write_predictions(spread, out, on_progress=lambda *step: seen.append(step))
    assert seen[0][0] > 12
    write_predictions(alone, tmp_path / "whole.jsonl")
    with out.open() as found, (tmp_path / "whole.jsonl").open() as whole:
        for row, other in zip(map(json.loads, found), map(json.loads, whole), strict=True):
            assert row["clip"] == other["clip"]
            labels = [[one["label"] for one in each.get("guesses", ())] for each in (row, other)]
            assert labels[0] == labels[1]


@pytest.mark.usefixtures("cluster")
def test_an_error_of_a_worker_looks_like_one_of_this_process(recordings, tiny_run, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(recordings, mine)
    found = predict_clips(mine, tiny_run, workers=1)
    shutil.rmtree(mine)
    with pytest.raises(InputError, match="a raw file is missing"):
        list(found)


@pytest.mark.usefixtures("cluster")
def test_a_lost_cluster_is_named_and_not_a_file(recordings, tiny_run, monkeypatch):
    def wait(*_, **__):
        raise ConnectionError("the head does not answer")

    found = predict_clips(recordings, tiny_run, workers=1)
    monkeypatch.setattr("ray.wait", wait)
    with pytest.raises(ClusterError, match="the Ray cluster was lost: the head does not") as caught:
        list(found)
    assert "with --out it continues where it stopped" in caught.value.now


@pytest.mark.usefixtures("cluster")
def test_workers_that_start_slowly_are_named(recordings, tiny_run, monkeypatch, caplog):
    class SlowWorker(pool._Worker):
        def __init__(self, device):
            super().__init__(device)
            time.sleep(4)

    monkeypatch.setattr(pool, "_Worker", SlowWorker)
    monkeypatch.setattr("sgnray.distributed.reserve.SLOW_START_S", 1.0)
    with caplog.at_level("WARNING"):
        found = list(predict_clips(recordings, tiny_run, workers=2))
    check_equal(found, predict_clips(recordings, tiny_run))
    (said,) = [line for line in caplog.messages if "still starting" in line]  # not of the room
    assert said.startswith("still starting 2 workers with 1 CPU each; the cluster has ")


@pytest.mark.usefixtures("cluster")
def test_a_lost_worker_costs_its_part_only(recordings, tiny_run):
    lost = []

    def lose(done, total):
        if not lost and done >= 6:
            for process in psutil.Process().children(recursive=True):
                if "ray::_Worker" in " ".join(process.cmdline()):
                    lost.append(process)
                    process.kill()
                    return

    found = list(predict_clips(recordings, tiny_run, workers=1).run(on_progress=lose))
    assert lost
    check_equal(chain.from_iterable(found), predict_clips(recordings, tiny_run))
