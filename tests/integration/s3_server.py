"""An S3-compatible server, moto's, in a process of its own, which can be killed and started again.

As a script, s3_server.py PORT FILE saves all objects to a file before it answers a request. moto
keeps them in memory only, and cannot replay recorded uploads, because their ids are random. An
upload that is not complete is lost, as it is on any server.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from pyarrow import fs

from sgnray.storage.atomic import write_bytes


class S3Server:
    """A server with the bucket `bucket`; its objects survive a kill in `file`."""

    def __init__(self, file: Path | None = None) -> None:
        from ..processes import free_port  # here, because a script cannot import it

        self.port = free_port()
        kept = [__file__, str(self.port), str(file)]
        moto = ["-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._command = [sys.executable, *(kept if file else moto)]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(self._command, **quiet)
        for _ in range(300):
            assert self._process.poll() is None, "the S3 server did not start"
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            time.sleep(0.1)
        raise AssertionError("the S3 server does not answer")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def uri_of(self, path: str) -> str:
        """Return the URI of a path, for a command."""
        query = f"?scheme=http&endpoint_override=127.0.0.1:{self.port}&region=us-east-1"
        return f"s3://{path}{query}"

    def create_bucket(self) -> fs.FileSystem:
        """Create the bucket, with the credentials of the environment; returns the file system."""
        files = fs.FileSystem.from_uri(f"{self.uri_of('bucket')}&allow_bucket_creation=true")[0]
        files.create_dir("bucket")
        return files


def _serve(port: int, file: Path) -> None:
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from moto.s3.models import s3_backends
    from werkzeug.serving import run_simple

    application = DomainDispatcherApplication(create_backend_app)
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for bucket, objects in pickle.loads(file.read_bytes()).items() if file.exists() else ():
        backend.create_bucket(bucket, "us-east-1")
        for name, content in objects.items():
            backend.put_object(bucket, name, content)

    one_at_a_time = threading.Lock()

    def keep(environ, start_response):
        with one_at_a_time:
            answer = list(application(environ, start_response))
            if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
                kept = {
                    bucket.name: {name: bucket.keys[name].value for name in bucket.keys}
                    for bucket in backend.buckets.values()
                }
                write_bytes(file, pickle.dumps(kept))
            return answer

    run_simple("127.0.0.1", port, keep, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    _serve(int(sys.argv[1]), Path(sys.argv[2]))
