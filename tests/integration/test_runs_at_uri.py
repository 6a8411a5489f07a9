"""Runs that are stored at a URI: a real S3 protocol over a real socket, which can be cut."""

import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from unittest import mock

import pytest

from sgnray.checkpoints.checkpoint import load_checkpoint
from sgnray.checkpoints.run_folder import RunFolder
from sgnray.checkpoints.trained_model import load_trained_model
from sgnray.cli.choices import choose_recipe
from sgnray.config import dump_recipe
from sgnray.distributed.cluster import connected
from sgnray.errors import InputError, OutputError, RunError, UsageError
from sgnray.evaluate import evaluate_run, place_of, write_evaluation
from sgnray.predict import predict_clips
from sgnray.storage import lease, mirror
from sgnray.storage.lease import LEASE_FILE
from sgnray.storage.location import Location, locate
from sgnray.storage.mirror import Mirror, display_name, fetched, mirrored
from sgnray.train import train_run, train_seeds
from sgnray.tune import train_final, tune_recipe
from sgnray.tune.trials import Record, Reported

from ..processes import free_port, wait_for


class Wire:
    """A port that forwards to another one, until the connection is cut."""

    def __init__(self, target):
        self._target = target
        self._lock = threading.Lock()
        self.port = free_port()
        self.join()

    def join(self):
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._open = {self._listener}
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self):
        with self._lock:  # a connection made at this moment is in the set, or is refused
            for end in self._open:
                self._end(end)
                end.close()
            self._open = set()

    @contextmanager
    def refused(self):
        """Close each new connection while it is cut; give the list of them."""
        attempts = []

        def refuse(listener):
            with suppress(OSError):
                while True:
                    end, address = listener.accept()
                    attempts.append(address)
                    end.close()

        with socket.create_server(("127.0.0.1", self.port)) as listener:
            threading.Thread(target=refuse, args=(listener,), daemon=True).start()
            yield attempts
            self._end(listener)

    def _accept(self, listener):
        with suppress(OSError):
            while True:
                ours = self._kept(listener.accept()[0], listener)
                theirs = self._kept(socket.create_connection(("127.0.0.1", self._target)), listener)
                for one, other in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _kept(self, end, listener):
        with self._lock:
            if listener in self._open:
                self._open.add(end)
                return end
        end.close()
        raise ConnectionAbortedError("cut meanwhile")

    @staticmethod
    def _end(socket_):
        with suppress(OSError):
            socket_.shutdown(socket.SHUT_RDWR)

    def _pass_on(self, one, other):
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        self._end(one)
        self._end(other)


@pytest.fixture
def wire(s3):
    port = int(re.search(r"127\.0\.0\.1:(\d+)", s3[0](""))[1])
    wire = Wire(port)
    yield wire
    wire.cut()


