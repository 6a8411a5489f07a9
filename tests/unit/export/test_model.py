"""Exported files against the model: the same logits, any number of clips, their cards."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

import sgnray
from sgnray.checkpoints.model_card import ModelCard
from sgnray.checkpoints.model_files import MODEL_FORMATS
from sgnray.checkpoints.trained_model import load_trained_model
from sgnray.data.epoch_draws import rotation_matrices
from sgnray.errors import CheckpointError, MissingExtraError, OutputError, SgnError, UsageError
from sgnray.evaluate import evaluate_run
from sgnray.export import export_model
from sgnray.export.files import FORMATS, open_onnx
from sgnray.export.model import RANDOM, CheckClips, agree, compare, through_onnx
from sgnray.model.sgn import SGN
from sgnray.predict import predict_clips
from sgnray.predict.sources import find_source

LOADABLE = [name for name, known in MODEL_FORMATS.items() if known.read is not None]
WITH_WEIGHTS = [name for name in LOADABLE if MODEL_FORMATS[name].has_weights]
EXAMPLE = Path(__file__).parents[3] / ".github" / "examples" / "recognize_onnx.py"


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return {to: export_model(tiny_run, to=to, out=folder / f"sgn.{to}") for to in FORMATS}


@pytest.mark.parametrize("to", FORMATS)
def test_the_result_of_an_export(exported, to, tiny_folder):
    found = exported[to]
    assert found.num_clips == 27
    assert found.checked_on == str(tiny_folder)
    assert found.largest_difference < 1e-5
    assert found.size_bytes == found.path.stat().st_size
    assert found.opset == (18 if to == "onnx" else None)
    assert [path.name for path in found.path.parent.glob("*.partial*")] == []


@pytest.mark.parametrize("num_clips", [1, 2, 33])
def test_onnx_takes_any_number_of_clips(exported, tiny_run, num_clips):
    session = onnxruntime.InferenceSession(exported["onnx"].path)
    model = load_trained_model(tiny_run).model
    clips = torch.randn(num_clips, 8, 25, 3, generator=torch.Generator().manual_seed(0))
    (logits,) = session.run(None, {"joints": clips.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(clips).numpy(), atol=1e-5)


def test_torch_export_runs_without_sgnray(exported, tiny_run, tmp_path):
    clips = torch.randn(40, 8, 25, 3, generator=torch.Generator().manual_seed(0))
    torch.save(clips, tmp_path / "clips.pt")
    shutil.copy(exported["torch"].path, tmp_path / "sgn.pt2")
    program = (
        "import sys, torch\n"
        "module = torch.export.load('sgn.pt2').module()\n"
        "torch.save(module(torch.load('clips.pt')).detach(), 'logits.pt')\n"
        "assert not any(name.startswith('sgnray') for name in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    with torch.no_grad():
        expected = load_trained_model(tiny_run).model(clips)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected)


def test_the_file_describes_itself(exported, tiny_dataset, tiny_run):
    proto = onnx.load(exported["onnx"].path)
    (own,) = [item.value for item in proto.metadata_props if item.key == "sgnray"]
    content = json.loads(own)
    assert content["class_names"] == list(tiny_dataset.info.class_names)
    assert content["skeleton"]["joints"] == list(tiny_dataset.skeleton.joints)
    assert (content["num_frames"], content["num_views"], content["windows"]) == (8, 2, "paper")
    assert (content["dataset"], content["case"], content["selection"]) == ("synth", "cv", "last")
    assert ModelCard.from_json(own) == load_trained_model(tiny_run).card
    assert content["format_version"] == 2  # its views turn, which an older sgnray would not do
    straight = json.loads(load_trained_model(tiny_run).card.replacing(turn_rad=0.0).to_json())
    assert (straight["format_version"], "y axis" in straight["sampling"]) == (1, False)
    (opset,) = [item.version for item in proto.opset_import if item.domain == ""]
    assert opset == 18


def test_onnx_does_not_contain_paths_of_this_machine(exported):
    content = exported["onnx"].path.read_bytes()
    for module in (sgnray, torch):
        assert str(Path(module.__file__).parent).encode() not in content


@pytest.mark.parametrize("to", WITH_WEIGHTS)
def test_weights_can_be_used_like_a_checkpoint(exported, tiny_run, tiny_raw, tiny_folder, to):
    path = exported[to].path
    one = list(predict_clips(tiny_raw, path))
    assert one == list(predict_clips(tiny_raw, tiny_run))
    report = evaluate_run(path, dataset_dir=tiny_folder)
    trained = evaluate_run(tiny_run)
    assert (report.top1, report.loss) == (trained.top1, trained.loss)
    assert report.details.num_seen == 0
    assert path.stat().st_mode & 0o044 == exported["onnx"].path.stat().st_mode & 0o044


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ["a"]}, "size mismatch"),
        ({"format_version": 99}, "format version 99"),
        ({"windows": "odd"}, "windows is missing or has the wrong type"),
        ({"model": {"affinity": "magic"}}, "affinity"),
        ({"num_frames": -1}, "num_frames is missing"),
        ({"skeleton": {}}, "is not a description with"),
        ({"skeleton": None}, "skeleton is missing"),
        ({"selection": "banana"}, "selection is missing or has the wrong type"),
        ({"format_version": True}, "not a description of a model"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(exported, tmp_path, change, message):
    path = exported["safetensors"].path
    content = json.loads(load_trained_model(path).card.to_json()) | change
    save_file(load_file(path), tmp_path / "bad.safetensors", {"sgnray": json.dumps(content)})
    with pytest.raises(CheckpointError, match=message):
        load_trained_model(tmp_path / "bad.safetensors")


@pytest.mark.parametrize("to", LOADABLE)
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_a_corrupt_file_is_refused(exported, tmp_path, to, damage):
    path = tmp_path / f"bad{FORMATS[to]}"
    whole = exported[to].path.read_bytes()
    path.write_bytes({"cut": whole[:-50], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(CheckpointError, match="the file cannot be used"):
        load_trained_model(path)


def test_a_safetensors_file_of_another_program_is_refused(tmp_path):
    path = tmp_path / "bad.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="the file cannot be used"):
        load_trained_model(path)


@pytest.mark.parametrize("to", LOADABLE)
def test_a_file_of_an_earlier_epoch_says_so(tiny_run, tmp_path, caplog, to):
    earlier = tiny_run / "checkpoints" / "epoch-0003" / "checkpoint.pt"
    path = export_model(earlier, to=to, out=tmp_path / f"early.{to}").path
    caplog.clear()
    load_trained_model(path)
    assert caplog.messages == [f"{path}: trained for 3 of 4 epochs"]
    caplog.clear()
    through_onnx(load_trained_model(earlier))
    said = [message for message in caplog.messages if "trained for" in message]
    assert said == [f"{earlier}: trained for 3 of 4 epochs"]


@pytest.mark.parametrize("to", LOADABLE)
def test_the_table_says_which_files_have_weights(exported, tmp_path, to):
    path = shutil.copy(exported[to].path, tmp_path / f"sgn{FORMATS[to]}")
    has_weights = isinstance(load_trained_model(path).model, SGN)
    assert has_weights == MODEL_FORMATS[to].has_weights


def test_an_opset_that_the_runtime_lacks(exported, tmp_path):
    proto = onnx.load(exported["onnx"].path)
    proto.opset_import[0].version = 999
    onnx.save(proto, tmp_path / "new.onnx")
    with pytest.raises(UsageError, match=r"onnxruntime \S+ does not run opset 999"):
        open_onnx(tmp_path / "new.onnx", opset=999)


def test_a_file_that_the_runtime_cannot_load(exported, tmp_path):
    """Below the default opset there is none to choose."""
    (tmp_path / "cut.onnx").write_bytes(exported["onnx"].path.read_bytes()[:-100])
    with pytest.raises(SgnError, match="onnxruntime cannot load the file") as caught:
        open_onnx(tmp_path / "cut.onnx", opset=18)
    assert "opset" not in caught.value.now
    with pytest.raises(UsageError, match=r"does not run opset 19"):
        open_onnx(tmp_path / "cut.onnx", opset=19)


def test_eight_bits(exported, tiny_run, tmp_path):
    found = export_model(tiny_run, out=tmp_path / "a.onnx", int8=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
    clips = torch.randn(6, 8, 25, 3, generator=torch.Generator().manual_seed(0))
    rounded, exact = (
        open_onnx(path, opset=18)(clips) for path in (found.path, exported["onnx"].path)
    )
    assert 0 < float((rounded - exact).abs().max()) < 0.2
    assert found.agreement >= 0.9
    assert ModelCard.from_json(_card_json(found.path)) == ModelCard.from_json(
        _card_json(exported["onnx"].path)
    )
    trained_model, real = load_trained_model(tiny_run), CheckClips(clips, "some clips")
    with pytest.raises(SgnError, match=r"in 8 bits \d"):
        agree(trained_model, lambda x: -trained_model.model(x), real, tmp_path)
    with pytest.raises(UsageError, match="only be measured on real clips"):
        agree(trained_model, trained_model.model, CheckClips(clips, RANDOM), tmp_path)
    with pytest.raises(UsageError, match="--int8 is for ONNX only"):
        export_model(tiny_run, to="torch", int8=True)


def _card_json(path):
    return next(item.value for item in onnx.load(path).metadata_props if item.key == "sgnray")


def test_another_opset(tiny_run, tmp_path):
    found = export_model(tiny_run, out=tmp_path / "a.onnx", opset=20)
    assert onnx.load(found.path).opset_import[0].version == 20


def test_a_file_with_different_logits_is_refused(tiny_run, tmp_path):
    trained_model = load_trained_model(tiny_run)
    clips = CheckClips(torch.randn(4, 8, 25, 3), "nowhere")
    with pytest.raises(SgnError, match="the exported file differs from the model"):
        compare(trained_model, lambda x: trained_model.model(x) + 1e-3, clips, tmp_path / "x")
    with pytest.raises(SgnError, match="the exported file differs from the model"):
        compare(trained_model, lambda x: trained_model.model(x) * torch.nan, clips, tmp_path / "x")


def test_a_torch_export_file_is_not_accepted_as_a_checkpoint(exported, tmp_path):
    path = shutil.copy(exported["torch"].path, tmp_path / "sgn.pt2")
    with pytest.raises(UsageError, match=r"a torch\.export file cannot be used as a checkpoint"):
        load_trained_model(path)


def test_a_check_without_real_clips_warns(exported, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    found = export_model(
        exported["safetensors"].path, to="safetensors", out=tmp_path / "again.safetensors"
    )
    assert found.checked_on == "random poses"
    assert "checked on random poses" in caplog.text


def test_a_runtime_is_checked_without_advice_for_exports(exported, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    trained_model = load_trained_model(exported["safetensors"].path)
    assert through_onnx(trained_model).path == trained_model.path
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
    monkeypatch.setattr("sgnray.export.model.TOLERANCE", -1.0)
    with pytest.raises(SgnError, match=r"^onnxruntime's result differs from the model") as caught:
        through_onnx(trained_model)
    assert caught.value.where == f"{trained_model.path}, 200 clips of random poses"
    assert caught.value.now == "use --runtime torch, and please report this"


FILL = """
import resource, signal, sys
from sgnray.errors import OutputError
from sgnray.export import export_model

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    export_model(sys.argv[1], to=sys.argv[2], out=sys.argv[3])
except OutputError:
    sys.exit(7)
