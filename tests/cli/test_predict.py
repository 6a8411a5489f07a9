"""`sgn predict`: what it shows, what it refuses, and its exit codes."""

import itertools
import json
import shutil

import pytest


@pytest.fixture
def recordings(tiny_raw, tmp_path):
    """Two recordings, alone in a folder."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for path in sorted(tiny_raw.glob("*.skeleton"))[:2]:
        shutil.copy(path, folder)
    return sorted(folder.iterdir())


def test_one_recording(sgn, recordings, tiny_run):
    done = sgn("predict", str(recordings[0]), "--checkpoint", str(tiny_run))
    assert done.code == 0, done.err
    head, _, *rows = done.out.splitlines()
    assert head.split() == [recordings[0].name, "probability"]
    assert len(rows) == 3
    shares = [float(row.split("%")[0].split()[-1]) for row in rows]
    assert sum(shares) == pytest.approx(100, abs=0.3)


def test_the_newest_run_is_taken(sgn, recordings, tiny_run):
    named = sgn("predict", str(recordings[0]), "--checkpoint", str(tiny_run))
    newest = sgn("predict", str(recordings[0]), "--runs", str(tiny_run.parent))
    assert newest.out == named.out
    assert (named.err, newest.err) == ("", f"using {tiny_run}\n")


def test_a_run_among_the_recordings_belongs_to_an_option(sgn, tiny_run):
    done = sgn("predict", str(tiny_run), "--checkpoint", str(tiny_run))
    assert done.code == 2
    assert "error: this is the folder of a run\n" in done.err
    assert "--checkpoint" in done.err


def test_many_recordings_are_a_line_each(sgn, tiny_raw, tiny_run):
    done = sgn("predict", str(tiny_raw), "--checkpoint", str(tiny_run), "--top", "2")
    lines = done.out.splitlines()
    assert (done.code, len(lines)) == (0, 27)
    assert all(line.count("%") == 2 and ".skeleton: " in line for line in lines)


def test_clips_of_the_same_name_are_titled_by_their_place(sgn, recordings, tiny_run, tmp_path):
    for action in ("wave", "clap"):
        (tmp_path / "tree" / action).mkdir(parents=True)
        shutil.copy(recordings[0], tmp_path / "tree" / action)
    done = sgn("predict", str(tmp_path / "tree"), "--checkpoint", str(tiny_run), "--window", "12")
    assert done.code == 0, done.err
    flat = done.out.replace("\n", "").replace(" ", "")  # a long path is folded
    for action in ("wave", "clap"):
        assert f"{action}/{recordings[0].name}" in flat


def test_a_zip_next_to_recordings_is_left_out(sgn, recordings, tiny_run, tmp_path):
    folder = recordings[0].parent
    shutil.move(shutil.make_archive(tmp_path / "backup", "zip", folder), folder)
    done = sgn("predict", str(folder), "--checkpoint", str(tiny_run))
    assert done.code == 0, done.err
    assert all(path.name in done.out for path in recordings)
    assert "backup.zip is left out: a .zip next to recordings is not opened" in done.err


def test_a_table_in_a_file_has_no_trailing_blanks(sgn, recordings, tiny_run):
    done = sgn("predict", str(recordings[0]), "--checkpoint", str(tiny_run))
    assert all(line == line.rstrip() for line in done.out.splitlines())


def test_onnxruntime_computes_the_same(sgn, recordings, tiny_run):
    arguments = ("predict", str(recordings[0]), "--checkpoint", str(tiny_run))
    done = sgn(*arguments, "--runtime", "onnx")
    assert done.code == 0, done.err
    assert done.out == sgn(*arguments).out


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("--checkpoint s3://b/sgn.onnx --runtime torch", "an ONNX file runs only in onnxruntime"),
        ("--runtime onnx --precision bf16", "onnxruntime computes in float32"),
    ],
)
def test_a_runtime_that_cannot_be_is_refused_before_any_work(sgn, words, what):
    done = sgn("predict", "missing", *words.split())
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {what}\n  where  --runtime ")


def test_many_recordings_are_recognized_by_onnxruntime(sgn, recordings, tiny_run, monkeypatch):
    checkpoint = ("--checkpoint", str(tiny_run))
    arguments = ("predict", *map(str, recordings), *checkpoint, "--device", "cpu", "--views", "3")
    monkeypatch.setattr("sgnray.cli.predict._MANY_VIEWS", 3 * len(recordings) + 1)
    few = sgn(*arguments)
    assert (few.code, few.err) == (0, "")
    monkeypatch.setattr("sgnray.cli.predict._MANY_VIEWS", 3 * len(recordings))
    many = sgn(*arguments)
    assert (many.code, many.out) == (0, few.out)
    assert many.err == "running the model with onnxruntime\n"
    for options in (("--runtime", "torch"), ("--precision", "bf16")):
        assert "onnxruntime" not in sgn(*arguments, *options).err


def test_json(sgn, recordings, tiny_run):
    arguments = ("predict", str(recordings[0].parent), "--checkpoint", str(tiny_run), "--json")
    content = json.loads(sgn(*arguments).out)
    assert content["format_version"] == 1
    assert content["skipped"] == []
    first = content["predictions"][0]
    assert first["clip"] == recordings[0].name
    assert sum(guess["probability"] for guess in first["guesses"]) == pytest.approx(1)
    assert set(first["guesses"][0]) == {"label", "name", "probability"}


def test_a_timeline(sgn, recordings, tiny_run):
    arguments = ("predict", str(recordings[0]), "--checkpoint", str(tiny_run), "--window", "12")
    done = sgn(*arguments)
    assert done.code == 0
    head, rows = done.out.split("─\n")
    rows = rows.splitlines()
    assert "seconds" in head
    assert rows[0].startswith("0.0 to ")
    again = sgn(*arguments, "--json")
    assert (again.code, again.err) == (0, "")
    windows = json.loads(again.out)["predictions"]
    actions = [window["guesses"][0]["name"] for window in windows]
    changes = sum(one != other for one, other in itertools.pairwise(actions))
    assert len(rows) == changes + 1


def test_usable_recordings_are_shown_and_the_others_are_an_error(sgn, recordings, tiny_run):
    text = recordings[0].read_text().split("\n")
    text[4] = "nan " + text[4].partition(" ")[2]
    (recordings[0].parent / "broken.skeleton").write_text("\n".join(text))
    done = sgn("predict", str(recordings[0].parent), "--checkpoint", str(tiny_run))
    assert done.code == 1
    assert recordings[1].name in done.out
    assert done.err == (
        "error: 1 of 3 recordings could not be used\n"
        "  broken.skeleton  line 5: the coordinate 'nan' is not a number\n"
        "  where  broken.skeleton\n"
        "  now    correct or replace it, or leave it out; the others are done\n"
    )


def test_predictions_in_a_file(sgn, recordings, tiny_run):
    folder = recordings[0].parent
    (folder / "broken.skeleton").write_text("x")
    arguments = ("predict", str(folder), "--checkpoint", str(tiny_run), "--out", "p.jsonl")
    done = sgn(*arguments)
    assert (done.code, done.out) == (0, "2 predictions of 3 recordings: p.jsonl\n")
    assert done.err == "warning: 1 of 3 recordings could not be used; see p.jsonl\n"
    with open("p.jsonl") as file:
        rows = [json.loads(line) for line in file]
    assert [row["clip"] for row in rows] == [*(path.name for path in recordings), "broken.skeleton"]
    again = sgn(*arguments)
    assert (again.code, again.out) == (2, "")
    assert again.err.startswith("error: the file exists already\n")
    windows = sgn(*arguments, "--overwrite", "--window", "20")
    assert windows.err.endswith("1 of 3 recordings could not be used throughout; see p.jsonl\n")
    done = sgn(*arguments, "--overwrite", "--json", "-q")
    assert done.err == ""
    assert json.loads(done.out)["num_predictions"] == 2


def test_an_output_file_of_skipped_recordings_only(sgn, tiny_run, tmp_path):
    (tmp_path / "broken.skeleton").write_text("x")
    done = sgn("predict", "broken.skeleton", "--checkpoint", str(tiny_run), "--out", "p.jsonl")
    assert done.code == 1
    assert done.err.startswith("error: none of the recordings could be used\n")
    assert (tmp_path / "p.jsonl").read_text().count('"reason": ') == 1


def test_an_unsupported_output_format_is_refused_first(sgn, tiny_run):
    done = sgn("predict", "gone.skeleton", "--checkpoint", str(tiny_run), "--out", "p.csv")
    assert (done.code, done.out) == (2, "")
    assert "p.csv" in done.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n\nb\n", "the list of classes has an empty line"),
        (b"a\nb\na\n", "the list of classes repeats line 1"),
        (b"\xff\xfe", "the list of classes is not UTF-8 text"),
        (None, "the list of classes cannot be read"),
    ],
)
def test_an_invalid_list_of_classes_is_refused(
    sgn, recordings, tiny_run, tmp_path, content, message
):
    path = tmp_path / "classes.txt"
    if content is not None:
        path.write_bytes(content)
    done = sgn("predict", str(recordings[0]), "--checkpoint", str(tiny_run), "--classes", str(path))
    assert done.code == 2
    assert done.err.startswith(f"error: {message}")
    assert str(path) in done.err
    assert done.out == ""


def test_too_few_classes(sgn, recordings, tiny_run, tmp_path):
    (tmp_path / "classes.txt").write_text("a\nb\n")
    arguments = ("--checkpoint", str(tiny_run), "--classes", "classes.txt")
    done = sgn("predict", str(recordings[0]), *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: there are 2 class names for 3 classes\n")


def test_a_corrupted_checkpoint(sgn, recordings, tiny_run, tmp_path):
    whole = (tiny_run / "checkpoints" / "epoch-0004" / "checkpoint.pt").read_bytes()
    for content in (whole[:3000], whole[:2000] + b"\0" * 500 + whole[2500:], b"", b"PK\x03\x04"):
        (tmp_path / "bad.pt").write_bytes(content)
        done = sgn("predict", str(recordings[0]), "--checkpoint", str(tmp_path / "bad.pt"))
        assert done.code == 1
        assert done.err.startswith("error: the checkpoint cannot be used: it is corrupt")


def test_without_any_run(sgn, recordings):
    done = sgn("predict", str(recordings[0]))
    assert done.code == 2
    assert done.err.startswith("error: no run with a checkpoint found")


@pytest.mark.parametrize(("num_classes", "name"), [(60, "drink water"), (7, "class 1")])
def test_an_official_checkpoint_is_used_unchanged(
    sgn, recordings, tmp_path, save_like_the_reference, num_classes, name
):
    save_like_the_reference(tmp_path / "0_best.pth", num_classes=num_classes)
    arguments = ("--checkpoint", "0_best.pth", "--top", str(num_classes), "--json")
    done = sgn("predict", str(recordings[0]), *arguments)
    assert done.code == 0, done.err
    (prediction,) = json.loads(done.out)["predictions"]
    assert {guess["label"]: guess["name"] for guess in prediction["guesses"]}[0] == name
    assert len(prediction["guesses"]) == num_classes


def test_all_unusable_paths_are_listed_at_once(sgn, recordings, tiny_run, tmp_path):
    (tmp_path / "film.avi").write_bytes(b"")
    paths = (str(recordings[0]), "gone.skeleton", "film.avi")
    done = sgn("predict", *paths, "--checkpoint", str(tiny_run))
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "error: 2 of 3 paths contain nothing that can be recognized\n"
        "  gone.skeleton  file or folder not found\n"
        "  film.avi       this is a video, and sgnray reads skeletons: joint positions in "
        "each frame\n"
        "  where  gone.skeleton, and 1 other\n"
        "  now    give recordings, folders or .zip files of them, a table of clips, or the folder "
        "of a dataset\n"
    )


def test_skipped_recordings_with_one_name_are_told_apart(sgn, recordings, tiny_run, tmp_path):
    """By their paths, in the error and in --json."""
    for folder in ("clap", "wave"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
        (tmp_path / "raw" / folder / "c0.skeleton").write_text("1\nx\n")
    (tmp_path / "raw" / "alone.skeleton").write_text("1\nx\n")
    shutil.copy(recordings[0], tmp_path / "raw")
    done = sgn("predict", "raw", "--checkpoint", str(tiny_run), "--json")
    skipped = json.loads(done.out)["skipped"]
    places = ["raw/alone.skeleton", "raw/clap/c0.skeleton", "raw/wave/c0.skeleton"]
    assert [item["place"].removeprefix(f"{tmp_path}/") for item in skipped] == places
    assert [item["file"] for item in skipped] == ["alone.skeleton", "c0.skeleton", "c0.skeleton"]
    shown = [line.split()[0] for line in done.err.splitlines()[1:4]]
    assert [line.removeprefix(f"{tmp_path}/") for line in shown] == ["alone.skeleton", *places[1:]]
