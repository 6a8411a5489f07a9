"""How places are named to the user."""

import pytest

from sgnray.storage.location import Location


@pytest.mark.parametrize(
    ("path", "uri", "name"),
    [
        ("/home/me/runs", None, "/home/me/runs"),
        ("bucket/runs", "s3://key:secret@bucket/runs?region=eu", "s3://bucket/runs"),
        ("/user/me", "hdfs://me@host:8020/user/me", "hdfs://host:8020/user/me"),
        ("/user/me", "hdfs:///user/me", "hdfs:///user/me"),
    ],
)
def test_a_place_is_named_by_what_leads_there(path, uri, name):
    assert str(Location(path, uri)) == name
