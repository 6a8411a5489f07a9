"""The whole road on a GPU: train without Ray and on Ray workers, evaluate, predict."""

import json

import pytest

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def settings():
    return (
        "data.num_segments=8",
        "model.graph_widths=[16, 16, 16]",
        "optim.batch_size=6",
        "train.num_epochs=8",
        "evaluate.num_views=3",
        "evaluate.turn_rad=0.5",
    )


@pytest.mark.parametrize("workers", ["0", pytest.param("1", marks=pytest.mark.ray)])
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_the_road_on_a_gpu(sgn, tiny_folder, tiny_raw, tmp_path, settings, workers, precision):
    words = (f"--data={tiny_folder}", "--case=cv", f"--runs={tmp_path}", "--name=gpu")
    options = ("--device=cuda", f"--workers={workers}", "--address=local")[: 2 + int(workers)]
    trained = sgn("train", *words, *options, *settings, f"train.precision={precision}")
    assert trained.code == 0, trained.err
    assert workers == "1" or "no CUDA graph" not in trained.err  # it stays in the worker's log
    recorded = json.loads((tmp_path / "gpu" / "environment.json").read_text())
    assert "cpu" not in recorded["device"]
    found = {}
    for device in ("cuda", "cpu"):
        scored = sgn(
            "eval", str(tmp_path / "gpu"), "--data", str(tiny_folder), "--device", device, "--json"
        )
        assert scored.code == 0, scored.err
        found[device] = json.loads(scored.out)["top1"]
        guessed = sgn(
            "predict",
            str(tiny_raw),
            "--checkpoint",
            str(tmp_path / "gpu"),
            "--device",
            device,
            "--json",
        )
        assert guessed.code == 0, guessed.err
    assert found["cuda"] == pytest.approx(found["cpu"], abs=0.12)  # at most one of 9 clips