"""


@pytest.mark.parametrize("to", FORMATS)
def test_a_full_disk_is_reported(tiny_run, tmp_path, to):
    """A limit on the size of files makes writes fail, as on a full disk."""
    command = [sys.executable, "-c", FILL, str(tiny_run), to, str(tmp_path / "full")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 7, ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_files_are_overwritten_only_on_request(tiny_run, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_text("mine")
    with pytest.raises(UsageError, match="the file exists already"):
        export_model(tiny_run, to="safetensors", out=path)
    assert path.read_text() == "mine"
    export_model(tiny_run, to="safetensors", out=path, overwrite=True)
    assert path.stat().st_size > 1000
    with pytest.raises(OutputError):
        export_model(tiny_run, to="safetensors", out=path / "inside.safetensors")


def test_the_example_needs_onnxruntime_and_numpy_alone(exported, tiny_run, tiny_raw):
    path = _one_body(tiny_raw)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(EXAMPLE), str(exported["onnx"].path), str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "sgnray", "pandas", "pyarrow"}
    trained_model = load_trained_model(tiny_run)
    (sample,) = find_source(path, trained_model.card.skeleton).read()
    draws = np.random.default_rng(0).random((2, 8))
    index = ((np.arange(8) + draws) * (len(sample.poses.bodies) // 8)).astype(int)
    clip = torch.from_numpy(sample.poses.values_PD[index].reshape(2, 8, 25, 3))
    clip[1] = clip[1] @ rotation_matrices(torch.tensor([[0.0, 0.5, 0.0]]))[0].T  # the second view
    with torch.no_grad():
        shares = trained_model.model(clip).mean(dim=0).softmax(dim=0).tolist()
    names = trained_model.card.class_names
    expected = sorted(zip(shares, names, strict=True), reverse=True)
    assert done.stdout.splitlines() == [f"{share:7.2%}  {name}" for share, name in expected]


def _one_body(folder):
    for path in sorted(folder.glob("*.skeleton")):
        lines = path.read_text().split("\n")
        if lines.count("25") == int(lines[0]):
            return path
    raise AssertionError("no recording has one body")


def test_one_clip_is_enough_to_check_with(tiny_run, tiny_raw, tmp_path):
    path = min(tiny_raw.glob("*.skeleton"))
    found = export_model(tiny_run, to="torch", out=tmp_path / "a.pt2", clips=path)
    again = export_model(tiny_run, to="torch", out=tmp_path / "b.pt2", clips=path.as_uri())
    assert again.num_clips == found.num_clips
    assert found.num_clips == 1
    module = torch.export.load(tmp_path / "a.pt2").module()
    assert module(torch.zeros(7, 8, 25, 3)).shape == (7, 3)


@pytest.mark.parametrize(
    ("name", "is_loaded"), [("a.v2", False), ("a.safetensors", True), ("a.SafeTensors", True)]
)
def test_a_file_is_loaded_by_its_suffix(tiny_run, tmp_path, caplog, name, is_loaded):
    found = export_model(tiny_run, to="safetensors", out=tmp_path / name)
    warning = "sgn loads the file only if its name ends with .safetensors"
    assert (warning in caplog.messages) != is_loaded
    if is_loaded:
        assert load_trained_model(found.path).card.class_names == found.card.class_names
    else:
        with pytest.raises(CheckpointError):
            load_trained_model(found.path)


def test_the_suffix_decides(tiny_run, tmp_path):
    assert export_model(tiny_run, out=tmp_path / "a.safetensors").opset is None
    with pytest.raises(
        UsageError, match="the file name implies safetensors, but onnx was requested"
    ):
        export_model(tiny_run, to="onnx", out=tmp_path / "b.safetensors")


def test_a_run_whose_dataset_is_gone_is_checked_with_another(
    tiny_run, tiny_folder, tmp_path, monkeypatch
):
    run = tmp_path / "runs" / "moved"
    shutil.copytree(tiny_run, run)
    environment = json.loads((run / "environment.json").read_text())
    (tmp_path / "gone").mkdir()
    environment["dataset_dir"] = str(tmp_path / "gone")
    (run / "environment.json").write_text(json.dumps(environment))
    shutil.copytree(tiny_folder, tmp_path / "data" / "synth")
    monkeypatch.chdir(tmp_path)
    assert export_model(run, to="safetensors").checked_on == "data/synth"
    assert evaluate_run(run).details.dataset_dir == "data/synth"


def test_an_onnx_file_predicts_as_the_run_does(exported, tiny_run, tiny_raw):
    expected = list(predict_clips(tiny_raw, tiny_run))
    found = list(predict_clips(tiny_raw, exported["onnx"].path))
    for item, other in zip(found, expected, strict=True):
        assert (item.clip, item.place) == (other.clip, other.place)
        assert [each.label for each in item.guesses] == [each.label for each in other.guesses]
        shares = [each.probability for each in other.guesses]
        assert [each.probability for each in item.guesses] == pytest.approx(shares, abs=1e-5)


def test_an_onnx_file_without_onnxruntime(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="needs the package onnxruntime") as caught:
        load_trained_model(exported["onnx"].path)
    assert caught.value.now == "pip install 'sgnray[export]'"


def test_an_onnx_model_can_be_pickled(exported):
    model = load_trained_model(exported["onnx"].path)
    walk = np.random.default_rng(0).normal(size=(30, 25, 3))
    guesses = model.predict(walk)  # opens a session, which cannot be pickled
    assert pickle.loads(pickle.dumps(model)).predict(walk) == guesses


def test_unsupported_uses_of_an_onnx_file_are_refused(exported, tiny_raw, tiny_folder, tmp_path):
    path = exported["onnx"].path
    for use in (
        lambda: evaluate_run(path, dataset_dir=tiny_folder),
        lambda: export_model(path, out=tmp_path / "again.onnx"),
        lambda: predict_clips(tiny_raw, path, precision="bf16"),
    ):
        with pytest.raises(UsageError, match="an ONNX file"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_onnx_files_that_are_not_ours(exported, tmp_path):
    path = tmp_path / "sgn.onnx"
    path.write_bytes(exported["onnx"].path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="the file cannot be used"):
        load_trained_model(path)
    foreign = onnx.load(exported["onnx"].path)
    del foreign.metadata_props[:]
    onnx.save(foreign, path)
    with pytest.raises(CheckpointError, match="does not describe a model of sgnray"):
        load_trained_model(path)
    foreign = onnx.load(exported["onnx"].path)
    (entry,) = [item for item in foreign.metadata_props if item.key == "sgnray"]
    entry.value = json.dumps({**json.loads(entry.value), "num_frames": 9})
    onnx.save(foreign, path)
    with pytest.raises(CheckpointError, match="the file cannot be used"):
        load_trained_model(path)