@pytest.fixture
def fast_uploads(tmp_path, monkeypatch):
    """Upload without long pauses, from an empty cache."""
    monkeypatch.setenv("SGNRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mirror, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(lease, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(lease, "_WRITE_RACE_S", 0.1)
    monkeypatch.setattr(mirror, "_PAUSES_S", (0.1, 0.5))
    monkeypatch.setattr(mirror, "_mirrors", {})


@pytest.fixture
def bucket(s3, wire, request, fast_uploads):
    """`(uri_of(name), file system, path)` of a folder for this test only, behind the wire."""
    uri_of, files = s3
    path = "bucket/" + re.sub(r"\W", "-", request.node.name)
    port = re.search(r"127\.0\.0\.1:(\d+)", uri_of(""))[1]
    return lambda name="": uri_of(f"{path}{name}").replace(port, str(wire.port)), files, path


@contextmanager
def another_machine(monkeypatch, folder):
    """Act as a process on another machine, with an empty cache."""
    with monkeypatch.context() as patch:
        patch.setenv("SGNRAY_CACHE", str(folder))
        patch.setattr(mirror, "_mirrors", {})
        patch.setattr(lease, "_machine", lambda: "another")
        yield


def names_in(files, path):
    from pyarrow import fs

    infos = files.get_file_info(fs.FileSelector(path, recursive=True))
    return sorted(info.path.removeprefix(f"{path}/") for info in infos if info.is_file)


def epochs_of(recipe, num_epochs):
    return recipe.replacing({"train.num_epochs": num_epochs})


RUN_FILES = [
    "run/checkpoints/epoch-0003/checkpoint.pt",
    "run/checkpoints/epoch-0004/checkpoint.pt",
    "run/curves.png",
    "run/environment.json",
    "run/log.txt",
    "run/metrics.jsonl",
    "run/recipe.yaml",
    "run/report.json",
]


def test_a_run_at_a_uri_equals_a_run_on_disk(bucket, tiny_recipe, tiny_folder, tiny_run, tiny_raw):
    uri_of, files, path = bucket
    result = train_run(tiny_recipe, tiny_folder, runs_dir=uri_of(), name="run", device="cpu")
    assert display_name(result.folder) == f"s3://{path}/run"
    assert names_in(files, path) == RUN_FILES
    local, remote = (
        load_checkpoint(RunFolder(folder).require_checkpoint()[0])
        for folder in (tiny_run, result.folder)
    )
    for name, weight in local.weights.items():
        assert weight.equal(remote.weights[name]), name

    for target in (None, "run", uri_of("/run"), uri_of(f"/{RUN_FILES[1]}")):
        assert load_trained_model(target, runs_dir=uri_of()).run.path == result.folder
    report = evaluate_run("run", runs_dir=uri_of(), dataset_dir=tiny_folder, device="cpu")
    assert report.evaluated.checkpoint == f"s3://{path}/{RUN_FILES[1]}"
    page = write_evaluation(report, place_of(report, uri_of()))
    assert display_name(page) == f"s3://{path}/run/report.html"
    assert "run/report.html" in names_in(files, path)
    again = train_run(tiny_recipe, tiny_folder, runs_dir=uri_of(), name="run", device="cpu")
    assert again.resumed_from == 4
    predicted = predict_clips(next(tiny_raw.glob("*.skeleton")), uri_of("/run"), device="cpu")
    assert next(iter(predicted)).guesses


def test_the_newest_run_may_be_that_of_a_search(bucket, tiny_recipe, tiny_folder):
    uri_of, _, path = bucket
    train_run(
        epochs_of(tiny_recipe, 1), tiny_folder, runs_dir=uri_of("/tune"), name="final", device="cpu"
    )
    newest = load_trained_model(runs_dir=uri_of()).run
    assert display_name(newest.path) == f"s3://{path}/tune/final"


def test_another_machine_resumes_a_run_and_then_the_first_one_does(
    bucket, tiny_recipe, tiny_folder, tiny_run, tmp_path, monkeypatch
):
    uri_of, files, path = bucket

    class Stop(Exception):
        pass

    def stop_after(num_epochs):
        def on_epoch(result):
            if result.epoch == num_epochs:
                raise Stop

        return on_epoch

    def train(**more):
        return train_run(
            tiny_recipe, tiny_folder, runs_dir=uri_of(), name="run", device="cpu", **more
        )

    with pytest.raises(Stop):
        train(on_epoch=stop_after(1))
    with another_machine(monkeypatch, tmp_path / "other"), pytest.raises(Stop):
        train(on_epoch=stop_after(3))
    assert "run/checkpoints/epoch-0003/checkpoint.pt" in names_in(files, path)
    result = train()
    assert result.resumed_from == 3
    assert names_in(files, path) == RUN_FILES
    undisturbed = RunFolder(tiny_run).require_checkpoint()[1].weights
    weights = RunFolder(result.folder).require_checkpoint()[1].weights
    assert all(weights[name].equal(weight) for name, weight in undisturbed.items())


@pytest.mark.parametrize("is_at_uri", [False, True])
def test_a_new_run_on_other_hardware_names_the_one_in_another_precision(
    bucket, tiny_recipe, tiny_folder, tmp_path, monkeypatch, caplog, is_at_uri
):
    runs_dir = bucket[0]() if is_at_uri else tmp_path
    recipe = tiny_recipe.replacing({"train.precision": "auto", "train.num_epochs": 1})
    folders = []
    for has_bf16 in (True, False, True):
        assert caplog.text.count("starting a new run in") == (len(folders) == 2)
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda has=has_bf16: {"avx512_bf16": has})
        folders += [train_run(recipe, tiny_folder, runs_dir=runs_dir, device="cpu").folder]
    assert folders[0] == folders[2] != folders[1]
    (said,) = (text for text in caplog.messages if "starting a new run in" in text)
    assert said.startswith("starting a new run in float32; ")
    assert f"{display_name(folders[0])}, which is in bf16, add train.precision=bf16" in said


