"""`sgn bench` from the command line: tables, JSON, what it works on, and what it refuses."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from sgnray.bench.measure import Rate
from sgnray.bench.run import (
    BenchResult,
    Epoch,
    Estimate,
    Product,
    Speed,
    WorkersSpeed,
    Workload,
)
from sgnray.cli import render
from sgnray.cli.bench import tables_of

from ..conftest import TINY

pytestmark = pytest.mark.usefixtures("one_thread")


def rate(median, spread=0.02):
    return Rate(median, median * (1 - spread), median * (1 + spread), 7)


RESULT = BenchResult(
    workload=Workload(
        dataset="ntu60",
        case="cs",
        has_dataset=False,
        num_train=40091,
        num_validation=0,
        num_test=16487,
        batch_size=64,
        num_epochs=120,
        num_views=5,
        precision="float32",
        device="cpu (AVX512)",
        num_threads=2,
        num_parameters=691048,
        forward_flops=283_700_000,
        step_flops=851_100_000,
    ),
    data_clips_per_s=rate(123456.0),
    products=(Product("float32", 1024, 99.0e9), Product("bf16", 1024, 1.25e12)),
    speeds=(
        Speed("training step", "float32", rate(64.0), 54.4e9, 0.55),
        Speed("forward", "bf16", rate(1234.0), 350.1e9, 0.28),
    ),
    epoch=Epoch(rate(62.5, 0.1), Rate(0.031, 0.02, 0.04, 7)),
    workers=(
        WorkersSpeed(1, 2, "float32", rate(60.0), 1.0),
        WorkersSpeed(8, 1, "bf16", rate(9.5), 0.95),
    ),
    estimates=(Estimate(0, 3600.0, 42.0), Estimate(1, 86400.0, 7.25), Estimate(8, 5999.0, 3.0)),
)


def test_the_tables(capsys):
    render.result(*tables_of(RESULT))
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "recipe  ntu60 cs, 120 epochs in batches of 64, float32",
        "clips   40,091 for training, 16,487 for the test; no dataset, noise is used",
        "model   691,048 parameters",
        "a clip  284 MFLOP forward, 851 in a training step: matrix products, a",
        "        multiply-add as 2",
        "here    cpu (AVX512), 2 threads",
        "",
        "in this process               precision  clips/s  +-%        FLOP/s  of product",
        "\u2500" * 79,
        "data path                                123,456    2",
        "matrix product 1,024 x 1,024  float32                  99.0 GFLOP/s",
        "training step                 float32         64    2  54.4 GFLOP/s         55%",
        "matrix product 1,024 x 1,024  bf16                      1.2 TFLOP/s",
        "forward                       bf16         1,234    2   350 GFLOP/s         28%",
        "epoch                         float32         62   10",
        "",
        "3.1% of an epoch's time is outside of forward, backward and step",
        "(half of the 7 rounds: 2.0% to 4.0%)",
        "",
        "workers  threads each  precision  clips/s  +-%  per thread",
        "\u2500" * 58,
        "      1             2  float32         60    2        100%",
        "      8             1  bf16           9.5    2         95%",
        "",
        "the whole recipe     training  evaluation        total",
        "\u2500" * 54,
        "in this process        60 min        42 s       61 min",
        "1 worker          24 h 00 min       7.2 s  24 h 00 min",
        "8 workers          1 h 40 min       3.0 s   1 h 40 min",
    ]


def test_a_disturbed_measurement_shows_no_impossible_figures(capsys):
    epoch = Epoch(Rate(62.5, 60.0, 4900.0, 3), Rate(-1.689, -3.0, 0.04, 3))
    render.result(*tables_of(dataclasses.replace(RESULT, epoch=epoch)))
    lines = capsys.readouterr().out.splitlines()
    assert "epoch                         float32         62  >99" in map(str.rstrip, lines)
    first = next(number for number, line in enumerate(lines) if "an epoch's time" in line)
    assert "disturbed" in lines[first]
    assert not any("%" in line for line in lines[first : first + 2])
    assert max(map(len, lines)) <= 80


def test_a_dataset_in_tables_of_80_columns(sgn, tiny_folder):
    done = sgn("bench", "--case", "cv", "--data", str(tiny_folder), "--seconds", "1", *TINY)
    assert done.code == 0, done.err
    assert max(map(len, done.out.splitlines())) <= 80
    assert done.out.startswith("recipe  synth cv, 10 epochs in batches of 6")
    assert "clips   18 for training, 9 for the test" in done.out
    assert "noise" not in done.out
    assert "of an epoch's time" in done.out


def test_the_only_dataset_is_found_and_one_of_another_kind_is_not_used(sgn, tiny_folder, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "synth").symlink_to(tiny_folder)
    arguments = ("bench", "--seconds", "1", "--json", "--device", "cpu", *TINY)
    found = json.loads(sgn(*arguments).out)["workload"]
    assert (found["dataset"], found["case"], found["has_dataset"]) == ("synth", "cs", True)
    (tmp_path / "data" / "unrelated").mkdir()
    (tmp_path / "data" / "unrelated" / "dataset.json").write_text("{")  # it cannot be read
    other = json.loads(sgn(*arguments, "--recipe", "nwucla-cv").out)["workload"]
    assert (other["dataset"], other["has_dataset"], other["num_train"]) == ("nwucla", False, 1020)


@pytest.mark.parametrize(
    ("case", "dataset", "name"), [("xview", "ntu60", "cv"), ("csub", "ntu120", "csub")]
)
def test_noise_has_the_published_shape_of_the_case(sgn, case, dataset, name):
    done = sgn("bench", "--case", case, "--seconds", "1", "--json", "-q", *TINY)
    assert (done.code, done.err) == (0, "")
    content = json.loads(done.out)
    assert content["format_version"] == 3
    assert content["workers"] == []
    workload = content["workload"]
    assert (workload["dataset"], workload["case"]) == (dataset, name)
    assert workload["has_dataset"] is False


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--seconds", "0"], "--seconds: "),
        (["--workers", "-1"], "--workers: "),
        (["--data", "nowhere"], "dataset folder not found"),
        (["--recipe", "ntu60-xsub"], "recipe 'ntu60-xsub' not found"),
        (["--case", "cv", "--recipe", "ntu60-cs"], "--case and --recipe cannot be combined"),
        (["--case", "people"], "ntu60 has no case 'people'"),
        (["--recipe", "custom"], "the shape of the dataset custom is not known"),
        (["optim.batch_siz=3"], "the command line has 1 problem"),
        (["--workers", "65"], "a batch of 64 clips cannot be shared by 65 workers"),
    ],
)
def test_errors_are_one_block(sgn, arguments, what):
    done = sgn("bench", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: {what}")
    assert "\n  now    " in done.err


@pytest.mark.ray
@pytest.mark.slow
def test_one_and_two_workers():
    command = [sys.executable, "-m", "sgnray.cli", "bench", "--recipe", "synth-cv"]
    command += ["--workers", "2", "--seconds", "1", "--json", *TINY]
    done = subprocess.run(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert [row["num_workers"] for row in content["workers"]] == [1, 2]
    assert [row["num_workers"] for row in content["estimates"]] == [0, 1, 2]
    first, second = content["workers"]
    assert first["per_thread"] == 1.0
    assert second["threads_per_worker"] >= 1
    assert second["precision"] == content["workload"]["precision"]  # the same machine
