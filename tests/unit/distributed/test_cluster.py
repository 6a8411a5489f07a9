"""Addresses of clusters, checked before Ray is used."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from types import SimpleNamespace

import psutil
import pytest
from ray import exceptions
from ray.exceptions import RaySystemError

from sgnray.distributed import cluster, cores, reserve
from sgnray.distributed.address import check_listening, find_address
from sgnray.distributed.cluster import connected, is_at_hand, lost_cluster, set_environment
from sgnray.distributed.reserve import Wait
from sgnray.distributed.resources import Resources, WorkerRequest, check_local, parse_labels
from sgnray.errors import ClusterError, UsageError

# An HTTP/2 server begins with a frame of settings, here an empty one.
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@contextlib.contextmanager
def answering(answer, host="127.0.0.1", family=socket.AF_INET):
    """Listen at a port and give one answer to everything; yield the port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(100)
            self.request.sendall(answer)
            self.request.recv(100)  # until the other end closes

    class Server(socketserver.ThreadingTCPServer):
        address_family = family

    with Server((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def server(request):
    family, host = request.param
    try:
        socket.create_server((host, 0), family=family).close()
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with answering(SETTINGS, host, family) as port:
        yield host, port


def test_a_listening_server_is_accepted(server):
    host, port = server
    check_listening(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    check_listening("auto")


def test_a_closed_port_is_refused_at_once(server):
    host, _ = server
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with pytest.raises(ClusterError, match="no Ray cluster answers") as caught:
        check_listening(address)
    assert caught.value.where == address


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown command 'PRI'\r\n", b""],
    ids=["a web server", "Redis", "silence"],
)
def test_a_server_that_is_not_ray_is_refused_quickly(monkeypatch, answer):
    monkeypatch.setattr("sgnray.distributed.address._ANSWER_TIMEOUT_S", 0.5)
    with answering(answer) as port:
        with pytest.raises(ClusterError, match="answer"):
            check_listening(f"127.0.0.1:{port}")
        monkeypatch.setenv("RAY_USE_TLS", "1")  # then Ray is silent too
        check_listening(f"127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "https://cluster:8265"])
def test_a_dashboard_is_recognized(address):
    with pytest.raises(ClusterError, match="the address of a dashboard"):
        check_listening(address)


@pytest.mark.parametrize("address", ["there", "s3://bucket", "host:port", ":6379"])
def test_an_invalid_address_is_refused(address):
    with pytest.raises(UsageError, match="not the address of a Ray cluster"):
        check_listening(address)


@pytest.fixture
def no_ray_here(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(psutil, "process_iter", psutil.Process().children)
    return tmp_path


def test_a_ray_that_runs_here_is_found(no_ray_here, monkeypatch):
    assert find_address(None) is None
    (no_ray_here / "ray").mkdir()
    with answering(SETTINGS) as port:
        address = f"127.0.0.1:{port}"
        (no_ray_here / "ray" / "ray_current_cluster").write_text(address)
        assert find_address(None) == address
        assert is_at_hand(None)
        assert find_address("local") is None
        monkeypatch.setenv("RAY_ADDRESS", "head:6379")
        assert find_address(None) == "head:6379"
        monkeypatch.delenv("RAY_ADDRESS")
    assert find_address(None) is None  # it was stopped, and left its file
    (no_ray_here / "ray" / "ray_current_cluster").write_text("")
    assert find_address(None) is None


@pytest.fixture
def start_raylet(tmp_path):
    """Start a process with the name and options of a Ray node, which does nothing."""
    program = tmp_path / "raylet"
    program.write_text("#!/bin/sh\nread line\n")
    program.chmod(0o755)
    started = []

    def start(temp_dir, node_address, *more):
        options = [f"--node_ip_address={node_address}", f"--temp_dir={temp_dir}", *more]
        started.append(subprocess.Popen([program, *options], stdin=subprocess.PIPE))
        while options[0] not in psutil.Process(started[-1].pid).cmdline():  # its shell starts
            time.sleep(0.01)

    yield start
    for process in started:
        process.communicate()


def test_a_ray_with_another_temporary_folder_is_found(no_ray_here, start_raylet):
    folders = [no_ray_here / name for name in ("of init", "container", "first", "second")]
    with answering(SETTINGS) as first, answering(SETTINGS) as second:
        addresses = [None, *(f"127.0.0.1:{port}" for port in (second, first, second))]
        expected = [None, None, *addresses[2:]]  # the newest that `ray start` started
        hosts = ["127.0.0.1", "192.0.2.250", "127.0.0.1", "127.0.0.1"]
        for folder, address, host, found in zip(folders, addresses, hosts, expected, strict=True):
            folder.mkdir()
            if address is not None:
                (folder / "ray_current_cluster").write_text(address)
            start_raylet(folder, host)
            assert find_address(None) == found


def test_no_second_ray_is_started_beside_one_that_does_not_answer(no_ray_here, monkeypatch):
    monkeypatch.setattr("sgnray.distributed.address._ANSWER_TIMEOUT_S", 0.5)
    (no_ray_here / "ray").mkdir()
    with answering(b"") as port:
        address = f"127.0.0.1:{port}"
        (no_ray_here / "ray" / "ray_current_cluster").write_text(address)
        with pytest.raises(ClusterError, match="does not answer") as caught:
            find_address(None)
        assert caught.value.where == address
        assert "--address local" in caught.value.now
        assert find_address("local") is None


def test_a_recorded_address_that_accepts_no_connection_is_ignored(no_ray_here, monkeypatch):
    """Such as that of another network, to which this machine was connected before."""
    monkeypatch.setattr("sgnray.distributed.address._CONNECT_TIMEOUT_S", 0.5)
    (no_ray_here / "ray").mkdir()
    with socket.socket() as full, socket.socket() as first:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        first.connect(full.getsockname())
        with pytest.raises(TimeoutError):
            socket.create_connection(full.getsockname(), timeout=0.5)
        address = f"127.0.0.1:{full.getsockname()[1]}"
        (no_ray_here / "ray" / "ray_current_cluster").write_text(address)
        assert find_address(None) is None


def test_a_recorded_address_of_another_user_is_ignored(no_ray_here, monkeypatch):
    (no_ray_here / "ray").mkdir()
    record = no_ray_here / "ray" / "ray_current_cluster"
    with answering(SETTINGS) as port:
        record.write_text(f"127.0.0.1:{port}")
        assert find_address(None) == f"127.0.0.1:{port}"
        monkeypatch.setattr(os, "getuid", lambda: 4321)
        if record.stat().st_uid == 0:
            os.chown(record, 1234, -1)
        assert find_address(None) is None


def test_auto_means_a_ray_that_answers_here(no_ray_here, start_raylet, monkeypatch):
    connections = []
    monkeypatch.setattr(cluster, "_connect", lambda _, address: connections.append(address))
    monkeypatch.setattr(Resources, "now", lambda is_local: Resources(4, 0, is_local))
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    (no_ray_here / "ray").mkdir()
    record = no_ray_here / "ray" / "ray_current_cluster"
    record.write_text("127.0.0.1:1")  # it was stopped
    for name in ("auto", None):
        with pytest.raises(ClusterError, match="on this machine"), connected(name, num_workers=1):
            pass
    with answering(SETTINGS) as port, answering(SETTINGS) as unrecorded:
        addresses = [f"127.0.0.1:{number}" for number in (unrecorded, port)]
        start_raylet(no_ray_here / "other", "127.0.0.1", f"--gcs-address={addresses[0]}")
        with connected("auto", num_workers=1):
            pass
        record.write_text(addresses[1])
        with connected(None, num_workers=1):
            pass
    assert connections == addresses


def test_a_machine_that_is_not_a_node_is_refused_at_once(no_ray_here, start_raylet):
    """Ray itself looks for a node for a minute; those of another cluster do not help."""

    def init(**_):
        raise RuntimeError("No node info found matching attributes: '' when trying to resolve")

    ray = SimpleNamespace(init=init, exceptions=exceptions)
    with answering(SETTINGS) as port:
        address = f"127.0.0.1:{port}"
        # Without a node, Ray is not asked.
        for refuse in (cluster._wait_for_node, partial(cluster._connect, ray)):
            with pytest.raises(ClusterError, match="is not a node of that") as caught:
                refuse(address)
            assert f"ray start --address {address}" in caught.value.now
            start_raylet(no_ray_here, "192.0.2.250")
        cluster._wait_for_node(address)


@pytest.mark.parametrize("kind", [ConnectionError, TimeoutError, RaySystemError])
def test_a_lost_cluster_is_one_error_whatever_ray_raises(kind):
    lost = pytest.raises(ClusterError, match=r"the Ray cluster was lost: .*no answer")
    with lost as caught, lost_cluster("run it again"):
        raise kind("no answer")
    assert caught.value.now == "start it again; run it again"


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ETIMEDOUT])
def test_an_error_of_a_file_or_a_pipe_is_not_a_lost_cluster(number):
    with pytest.raises(OSError, match="a file") as caught, lost_cluster("run it again"):
        raise OSError(number, "a file or a pipe")
    assert isinstance(caught.value, ConnectionError | TimeoutError)


def test_environment_variables_for_ray_are_set_temporarily(monkeypatch):
    monkeypatch.setenv("RAY_OURS", "the user's")
    before = dict(os.environ)
    with set_environment({"RAY_OURS": "0", "RAY_SET": "1"}):
        assert dict(os.environ) == before | {"RAY_SET": "1"}
    assert dict(os.environ) == before


@pytest.mark.parametrize(("num_slow", "starts"), [(0, 1), (2, 3), (9, 3)])
def test_a_start_of_ray_that_takes_too_long_is_repeated(num_slow, starts):
    started = []

    def init(**_):
        started.append(1)
        if len(started) <= num_slow:
            raise Exception("The current node timed out during startup.")

    ray = SimpleNamespace(init=init)
    with pytest.raises(ClusterError) if num_slow > starts else contextlib.nullcontext():
        cluster._start(ray, 1)
    assert len(started) == starts


def test_another_failure_of_ray_is_not_repeated():
    started = []

    def init(**_):
        started.append(1)
        raise ValueError("no such option")

    with pytest.raises(ClusterError, match="no such option"):
        cluster._start(SimpleNamespace(init=init), 1)
    assert len(started) == 1


def test_a_machine_without_sgnray_is_named():
    text = "ray::_Messages.__init__()\nModuleNotFoundError: No module named 'sgnray'"
    named = pytest.raises(ClusterError, match="a machine of the cluster does not have sgnray")
    with named, lost_cluster("rerun it"):
        raise RaySystemError(text)
    with pytest.raises(ClusterError, match="cluster was lost"), lost_cluster("rerun it"):
        raise RaySystemError("no")


def test_a_closed_terminal_ends_ray_only_through_the_driver():
    """Ray's processes inherit the mask of the thread that starts them."""
    masks = []

    def init(**_):
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    cluster._start(SimpleNamespace(init=init), 1)
    assert signal.SIGHUP in masks[0]
    assert signal.SIGHUP not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.fixture
def starts_of_ray(monkeypatch):
    """Replace Ray; return the options of each start, and whether it may report its usage."""
    starts = []

    def init(**options):
        starts.append((options, os.environ.get("RAY_USAGE_STATS_ENABLED")))

    fake = SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(cluster, "num_cores", lambda: 4)
    monkeypatch.setattr(Resources, "now", lambda is_local: Resources(4, 0, is_local))
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    return starts


@pytest.mark.parametrize(("num_workers", "num_cpus"), [(1, 4), (4, 4), (9, 9)])
def test_a_new_ray_has_no_dashboard_and_a_cpu_for_each_worker(
    starts_of_ray, caplog, num_workers, num_cpus
):
    with caplog.at_level("WARNING", logger="sgnray"), connected("local", num_workers=num_workers):
        pass
    ((options, _),) = starts_of_ray
    assert options["address"] == "local"
    assert options["num_cpus"] == num_cpus
    assert options["include_dashboard"] is False
    assert options["dashboard_host"] == "127.0.0.1"
    shared = [text for text in caplog.messages if "9 workers share the 4 cores" in text]
    assert caplog.messages == shared
    assert len(shared) == (num_workers > 4)


@pytest.mark.parametrize(("of_user", "expected"), [(None, "0"), ("1", "1")])
def test_ray_does_not_report_its_usage_unless_the_user_wants_it(
    starts_of_ray, monkeypatch, of_user, expected
):
    if of_user is not None:
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", of_user)
    with connected("local", num_workers=1):
        pass
    ((_, reports),) = starts_of_ray
    assert reports == expected
    assert os.environ.get("RAY_USAGE_STATS_ENABLED") == of_user


V1 = ("cpu.cfs_quota_us", "cpu.cfs_period_us")


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/pod/own", {"pod/own/cpu.max": "250000 100000"}, 3),
        ("0::/pod/own", {"pod/own/cpu.max": "max 100000", "pod/cpu.max": "50000 100000"}, 1),
        ("0::/not/seen/in/a/container", {"cpu.max": "400000 100000"}, 4),
        ("0::/", {"cpu.max": "9900000 100000"}, 8),
        (
            "5:cpuset:/\n4:cpu,cpuacct:/own\n0::/",
            {f"cpu/own/{V1[0]}": "-1", f"cpu/own/{V1[1]}": "100000"},
            8,
        ),
        ("4:cpu,cpuacct:/own", {f"cpu/own/{V1[0]}": "150000", f"cpu/own/{V1[1]}": "100000"}, 2),
        (None, {}, 8),
    ],
)
def test_the_cores_of_a_container_are_those_of_its_quota(
    monkeypatch, tmp_path, groups, files, expected
):
    for name, text in files.items():
        path = tmp_path / "all" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    if groups is not None:
        (tmp_path / "own").write_text(f"{groups}\n")
    monkeypatch.setattr(cores, "_OWN_CGROUPS", tmp_path / "own", raising=False)
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path / "all", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert cores.num_cores() == expected