def test_training_continues_while_the_server_is_unreachable(
    bucket, wire, tiny_recipe, tiny_folder, caplog
):
    uri_of, files, path = bucket

    on_epoch = stop_server_for_two_epochs(wire.cut, wire.join, caplog)
    with caplog.at_level(logging.INFO):
        train_run(
            tiny_recipe, tiny_folder, runs_dir=uri_of(), name="run", device="cpu", on_epoch=on_epoch
        )
    assert names_in(files, path) == RUN_FILES


def stop_server_for_two_epochs(leave, come_back, caplog):
    """Stop the server after epoch 1, wait until this is reported, and restart it after epoch 3."""

    def on_epoch(result):
        if result.epoch == 1:
            leave()
            wait_for_report(caplog)
        if result.epoch == 3:
            come_back()

    return on_epoch


def wait_for_report(caplog):
    wait_for(lambda: "trying again" in caplog.text, lambda: caplog.text)


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_has_all_files(
    persistent_s3, fast_uploads, tiny_recipe, tiny_folder, caplog
):
    """Unlike one that is cut off, it has lost the uploads that were in progress."""
    files = persistent_s3.create_bucket()

    on_epoch = stop_server_for_two_epochs(persistent_s3.kill, persistent_s3.start, caplog)
    with caplog.at_level(logging.INFO):
        done = train_run(
            tiny_recipe,
            tiny_folder,
            runs_dir=persistent_s3.uri_of("bucket"),
            name="run",
            device="cpu",
            on_epoch=on_epoch,
        )
    assert names_in(files, "bucket") == RUN_FILES
    for name in RUN_FILES:
        with files.open_input_stream(f"bucket/{name}") as stream:
            assert stream.read() == (done.folder.parent / name).read_bytes(), name


def test_the_next_command_uploads_what_a_lost_server_did_not_receive(
    bucket, wire, tiny_recipe, tiny_folder, monkeypatch
):
    uri_of, files, path = bucket
    monkeypatch.setattr(mirror, "_GIVE_UP_AFTER_S", 0.2)

    def train(on_epoch=None):
        return train_run(
            tiny_recipe, tiny_folder, runs_dir=uri_of(), name="run", device="cpu", on_epoch=on_epoch
        )

    def on_epoch(result):
        if result.epoch == 2:
            wire.cut()

    with pytest.raises(OutputError, match="could not be uploaded") as caught:
        train(on_epoch)
    kept = re.search(r"they are in (\S+);", caught.value.now)[1]
    assert RunFolder(Path(kept)).require_checkpoint()[1].epoch == 4
    assert "run/report.json" not in names_in(files, path)
    wire.join()
    files.delete_file(f"{path}/run/{LEASE_FILE}")  # it could not be released
    assert train().resumed_from == 4
    assert names_in(files, path) == RUN_FILES


