"""Real parts that integration tests share: an S3-compatible server."""

import contextlib
import socket
import subprocess
import sys
import time

import pytest
from pyarrow import fs


@pytest.fixture(scope="session")
def s3():
    """`(uri_of(path), file system)` of a server in a process of its own, with one bucket."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    query = f"?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"
    try:
        wait_for(port, server)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", "key")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            creating = f"s3://bucket{query}&allow_bucket_creation=true"
            files = fs.FileSystem.from_uri(creating)[0]
            files.create_dir("bucket")
            yield lambda path: f"s3://{path}{query}", files
    finally:
        server.terminate()
        server.wait()


def wait_for(port, server):
    for _ in range(300):
        assert server.poll() is None, "the S3 server did not start"
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.1)
    raise AssertionError("the S3 server does not answer")