def test_ray_client_is_refused(no_ray_here):
    with pytest.raises(UsageError, match="Ray Client") as caught:
        find_address("ray://head:10001")
    assert caught.value.where == "ray://head:10001"


@pytest.mark.parametrize(
    ("node_cpus", "free_cpus", "num_workers", "each"),
    [
        ((64, 64), 128, 2, 64),
        ((64, 64), 128, 3, 32),  # 42 would find only two places
        ((64, 64), 8, 2, 4),
        ((0, 64), 64, 1, 64),
        ((), 0, 4, 1),  # scaled to zero
        ((1, 1), 2, 8, 1),
    ],
)
def test_the_cpus_of_a_cluster_are_shared(node_cpus, free_cpus, num_workers, each):
    resources = Resources(
        sum(node_cpus), 0, is_local=False, node_cpus=node_cpus, free_cpus=free_cpus
    )
    assert resources.cpus_per_worker(num_workers) == each


def test_a_request_in_words():
    labels = parse_labels(["zone=a", "market-type=spot"])
    request = WorkerRequest(2, 1, accelerator_type="A100", labels=labels, wait_s=90.0)
    assert (
        request.describe(4)
        == "4 workers with 2 CPUs and 1 GPU (A100), zone=a, market-type=spot each"
    )
    assert WorkerRequest().describe(1) == "1 worker with 1 CPU"


