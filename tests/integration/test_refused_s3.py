"""An S3 server that checks credentials: unknown ones, and those of a read-only user."""

import json
import re
import urllib.request

import pytest

from .disturbed import train_command
from .test_remote import upload


@pytest.fixture
def switch_user(s3, tiny_run, tiny_folder, tmp_path, monkeypatch):
    """Switch to another user; there are a run and a dataset in the bucket, and a read-only user."""
    import boto3  # slow, and needed by these tests only

    uri_of, files = s3
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SGNRAY_CACHE", str(tmp_path / "cache"))
    upload(files, tiny_run, "bucket/refused/run")
    upload(files, tiny_folder, "bucket/refused/data")
    server = "http://" + uri_of("").partition("endpoint_override=")[2].partition("&")[0]
    iam = boto3.client("iam", endpoint_url=server, region_name="us-east-1")
    reading = {"Effect": "Allow", "Action": ["s3:Get*", "s3:Head*", "s3:List*"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [reading]})
    user = {"UserName": tmp_path.name}
    iam.create_user(**user)
    iam.put_user_policy(**user, PolicyName="reading", PolicyDocument=policy)
    made = iam.create_access_key(**user)["AccessKey"]
    key, secret = made["AccessKeyId"], made["SecretAccessKey"]
    users = {
        "reader": (key, secret),
        "wrong secret": (key, "wrong"),
        "unknown": ("AKIAUNKNOWN", secret),
    }

    def check_after(num_requests):
        """Let moto check credentials after this many requests."""
        address, plain = f"{server}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        asking = urllib.request.Request(address, str(num_requests).encode(), plain, method="POST")
        urllib.request.urlopen(asking).close()

    def be(name):
        for variable, value in zip(
            ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), users[name], strict=True
        ):
            monkeypatch.setenv(variable, value)
        check_after(0)

    yield be
    check_after("inf")


@pytest.fixture
def refused(sgn):
    """Run a command that must fail at once, with one error; returns the error and stdout."""

    def run(*words):
        done = sgn(*words)
        assert not re.search("s3:.*trying again", done.err)  # as an upload that fails otherwise
        assert done.code == 1, done.err
        assert "starting Ray" not in done.err
        block = done.err.partition("error: ")[2]
        assert [line[:9] for line in block.splitlines()[1:]] == ["  where  ", "  now    "]
        return block, done.out

    return run


def local_files(folder):
    """The files that commands have left, except locks."""
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("lock")]


@pytest.mark.parametrize("name", ["wrong secret", "unknown"])
def test_wrong_credentials(
    switch_user, refused, s3, tiny_folder, tiny_raw, tiny_run, tmp_path, name
):
    uri_of = s3[0]
    switch_user(name)
    recording = str(min(tiny_raw.glob("*.skeleton")))
    for words in (
        train_command(tiny_folder, "--runs", uri_of("bucket/refused"))[3:],
        train_command(uri_of("bucket/refused/data"))[3:],
        ["tune", "--data", str(tiny_folder), "--runs", uri_of("bucket/refused")],
        ["eval", uri_of("bucket/refused/run")],
        ["eval", "--runs", uri_of("bucket/refused")],
        ["predict", recording, "--checkpoint", uri_of("bucket/refused/run")],
        ["predict", uri_of("bucket/refused/raw"), "--checkpoint", str(tiny_run)],
        ["prepare", "--raw", uri_of("bucket/refused/raw")],
    ):
        block, out = refused(*words)
        assert "s3://bucket/refused" in block
        assert out == ""
        assert local_files(tmp_path) == []


def test_a_bucket_that_may_only_be_read(switch_user, refused, s3, tiny_folder, tmp_path):
    uri_of = s3[0]
    switch_user("reader")
    new = ("--runs", uri_of("bucket/refused/new"))
    for words in (
        train_command(tiny_folder, *new)[3:],
        train_command(tiny_folder, *new, "--workers", "2")[3:],
        train_command(tiny_folder, *new, "--workers", "2", "--seeds", "2")[3:],
        ["tune", "--data", str(tiny_folder), *new],
    ):
        block, out = refused(*words)
        assert "ACCESS_DENIED" in block
        assert (out, local_files(tmp_path)) == ("", [])
    block, out = refused("eval", uri_of("bucket/refused/run"), "--data", str(tiny_folder))
    assert "ACCESS_DENIED" in block
    assert "top-1" in out  # shown even if it cannot be written there