def test_a_command_that_is_interrupted_while_it_locks_leaves_no_lease(bucket):
    uri_of, files, path = bucket
    busy = RunError("in use", where="here", now="wait")
    with (
        mock.patch("time.sleep", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
        mirrored(locate(uri_of("/run")), busy=busy),
    ):
        pass
    assert names_in(files, path) == []


def test_one_command_at_a_time(bucket, tmp_path, monkeypatch):
    uri_of, files, path = bucket
    place = locate(uri_of("/run"))
    busy = RunError("in use", where="here", now="wait")
    with mirrored(place, busy=busy):
        with pytest.raises(RunError, match="in use"), mirrored(place, busy=busy):
            pass
        with (
            another_machine(monkeypatch, tmp_path / "other"),
            pytest.raises(RunError, match="in use"),
            mirrored(place, busy=busy),
        ):
            pass
        theirs = json.loads(files.open_input_stream(f"{path}/run/{LEASE_FILE}").read())
    assert names_in(files, path) == []

    def leave(**changes):
        with files.open_output_stream(f"{path}/run/{LEASE_FILE}") as stream:
            stream.write(json.dumps(theirs | {"owner": "lost"} | changes).encode())

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for changes in ({"pid": ended.pid}, {"machine": "other", "renewed": time.time() - 100}):
        leave(**changes)
        with mirrored(place, busy=busy):
            pass
    newer = {"format_version": 2, "renewed": "yesterday"}
    for changes, message in (({"machine": "other"}, "in use"), (newer, "another version")):
        leave(pid=ended.pid, **changes)
        with pytest.raises(RunError, match=message), mirrored(place, busy=busy):
            pass


@pytest.mark.parametrize("is_lost", [True, False])
def test_an_owner_that_does_not_respond_is_waited_for(bucket, monkeypatch, caplog, is_lost):
    """On a lost machine, it holds the run until its lease ends; a busy one responds again."""
    uri_of, files, path = bucket
    place, now, sleep = locate(uri_of("/run")), time.time(), time.sleep
    theirs = {"format_version": 1, "owner": "other", "host": "gpu7", "machine": "other", "pid": 1}

    def leave(renewed):
        with files.open_output_stream(f"{path}/run/{LEASE_FILE}") as stream:
            stream.write(json.dumps(theirs | {"renewed": renewed}).encode())

    def respond(seconds):
        if not is_lost and "waiting until" in caplog.text:
            leave(now)
        sleep(min(seconds, 0.2))

    leave(now - 50)
    monkeypatch.setattr(lease, "_LEASE_S", 52.0)
    monkeypatch.setattr(time, "sleep", respond)
    busy = RunError("in use", where="here", now="wait")
    refused = pytest.raises(RunError, match=r"in use: on gpu7, \d+ s ago")
    with nullcontext() if is_lost else refused, mirrored(place, busy=busy):
        pass
    assert caplog.text.count("its owner on gpu7 has not responded for 5") == 1
    assert names_in(files, path) == ([] if is_lost else [f"run/{LEASE_FILE}"])


def test_a_local_file_that_cannot_be_read_does_not_end_the_uploads(bucket, monkeypatch, caplog):
    uri_of, files, path = bucket
    busy, failures = RunError("in use", where="here", now="wait"), [OSError(5, "I/O error")] * 2
    read = Path.read_bytes

    def fail(file):
        if file.name == "bad" and failures:
            raise failures.pop()
        return read(file)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with caplog.at_level("INFO"), mirrored(locate(uri_of("/run")), busy=busy) as copy:
        (copy / "bad").write_text("b", encoding="utf-8")
        wait_for(lambda: "everything is uploaded now" in caplog.text, lambda: caplog.text)
        assert "run/bad" in names_in(files, path)
    assert caplog.text.count("cannot be read: I/O error; trying again") == 1


def test_a_recipe_at_a_uri(bucket, tiny_recipe):
    """Such as the best.yaml that a search at a URI names."""
    uri_of, files, path = bucket
    with files.open_output_stream(f"{path}/search/best.yaml") as stream:
        stream.write(dump_recipe(tiny_recipe).encode())
    settings = {"data": None, "default_case": "first"}
    assert choose_recipe(None, uri_of("/search/best.yaml"), **settings) == tiny_recipe
    with pytest.raises(UsageError, match="recipe not found"):
        choose_recipe(None, uri_of("/search/absent.yaml"), **settings)


def test_files_of_others_are_neither_fetched_nor_removed(bucket):
    uri_of, files, path = bucket
    theirs = ["run/.keep", "run/final-trial-1/.lease", "run/half.partial"]
    for name in theirs:
        with files.open_output_stream(f"{path}/{name}") as stream:
            stream.write(b"theirs")
    busy = RunError("in use", where="here", now="wait")
    with mirrored(locate(uri_of("/run")), busy=busy) as copy:
        assert list(copy.iterdir()) == []
        (copy / "mine").write_text("mine", encoding="utf-8")
    assert names_in(files, path) == sorted([*theirs, "run/mine"])


def test_a_reader_waits_for_another_one_on_this_machine(bucket):
    uri_of, files, path = bucket
    with files.open_output_stream(f"{path}/run/report.json") as stream:
        stream.write(b"whole")
    place, found = locate(uri_of("/run")), []
    reader = threading.Thread(target=lambda: found.append(fetched(place)))
    with Mirror.of(place).fetching():
        reader.start()
        reader.join(1.0)
        assert reader.is_alive()
    reader.join(300)
    assert (found[0] / "report.json").read_bytes() == b"whole"


def test_deleting_the_local_copy_removes_nothing_from_the_bucket(
    bucket, tiny_recipe, tiny_folder, tmp_path
):
    uri_of, files, path = bucket

    def train():
        return train_run(tiny_recipe, tiny_folder, runs_dir=uri_of(), name="run", device="cpu")

    def clean_up(*names):
        (copy,) = (tmp_path / "cache/runs").glob("*/run")
        for name in names:
            (copy / name).unlink()
        if not names:
            shutil.rmtree(copy)

    train()
    for names in ((), ("recipe.yaml", "metrics.jsonl")):
        clean_up(*names)
        assert train().resumed_from == 4
        assert names_in(files, path) == RUN_FILES
    clean_up()
    Mirror.of(locate(uri_of("/run"))).push()
    assert names_in(files, path) == RUN_FILES


def test_an_incomplete_upload_is_not_mistaken_for_another_machines(bucket, monkeypatch, tmp_path):
    uri_of, files, path = bucket
    place, busy = locate(uri_of("/run")), RunError("in use", where="here", now="wait")
    monkeypatch.setattr(mirror, "_GIVE_UP_AFTER_S", 0.0)
    put = Location.put

    def put_all_but_b(place, content):
        if place.path.endswith("/b"):
            raise OutputError("no", where=str(place), now="wait")
        put(place, content)

    monkeypatch.setattr(Location, "put", put_all_but_b)

    def write():
        with mirrored(place, busy=busy) as copy:
            (copy / "a").write_text("old")
            (copy / "b").write_text("b")

    with pytest.raises(OutputError):
        write()
    (copy,) = (tmp_path / "cache/runs").glob("*/run")
    (copy / "a").write_text("newer, not uploaded yet")
    monkeypatch.setattr(Location, "put", put)
    monkeypatch.setattr(mirror, "_mirrors", {})  # as another process
    with mirrored(place, busy=busy):
        pass
    assert (copy / "a").read_text() == "newer, not uploaded yet"
    with files.open_input_stream(f"{path}/run/a") as stream:
        assert stream.read() == b"newer, not uploaded yet"


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ('{"format_version": 2, "files": {}}', "by another version of sgnray"),
        ('{"format_version": 1, "files": []}', "is corrupt"),
        ("", "is corrupt"),
    ],
)
def test_files_are_not_replaced_where_the_record_of_uploads_is_of_no_use(
    bucket, monkeypatch, table, what
):
    place, busy = locate(bucket[0]("/run")), RunError("in use", where="here", now="wait")
    with mirrored(place, busy=busy) as copy:
        (copy / "a").write_text("old", encoding="utf-8")
    (copy / "a").write_text("newer, not uploaded yet", encoding="utf-8")
    (copy.parent / "mirror.json").write_text(table, encoding="utf-8")
    monkeypatch.setattr(mirror, "_mirrors", {})  # as another process
    for use in (lambda: mirrored(place, busy=busy).__enter__(), lambda: fetched(place)):
        with pytest.raises(RunError, match=what) as caught:
            use()
        assert f"move {copy.parent} away" in caught.value.now
    assert (copy / "a").read_text() == "newer, not uploaded yet"
    copy.parent.rename(copy.parent.with_name("away"))
    assert (fetched(place) / "a").read_text() == "old"


