"""How locations are shown to the user."""

import shlex
from pathlib import Path

import pytest

from sgnray.errors import OutputError, UsageError
from sgnray.storage import mirror
from sgnray.storage.location import Location, as_folder, locate, without_secrets


@pytest.mark.parametrize(
    ("path", "uri", "name"),
    [
        ("/home/me/runs", None, "/home/me/runs"),
        ("bucket/runs", "s3://key:secret@bucket/runs?region=eu", "s3://bucket/runs"),
        ("/user/me", "hdfs://me@host:8020/user/me", "hdfs://host:8020/user/me"),
        ("/user/me", "hdfs:///user/me", "hdfs:///user/me"),
    ],
)
def test_a_location_is_shown_without_credentials(path, uri, name):
    assert str(Location(path, uri)) == name


@pytest.mark.parametrize(
    ("path", "uri", "address"),
    [
        ("/home/me/runs", None, "/home/me/runs"),
        (
            "bucket/runs",
            "s3://key:secret@bucket/?endpoint_override=host:9000&scheme=http",
            "s3://bucket/runs?endpoint_override=host:9000&scheme=http",
        ),
        ("bucket/runs", "s3://bucket/?access_key=key&secret_key=secret", "s3://bucket/runs"),
    ],
)
def test_the_address_for_a_command_has_the_server_but_no_secret(path, uri, address):
    assert Location(path, uri).address == address


def test_words_of_a_command_may_have_several_uris_or_none():
    assert (
        without_secrets("train.log=[s3://k:s@b/x,s3://k2:s2@b/y]")
        == "train.log=[s3://b/x,s3://b/y]"
    )
    assert without_secrets("s3://k:s@b/a#b") == "s3://b/a#b"
    assert without_secrets("s3://[x/runs") == "..."
    for name in ("s3://KEY:SECRET@", Path("s3://KEY:SECRET@bucket/runs")):
        with pytest.raises(UsageError) as caught:
            as_folder(name)
        assert "SECRET" not in str(caught.value.where)
    assert without_secrets("runs/a@b") == "runs/a@b"


def test_a_place_where_nothing_can_be_removed_is_refused(monkeypatch, tmp_path):
    def refuse(_):
        raise OutputError("refused", where="s3://b/x", now="check") from OSError("ACCESS_DENIED")

    monkeypatch.setattr(Location, "remove", refuse)
    with pytest.raises(OutputError, match="not removed: ACCESS_DENIED") as caught:
        Location(str(tmp_path)).check_writable()
    assert caught.value.where == str(tmp_path)
    assert "permission to delete" in caught.value.now


def test_a_command_is_quoted_for_a_shell(monkeypatch):
    place = Location("bucket/runs", "s3://bucket/?endpoint_override=host:9000&region=eu")
    monkeypatch.setitem(mirror._mirrors, Path("/cache/runs"), mirror.Mirror(place, Path("/cache")))
    (named,) = shlex.split(mirror.quoted_name(Path("/cache/runs/best.yaml")))
    assert named == "s3://bucket/runs/best.yaml?endpoint_override=host:9000&region=eu"
    assert shlex.split(mirror.quoted_name(Path("my runs/best.yaml"))) == ["my runs/best.yaml"]


def test_a_home_is_expanded_as_a_shell_would(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert as_folder("~/data") == tmp_path / "data"


def test_a_link_keeps_its_name_but_folders_above_are_resolved(tmp_path):
    (tmp_path / "blobs/ab12").mkdir(parents=True)
    (tmp_path / "gestures").symlink_to("blobs/ab12")
    (tmp_path / "gestures/clip.csv").symlink_to("absent")
    blobs = tmp_path / "blobs"
    for text, path in (
        ("gestures", tmp_path / "gestures"),
        ("gestures/", tmp_path / "gestures"),
        ("gestures/clip.csv", blobs / "ab12/clip.csv"),
        ("gestures/..", blobs),
        ("gestures/../ab12", blobs / "ab12"),
    ):
        assert locate(f"{tmp_path}/{text}") == Location(str(path))


@pytest.mark.parametrize("has_uri", [False, True])
def test_hidden_folders_are_listed_only_on_request(tmp_path, has_uri):
    root = tmp_path / ".root"
    for folder in ("wave", ".cache/deep", "__MACOSX"):
        (root / folder).mkdir(parents=True)
        (root / folder / "a.csv").touch()
    place = Location(str(root), root.as_uri() if has_uri else None)
    assert [entry.path for entry in place.walk()] == [f"{root}/wave/a.csv"]
    assert len(list(place.walk(hidden=True))) == 3
