"""The examples that need Ray, run as they are."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

import sgnray
from sgnray.checkpoints.trained_model import load_trained_model
from sgnray.data.skeleton import NTU25
from sgnray.predict import Stream, predict_clips, read_clip

from .. import pose_files
from ..processes import free_port

EXAMPLES = Path(sgnray.__file__).parents[1] / ".github" / "examples"
# Ignore a Ray that happens to run on this machine.
ENVIRONMENT = {
    **os.environ,
    "RAY_ADDRESS": "local",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Serve restarts a proxy that does not answer within 5 s: on a busy machine, forever.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "100",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "100",
}
WALK = np.random.default_rng(5).normal(size=(40, 25, 3)).cumsum(axis=0).round(4)


@pytest.fixture(scope="module")
def service(tiny_run, tmp_path_factory):
    """The address of serve.py in a process of its own."""
    with serve(EXAMPLES, tiny_run, tmp_path_factory) as address:
        yield address


@contextlib.contextmanager
def serve(folder, tiny_run, tmp_path_factory):
    pytest.importorskip("ray.serve", reason="needs sgnray[serve]", exc_type=ImportError)
    port = free_port()
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    command = [sys.executable, str(folder / "serve.py"), str(tiny_run), str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=out, stderr=out)
    try:
        for _ in range(500):
            assert process.poll() is None, log.read_text()[-3000:]
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20).close()
                break
            time.sleep(0.5)
        else:
            raise AssertionError(f"the service does not answer: {log.read_text()[-3000:]}")
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(200) == 0
            assert "\nKeyboardInterrupt\n" not in log.read_text()
        except subprocess.TimeoutExpired:
            for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                each.kill()
            raise


def post(service, body):
    """Send a clip; returns the status and the JSON of the answer."""
    request = urllib.request.Request(f"http://{service}/predict", data=body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def as_json(guesses):
    return [vars(guess) for guess in guesses]


def test_the_examples_are_short():
    lines = {
        name: (EXAMPLES / name).read_text(encoding="utf-8").splitlines()
        for name in ("serve.py", "ray_data.py")
    }
    assert len(lines["serve.py"]) < 100
    assert sum(bool(line.strip()) for line in lines["ray_data.py"]) <= 30


@pytest.mark.ray
@pytest.mark.slow
def test_ray_data_recognizes_a_folder(tiny_raw, tiny_run, tmp_path):
    raw = tmp_path / "raw"
    shutil.copytree(tiny_raw, raw)
    text = min(raw.glob("*.skeleton")).read_text().split("\n")
    text[4] = "nan " + text[4].partition(" ")[2]
    (raw / "broken.skeleton").write_text("\n".join(text))
    (raw / "dead.skeleton").symlink_to(tmp_path / "gone.skeleton")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "ray_data.py"), "raw", str(tiny_run), "predictions"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {row.pop("place"): row for row in pq.read_table(tmp_path / "predictions").to_pylist()}
    for name, reason in [
        ("broken.skeleton", "line 5: the coordinate 'nan' is not a number"),
        ("dead.skeleton", "file or folder not found"),
    ]:
        row = {key: value for key, value in rows.pop(str(raw / name)).items() if value is not None}
        assert row == {"clip": name, "reason": reason}
    expected = {item.place: item.guesses[0] for item in predict_clips(tiny_raw, tiny_run)}
    found = {path: row["guesses"][0] for path, row in rows.items()}
    assert {path: guess["name"] for path, guess in found.items()} == {
        str(raw / Path(place).name): guess.name for place, guess in expected.items()
    }
    assert [found[path]["probability"] for path in sorted(found)] == pytest.approx(
        [expected[place].probability for place in sorted(expected)], abs=1e-6
    )


@pytest.mark.ray
def test_the_service_recognizes_clips(service, tiny_raw, tiny_run):
    paths = sorted(tiny_raw.glob("*.skeleton"))
    with ThreadPoolExecutor(16) as clients:  # so that some are recognized together
        answers = list(clients.map(lambda path: post(service, path.read_bytes()), paths))
    assert {status for status, _ in answers} == {200}
    for (_, guesses), item in zip(answers, predict_clips(tiny_raw, tiny_run), strict=True):
        assert [guess["label"] for guess in guesses] == [guess.label for guess in item.guesses]
        assert [guess["probability"] for guess in guesses] == pytest.approx(
            [guess.probability for guess in item.guesses], abs=1e-6
        )
    frames = load_trained_model(tiny_run).predict(WALK)
    assert post(service, json.dumps(WALK.tolist()).encode()) == (200, as_json(frames))
    kinect = pose_files.make_file("Kinect v2", num_frames=20)
    guesses = load_trained_model(tiny_run).recognize([read_clip(kinect, NTU25)])[0]
    assert post(service, kinect) == (200, as_json(guesses))


@pytest.mark.ray
@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "neither a recording nor JSON"),
        (b"[[1, 2", "neither a recording nor JSON"),
        (b"\x00\xff", "neither a recording nor JSON"),
        (b"12\nabc", "line 1: declares 12 frames"),
        (b"[" * 100_000, "neither a recording nor JSON"),
        (json.dumps(WALK[:, :20].tolist()).encode(), "a frame has the shape (20, 3), as kinect20"),
        (json.dumps([WALK[:3].tolist()]).encode(), "there are 3 people"),
        (json.dumps([[], []]).encode(), "no frame contains a person"),
        (json.dumps((1e30 * WALK).tolist()).encode(), "the model gives no finite result"),
        (pose_files.make_file("MMPose"), "coco17 skeletons; the model supports only ntu25"),
        (b" " * (2**26 + 1), "the body is too large"),
    ],
    ids=range(11),
)
def test_the_service_refuses_in_json_and_stays_up(service, body, what):
    status, answer = post(service, body)
    assert status == 400
    assert set(answer) == {"error", "where", "now"}
    assert all(answer.values())
    assert answer["error"].startswith(what)
    assert post(service, json.dumps(WALK.tolist()).encode())[0] == 200


@pytest.mark.ray
def test_the_service_recognizes_streams(service, tiny_run):
    client = pytest.importorskip("websockets.sync.client")
    stream = Stream(load_trained_model(tiny_run))
    expected = [stream.add(frame) for frame in WALK][14::15]
    with client.connect(f"ws://{service}/stream") as connection:
        for frame in WALK.tolist():
            connection.send(json.dumps(frame))
        found = [json.loads(connection.recv(60)) for _ in expected]
        assert found == [
            {"frame": number, "guesses": as_json(guesses)}
            for number, guesses in zip((15, 30), expected, strict=True)
        ]
        connection.send(b"\x00\x00\xfe\xff[1]\xff")  # not UTF-32, which JSON might be in
        assert json.loads(connection.recv(60))["error"].startswith("not JSON: 'utf-8' codec")
    with client.connect(f"ws://{service}/stream") as connection:
        connection.send("null")
        connection.send(json.dumps(WALK[0, :7].tolist()))
        answer = json.loads(connection.recv(60))
        assert answer["error"].startswith("a frame has the shape (7, 3)")
        assert answer["where"] == "frame 2 of the stream"
    with client.connect(f"ws://{service}/stream") as connection:
        for frame in WALK.tolist():
            connection.send(json.dumps(frame))
        connection.socket.shutdown(socket.SHUT_RDWR)  # a client that goes away
    assert post(service, json.dumps(WALK.tolist()).encode())[0] == 200


@pytest.mark.ray
@pytest.mark.parametrize("num_sent", [0, 1000, None])
def test_a_client_that_breaks_off_a_request_leaves_the_service_up(service, num_sent):
    """Before its body, in it, and before the answer."""
    host, _, port = service.partition(":")
    body = json.dumps(WALK.tolist()).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: {service}\r\nContent-Length: {len(body)}\r\n\r\n"
    for _ in range(20):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + body[:num_sent])
    assert post(service, body)[0] == 200


@pytest.mark.ray
@pytest.mark.slow
def test_the_service_closes_an_idle_stream(tiny_run, tmp_path, tmp_path_factory):
    """After 5 minutes, here 2 s: a browser runs the timer of a hidden page once a minute."""
    client = pytest.importorskip("websockets.sync.client")
    exceptions = pytest.importorskip("websockets.exceptions")
    script = (EXAMPLES / "serve.py").read_text(encoding="utf-8")
    assert "\nIDLE_S = 300 " in script
    shutil.copy(EXAMPLES / "serve.html", tmp_path)
    (tmp_path / "serve.py").write_text(script.replace("IDLE_S = 300", "IDLE_S = 2"))
    with (
        serve(tmp_path, tiny_run, tmp_path_factory) as service,
        client.connect(f"ws://{service}/stream") as connection,
    ):
        connection.send("null")
        assert json.loads(connection.recv(120)) == {
            "error": "no frame came for 2 s",
            "where": "the stream",
            "now": "connect again",
        }
        with pytest.raises(exceptions.ConnectionClosed) as caught:
            connection.recv(60)
        assert caught.value.rcvd.code == 1001  # not that of invalid data


@pytest.mark.ray
@pytest.mark.slow
def test_the_service_batches_requests_and_adds_workers(tiny_run, tmp_path, tmp_path_factory):
    """A copy that writes down the worker and the size of each batch, and is busy soon."""
    script = (EXAMPLES / "serve.py").read_text(encoding="utf-8")
    batch = "        return await to_thread(recognize_each, self.model, clips)\n"
    batches = tmp_path / "batches.txt"
    note = f"        print(os.getpid(), len(clips), file=open({str(batches)!r}, 'a'))\n"
    for old, new in (
        ("import json\n", "import json\nimport os\n"),
        (batch, note + batch),
        ('"target_ongoing_requests": 16', '"target_ongoing_requests": 2, "upscale_delay_s": 1'),
        ('"max_replicas": 8', '"max_replicas": 2'),
        ('"num_gpus": float(num_gpus)', '"num_gpus": float(num_gpus), "num_cpus": 0.1'),
    ):
        assert script.count(old) == 1
        script = script.replace(old, new)
    shutil.copy(EXAMPLES / "serve.html", tmp_path)
    (tmp_path / "serve.py").write_text(script)
    body = json.dumps(WALK.tolist()).encode()
    with (
        serve(tmp_path, tiny_run, tmp_path_factory) as service,
        ThreadPoolExecutor(16) as clients,
    ):
        end = time.monotonic() + 200
        workers = set()
        while len(workers) < 2 and time.monotonic() < end:
            answers = list(clients.map(lambda _: post(service, body), range(64)))
            assert {status for status, _ in answers} == {200}
            workers = {line.split()[0] for line in batches.read_text().splitlines()}
    sizes = [int(line.split()[1]) for line in batches.read_text().splitlines()]
    assert len(workers) >= 2
    assert 1 < max(sizes) <= 32


@pytest.mark.ray
@pytest.mark.browser
def test_the_page_shows_a_stream(service, browser, tmp_path):
    lines = [json.dumps(frame) for frame in [*WALK.tolist(), None, [], *WALK.tolist()]]
    (tmp_path / "frames.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "again.jsonl").write_text("\n".join(lines * 4))
    (tmp_path / "bad.jsonl").write_text("[1, \n")
    page = browser.new_page()
    wrong = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"http://{service}/")
    blank = page.evaluate("document.querySelector('canvas').toDataURL()")
    page.set_input_files("#file", tmp_path / "frames.jsonl")
    page.wait_for_function("() => document.querySelector('#note').textContent === 'frame 75'")
    assert page.locator("#guesses li").count() == 3
    assert page.locator("#guesses li").first.inner_text().endswith("%")
    assert page.evaluate("document.querySelector('canvas').toDataURL()") != blank
    page.set_input_files("#file", tmp_path / "again.jsonl")
    page.wait_for_function("() => document.querySelector('#note').textContent !== 'frame 75'")
    page.set_input_files("#file", tmp_path / "bad.jsonl")
    page.wait_for_function("() => document.querySelector('#note').innerText.includes('JSON')")
    page.wait_for_timeout(2000)  # late answers on the other file do not replace this
    assert "JSON lines" in page.inner_text("#note")
    missing = [None, [0, None, 0], *WALK[0, 2:].tolist()]
    lines = ["[null]", "[null, null]", *[json.dumps(missing)] * 12, json.dumps([None, missing])]
    (tmp_path / "missing.jsonl").write_text("\n".join(lines) + "\n")
    page.set_input_files("#file", tmp_path / "missing.jsonl")
    page.wait_for_function("() => document.querySelector('#note').textContent === 'frame 15'")
    assert page.locator("#guesses li").count() == 3
    page.close()
    assert wrong == []


@pytest.mark.ray
@pytest.mark.browser
def test_the_player_controls_a_stream(service, browser, tmp_path):
    """Pausing, turning and slowing the figure do not stop the stream or its labels."""
    lines = [json.dumps(frame) for frame in WALK.tolist()] * 20
    (tmp_path / "frames.jsonl").write_text("\n".join(lines))
    page = browser.new_page()
    wrong = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"http://{service}/")
    assert page.locator("output").inner_text() == "0.0 of 0.0 s"
    page.set_input_files("#file", tmp_path / "frames.jsonl")
    times = "document.querySelector('output').textContent.split(' of ').map(parseFloat)"

    def wait(condition):
        page.wait_for_function(f"() => (([now, end]) => {condition})({times})")

    wait("end > 0.5 && end - now < 0.3")
    page.get_by_role("button", name="pause").click()
    now, end = page.evaluate(times)
    label = page.locator("#note").inner_text()
    wait(f"now === {now} && end > {end + 1}")
    assert page.locator("#note").inner_text() != label
    page.get_by_label("frame", exact=True).fill("0")
    page.locator("#stage").focus()
    page.keyboard.press("ArrowLeft")  # before the first frame there is none
    assert page.evaluate(times)[0] == 0
    picture = "document.querySelector('canvas').toDataURL()"
    still = page.evaluate(picture)
    box = page.locator("canvas").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 180, box["y"] + 120)
    page.mouse.up()
    assert page.evaluate(picture) != still  # the camera turned
    page.get_by_label("speed").select_option("0.25")
    page.get_by_role("button", name="play").click()
    wait("now > 0.2 && now < end / 2")
    page.get_by_label("speed").select_option("2")
    wait("end - now < 0.1")  # it has caught up, and waits for frames
    page.close()
    assert wrong == []


@pytest.mark.ray
@pytest.mark.bench
def test_a_thousand_requests(service, tiny_raw):
    bodies = [path.read_bytes() for path in sorted(tiny_raw.glob("*.skeleton"))]

    def timed(number):
        start = time.perf_counter()
        assert post(service, bodies[number % len(bodies)])[0] == 200
        return time.perf_counter() - start

    for num_clients in (1, 16):
        with ThreadPoolExecutor(num_clients) as clients:
            start = time.perf_counter()
            durations_ms = [1e3 * duration for duration in clients.map(timed, range(1000))]
            rate = 1000 / (time.perf_counter() - start)
        cuts = statistics.quantiles(durations_ms, n=100)
        print(
            f"\n1,000 requests, {num_clients} clients: {rate:.0f}/s, median {cuts[49]:.0f} ms, "
            f"95th percentile {cuts[94]:.0f} ms, 99th {cuts[98]:.0f} ms"
        )