def test_one_file_is_fetched_only_if_it_has_changed_at_the_uri(bucket, monkeypatch):
    """Otherwise it would replace a newer local file that is not uploaded yet."""
    uri_of, files, path = bucket
    place, busy = locate(uri_of("/run")), RunError("in use", where="here", now="wait")
    best = locate(uri_of("/run/best.yaml"))
    with mirrored(place, busy=busy) as copy:
        (copy / "best.yaml").write_text("old", encoding="utf-8")
    monkeypatch.setattr(mirror, "_LOOK_EVERY_S", 60.0)
    with mirrored(place, busy=busy):
        (copy / "best.yaml").write_text("newer", encoding="utf-8")
        assert fetched(best).read_text() == "newer"
    with files.open_output_stream(f"{path}/run/best.yaml") as stream:
        stream.write(b"of another machine")
    assert fetched(best).read_text() == "of another machine"


def test_files_that_another_process_has_not_uploaded_are_not_replaced(bucket, monkeypatch):
    uri_of, _, _ = bucket
    place, busy = locate(uri_of("/run")), RunError("in use", where="here", now="wait")
    copy = fetched(place)
    with monkeypatch.context() as other_process:
        other_process.setattr(mirror, "_mirrors", {})
        with mirrored(place, busy=busy):
            (copy / "a").write_text("old", encoding="utf-8")
        (copy / "a").write_text("newer, not uploaded yet", encoding="utf-8")
    assert (fetched(place) / "a").read_text() == "newer, not uploaded yet"