@pytest.mark.parametrize("label", ["zone", "zone=", "=a", "a b=c", "zone=a,b", "zone=in()"])
def test_an_invalid_label_is_refused(label):
    with pytest.raises(UsageError) as caught:
        parse_labels([label])
    assert caught.value.where == "--label"


@pytest.mark.parametrize("label", ["ray.io/market-type=spot", "zone=!a", "zone=in(a, b-c)", "x=1"])
def test_labels_as_ray_takes_them(label):
    key, _, value = label.partition("=")
    assert parse_labels([label]) == {key: value}


@pytest.mark.parametrize(
    "request_",
    [
        WorkerRequest(num_cpus=2),
        WorkerRequest(num_gpus=1),
        WorkerRequest(labels={"zone": "a"}),
        WorkerRequest(accelerator_type="A100"),
    ],
)
def test_a_request_that_this_machine_cannot_meet_is_refused(request_):
    alone = Resources(num_cpus=2, num_gpus=0, is_local=True)
    with pytest.raises(UsageError, match="this machine has no room for 2 workers") as caught:
        check_local(2, alone, request_)
    assert ("--device cpu" in caught.value.now) == bool(request_.num_gpus)
    check_local(2, dataclasses.replace(alone, is_local=False), request_)
    check_local(2, alone, WorkerRequest())


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test advances, and a cluster to name in messages."""
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    nodes = {"node_cpus": (1, 2), "node_gpus": (0, 1)}
    monkeypatch.setattr(Resources, "now", lambda is_local: Resources(3, 1, is_local, **nodes))

    def advance(seconds):
        now[0] += seconds

    return advance


def test_only_the_time_without_room_counts(clock):
    waiting = Wait("1 worker", WorkerRequest(wait_s=60.0))
    for _ in range(3):  # room is found, and lost again
        waiting.check(is_waiting=True)
        clock(59)
        waiting.check(is_waiting=True)
        waiting.check(is_waiting=False)
        clock(59)
    waiting.check(is_waiting=True)
    clock(61)
    with pytest.raises(ClusterError, match="waited 60 s for 1 worker"):
        waiting.check(is_waiting=True)


def test_the_time_that_was_waited_before_counts_once(clock):
    waiting = Wait("1 worker", WorkerRequest(wait_s=60.0), waited_s=50.0)
    waiting.check(is_waiting=True)
    clock(9)
    waiting.check(is_waiting=True)
    waiting.check(is_waiting=False)
    waiting.check(is_waiting=True)
    clock(59)
    waiting.check(is_waiting=True)
    clock(2)
    with pytest.raises(ClusterError, match="waited 60 s for 1 worker"):
        waiting.check(is_waiting=True)


NO_NODE = "; no node now has 1 CPU and 2 GPUs: this ends only if the autoscaler can add one"


@pytest.mark.parametrize(
    ("request_", "advice", "expected"),
    [
        (WorkerRequest(), "", "; --wait TIME limits this, Ctrl-C ends it"),
        (WorkerRequest(wait_s=9e9), "; do", "; do; --wait ends this after 9e+09 s, Ctrl-C ends it"),
        (WorkerRequest(num_gpus=2), "", f"{NO_NODE}; --wait TIME limits this, Ctrl-C ends it"),
        (WorkerRequest(num_cpus=2, num_gpus=1), "", "; --wait TIME limits this, Ctrl-C ends it"),
    ],
)
def test_waiting_is_logged_after_a_moment_and_every_five_minutes(
    clock, caplog, request_, advice, expected
):
    waiting = Wait("1 worker", request_, advice=advice)
    with caplog.at_level("WARNING", logger="sgnray"):
        for _ in range(400):
            waiting.check(is_waiting=True)
            clock(1)
    has = "the cluster has 3 CPUs (0 free) and 1 GPU"
    assert caplog.messages == [f"waiting for 1 worker; {has}{expected}"] * 2


def test_a_slow_start_is_logged_without_advice(clock, caplog):
    waiting = Wait("1 worker")
    with caplog.at_level("WARNING", logger="sgnray"):
        for _ in range(70):
            waiting.check(is_waiting=True)
            clock(1)
    has = "the cluster has 3 CPUs (0 free) and 1 GPU"
    assert caplog.messages == [f"still starting 1 worker; {has}"]


@pytest.mark.parametrize(
    ("num_workers", "resources", "is_shared"),
    [
        (4, Resources(8, 1, is_local=False), True),
        (1, Resources(8, 1, is_local=False), False),
        (4, Resources(8, 0, is_local=False), False),
    ],
)
def test_more_workers_than_gpus_may_share_them(monkeypatch, num_workers, resources, is_shared):
    advice = []
    monkeypatch.setattr(reserve, "_ask", lambda number, request: None)
    monkeypatch.setattr(reserve, "Wait", lambda *_, **settings: advice.append(settings["advice"]))
    reserve.Reservation(num_workers, resources, WorkerRequest(num_gpus=1))
    assert ["--gpus-per-worker 0.5" in text for text in advice] == [is_shared]
