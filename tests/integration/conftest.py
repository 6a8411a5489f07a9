"""Real parts that integration tests share: S3-compatible servers."""

import pytest

from .s3_server import S3Server


@pytest.fixture(scope="session")
def s3_access():
    """Credentials, which moto checks only where a test has it do so."""
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
def lasting_s3(s3_access, tmp_path):
    """A server with one bucket, which is still there when it was killed and is started again."""
    server = S3Server(tmp_path / "objects")
    try:
        yield server
    finally:
        server.kill()