def test_a_report_is_uploaded_alone(bucket):
    """What a killed run did not upload may not fit a run that another machine has resumed."""
    uri_of, files, path = bucket
    copy = fetched(locate(uri_of("/run")))
    for name in ("checkpoint.pt", "report.json"):
        (copy / name).write_text("of this machine", encoding="utf-8")
    mirror.upload(copy / "report.json")
    assert names_in(files, path) == ["run/report.json"]


def test_a_run_in_use_is_refused_before_ray_starts(bucket, tiny_folder, monkeypatch, sgn):
    uri_of, files, path = bucket
    busy = RunError("in use", where="here", now="wait")
    with mirrored(locate(uri_of("/run")), busy=busy):
        before = names_in(files, path)
        monkeypatch.setattr(mirror, "_mirrors", {})  # as another machine
        monkeypatch.setattr(lease, "_machine", lambda: "another machine")
        for command in ("train", "tune"):
            words = (command, "--case", "cv", "--data", str(tiny_folder), "--name", "run")
            done = sgn(*words, "--workers" if command == "train" else "--trials", "2",
                       "--runs", uri_of())  # fmt: skip
            assert (done.code, done.out) == (1, "")
            assert "error: another command is using this folder: on " in done.err
            assert "starting Ray" not in done.err
        assert names_in(files, path) == before


