"""Fixtures of integration tests: S3-compatible servers."""

import pytest

from .s3_server import S3Server


@pytest.fixture(scope="session")
def s3_access():
    """Credentials, which moto checks only in tests that turn the check on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield


@pytest.fixture(scope="session")
def s3(s3_access):
    """`(uri_of(path), file system)` of a server with one bucket."""
    server = S3Server()
    try:
        yield server.uri_of, server.create_bucket()
    finally:
        server.kill()


@pytest.fixture
def persistent_s3(s3_access, tmp_path):
    """A server with one bucket, whose objects survive when it is killed and started again."""
    server = S3Server(tmp_path / "objects")
    try:
        yield server
    finally:
        server.kill()
