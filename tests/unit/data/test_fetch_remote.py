"""A dataset at a URI: a server with the part of S3 that reading files needs."""

import logging
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sgnray.data import fetch
from sgnray.data.fetch import dataset_at
from sgnray.data.info import read_info
from sgnray.data.store import open_dataset
from sgnray.errors import InputError, UsageError


class Objects(BaseHTTPRequestHandler):
    """GET and HEAD of the files below `server.root`, whole or a range of bytes."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.server.root / self.path.partition("?")[0].lstrip("/")
        self.server.asked.append((self.command, path.name))
        # A key of S3 is not a path: with two slashes, it is another key.
        if not path.is_file() or "//" in self.path or path.name in self.server.refused:
            self.send_response(403 if path.name in self.server.refused else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        part = data[int(wanted[1]) : int(wanted[2]) + 1] if wanted else data
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SGNRAY_CACHE", str(tmp_path / "cache"))
    shutil.copytree(folder, tmp_path / "objects" / "bucket" / "data" / "sticks")
    with ThreadingHTTPServer(("127.0.0.1", 0), Objects) as server:
        server.root, server.asked, server.refused = tmp_path / "objects", [], set()
        server.folder = server.root / "bucket" / "data" / "sticks"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def uri(server, path="data/sticks"):
    return (
        f"s3://someone:secret@bucket/{path}?region=us-east-1&scheme=http"
        f"&endpoint_override=127.0.0.1:{server.server_port}"
    )


def test_a_dataset_is_fetched_once(server, folder, monkeypatch):
    monkeypatch.setattr(fetch, "_BLOCK_BYTES", 1000)
    monkeypatch.setattr(fetch, "_MIB", 1)
    steps = []
    fetched = dataset_at(uri(server), lambda done, total: steps.append((done, total)))
    assert open_dataset(fetched).info == read_info(folder)
    for name in ("clips.arrow", "dataset.json", "skipped.csv"):
        assert (fetched / name).read_bytes() == (folder / name).read_bytes()
    size = (folder / "clips.arrow").stat().st_size
    assert steps == [(min(1000 * (i + 1), size), size) for i in range(-(-size // 1000))]
    server.asked.clear()
    assert dataset_at(uri(server, "data/sticks/")) == fetched
    assert {name for _, name in server.asked} == {"dataset.json"}


def test_a_dataset_that_changed_there_is_another_copy(server, hand_made):
    first = dataset_at(uri(server))
    hand_made.values[0] = 7
    hand_made.write(server.folder)
    second = dataset_at(uri(server))
    assert second != first
    assert open_dataset(second).poses_PVC[0, 0, 0] == 7
    assert open_dataset(first).poses_PVC[0, 0, 0] == 0


def test_a_damaged_dataset_at_a_uri_is_refused(server, tmp_path):
    path = server.folder / "clips.arrow"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="not the requested one"):
        dataset_at(uri(server))
    assert [path.suffix for path in (tmp_path / "cache" / "datasets").iterdir()] == [".lock"]


@pytest.mark.parametrize("name", ["clips.arrow", "dataset.json", "skipped.csv"])
def test_a_file_is_missing_there(server, name):
    (server.folder / name).unlink()
    with pytest.raises(InputError) as caught:
        dataset_at(uri(server))
    assert caught.value.what == "file of the dataset not found"
    assert caught.value.where == f"s3://bucket/data/sticks/{name}"


def test_a_file_without_read_permission_is_named(server):
    server.refused.add("clips.arrow")
    with pytest.raises(InputError) as caught:
        dataset_at(uri(server))
    assert caught.value.what.startswith("it cannot be read: ")
    assert caught.value.where == "s3://bucket/data/sticks/clips.arrow"
    assert "secret" not in str(caught.value)


def test_a_newer_format_is_refused_before_anything_big_is_fetched(server):
    path = server.folder / "dataset.json"
    path.write_text(path.read_text().replace('"format_version": 2', '"format_version": 99'))
    with pytest.raises(InputError, match="has format version 99") as caught:
        dataset_at(uri(server))
    assert caught.value.where == "s3://bucket/data/sticks/dataset.json"
    assert {name for _, name in server.asked} == {"dataset.json"}


def test_no_message_holds_a_password(server, caplog):
    with caplog.at_level(logging.INFO, logger="sgnray"):
        dataset_at(uri(server))
    assert "fetching s3://bucket/data/sticks: " in caplog.text
    assert "secret" not in caplog.text


def test_a_path_is_returned_as_it_is(tmp_path):
    assert dataset_at("data/ntu60") == Path("data/ntu60")
    assert dataset_at(str(tmp_path)) == tmp_path
    assert dataset_at(f"file://{tmp_path}") == tmp_path


def test_an_unheard_of_scheme():
    with pytest.raises(UsageError, match="this location is not accessible"):
        dataset_at("gopher://x/y")