def test_a_trials_state_is_not_removed_before_the_next_one_is_uploaded(bucket, monkeypatch):
    uri_of, files, path = bucket
    copy = fetched(locate(uri_of("/run")))
    old, partial, new = (copy / "states" / name for name in ("0001", "0002.partial", "0002"))
    old.mkdir(parents=True)
    (old / "0.pt").write_bytes(b"old")
    pushed = Mirror.of(locate(uri_of("/run")))
    pushed.push()
    partial.mkdir()
    (partial / "0.pt").write_bytes(b"new")
    walk = os.walk

    def replaced_during_the_walk(folder):
        found = list(walk(folder))
        if partial.exists():
            partial.rename(new)
            shutil.rmtree(old)
        yield from found

    monkeypatch.setattr(os, "walk", replaced_during_the_walk)
    pushed.push()
    assert names_in(files, path) == ["run/states/0001/0.pt"]
    pushed.push()
    assert names_in(files, path) == ["run/states/0002/0.pt"]


def test_nothing_is_written_while_nothing_changes(bucket):
    uri_of, files, path = bucket
    place = locate(uri_of("/run"))
    copy, pushed = fetched(place), Mirror.of(place)
    (copy / "kept").write_text("kept", encoding="utf-8")
    pushed.push()
    assert names_in(files, path) == ["run/kept"]
    os.utime(copy.parent / "mirror.json", ns=(0, 0))
    pushed.push()
    assert (copy.parent / "mirror.json").stat().st_mtime_ns == 0


@pytest.mark.parametrize("is_given_back", [False, True])
def test_a_run_that_was_taken_over_writes_nothing_more(bucket, monkeypatch, is_given_back):
    """Even if the other command has ended meanwhile, for example while this machine slept."""
    uri_of, files, path = bucket
    busy = RunError("in use", where="here", now="wait")

    def lose_it():
        with mirrored(locate(uri_of("/run")), busy=busy) as copy:
            with files.open_output_stream(f"{path}/run/{LEASE_FILE}") as stream:
                stream.write(json.dumps({"owner": "other"}).encode())
            if is_given_back:
                files.delete_file(f"{path}/run/{LEASE_FILE}")
            now = time.time() + 100
            monkeypatch.setattr(time, "time", lambda: now)
            (copy / "late").write_text("late", encoding="utf-8")

    with pytest.raises(RunError, match="taken over"):
        lose_it()
    assert names_in(files, path) == ([] if is_given_back else [f"run/{LEASE_FILE}"])


def test_training_ends_soon_after_its_run_is_taken_over(bucket, tiny_recipe, tiny_folder, caplog):
    uri_of, files, path = bucket
    epochs = []

    def lose_it(result):
        epochs.append(result.epoch)
        with files.open_output_stream(f"{path}/run/{LEASE_FILE}") as stream:
            stream.write(json.dumps({"owner": "other"}).encode())
        now = time.time() + 100
        with mock.patch.object(time, "time", return_value=now):
            wait_for(lambda: "nothing more is uploaded" in caplog.text, lambda: caplog.text)

    with pytest.raises(RunError, match="taken over"):
        train_run(
            tiny_recipe, tiny_folder, runs_dir=uri_of(), name="run", device="cpu", on_epoch=lose_it
        )
    assert epochs == [1]


def test_unusable_uris_are_refused(bucket, wire, tiny_recipe, tiny_folder):
    uri_of, _, path = bucket
    absent = uri_of().replace(path, "no-such-bucket/runs")
    for uri, kind in (
        (absent, OutputError),
        ("s3://", UsageError),
        ("s3:///runs", UsageError),
        ("nfs://host/runs", UsageError),
    ):
        with pytest.raises(kind) as caught:
            train_run(tiny_recipe, tiny_folder, runs_dir=uri, name="run", device="cpu")
        assert caught.value.now
    with pytest.raises(UsageError, match="not found"):
        load_trained_model(uri_of("/absent"))
    with pytest.raises(UsageError, match="no run with a checkpoint"):
        load_trained_model(runs_dir=uri_of())
    wire.cut()
    with wire.refused() as attempts, pytest.raises(InputError, match="does not respond"):
        train_run(tiny_recipe, tiny_folder, runs_dir=uri_of(), name="run", device="cpu")
    assert 0 < len(attempts) < 50  # pyarrow alone makes 30


def test_seeds_at_a_uri(bucket, s3, tiny_recipe, tiny_folder):
    _, files, path = bucket
    direct = s3[0](path)
    report = train_seeds(tiny_recipe, tiny_folder, num_seeds=2, runs_dir=direct, device="cpu")
    assert report.missing == {}
    assert report.path.startswith(f"s3://{path}/")
    assert [score.run.startswith(f"s3://{path}/") for score in report.scores] == [True, True]
    assert load_trained_model(report.scores[0].run).card.class_names  # its server is named, too
    names = names_in(files, path)
    assert sum(name.endswith("seeds2.json") for name in names) == 1
    output = []
    again = train_seeds(
        tiny_recipe,
        tiny_folder,
        num_seeds=2,
        runs_dir=direct,
        device="cpu",
        on_epoch=lambda *_: output.append(1),
    )
    assert again.scores == report.scores
    assert output == []


@pytest.mark.ray
@pytest.mark.slow
def test_workers_and_a_search_at_a_uri(bucket, tiny_recipe, tiny_folder, tmp_path):
    uri_of, files, path = bucket
    space = tmp_path / "space.yaml"
    space.write_text("optim.learning_rate: {choice: [1e-2, 1e-3]}\n", encoding="utf-8")
    settings = {"search": "grid", "num_epochs": 1, "runs_dir": uri_of(), "name": "search"}
    with connected(num_workers=2):
        train_run(tiny_recipe, tiny_folder, workers=2, runs_dir=uri_of(), name="run", device="cpu")
        tuned = tune_recipe(tiny_recipe, space, tiny_folder, **settings)
    assert names_in(files, path)[: len(RUN_FILES)] == RUN_FILES
    assert display_name(tuned.folder) == f"s3://{path}/search"
    finished = train_final(tuned, tiny_folder)
    assert (
        display_name(finished.folder) == f"s3://{path}/search/final-trial-{tuned.best.number:04d}"
    )
    names = {name for name in names_in(files, path) if name.startswith("search/")}
    expected = {"best.yaml", "search.json", "search.html", "record.jsonl", "final.json"}
    assert {f"search/{name}" for name in expected} <= names
    assert tune_recipe(tiny_recipe, space, tiny_folder, **settings).trials == tuned.trials


@pytest.mark.ray
@pytest.mark.slow
def test_another_machine_resumes_the_trials_of_a_search(
    bucket, tiny_recipe, tiny_folder, tmp_path, monkeypatch
):
    uri_of, files, path = bucket
    space = tmp_path / "space.yaml"
    space.write_text("optim.learning_rate: {choice: [1e-2]}\n", encoding="utf-8")
    settings = {"search": "grid", "num_epochs": 8, "runs_dir": uri_of(), "name": "search"}

    class Interrupts:
        def on_update(self, rows, num_trials, num_epochs):
            if any(row.num_epochs >= 3 for row in rows):
                os.kill(os.getpid(), signal.SIGINT)

        def on_trial_end(self, row):
            pass

    with pytest.raises(KeyboardInterrupt):
        tune_recipe(tiny_recipe, space, tiny_folder, listener=Interrupts(), **settings)
    assert "search/states/0001.zip" in names_in(files, path)
    with another_machine(monkeypatch, tmp_path / "other"):
        tuned = tune_recipe(tiny_recipe, space, tiny_folder, **settings)
    assert "search/states/0001.zip" not in names_in(files, path)
    trained = {}
    for event in Record(tuned.folder / "record.jsonl").read():
        if isinstance(event, Reported):
            trained.setdefault(event.report.epoch, []).append(event.report.duration_s)
    assert sorted(trained) == list(range(1, 9))
    assert len(trained[1]) == len(trained[3]) == 2
    assert all(len(set(times)) == 1 for times in trained.values())  # else it was trained twice
