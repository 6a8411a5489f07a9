"""Results as they are shown, character by character."""

from dataclasses import replace
from pathlib import Path

import pytest

from sgnray.cli import data_tables, render, tables
from sgnray.cli.training_table import TrainingLines
from sgnray.data.info import DatasetInfo
from sgnray.data.skeleton import KINECT20
from sgnray.evaluate import ClassScore, Confusion, EvaluatedModel, Report
from sgnray.prepare import PrepareResult, Skipped
from sgnray.train import EpochResult


def make_report(selection="last", epoch=120):
    return Report(
        evaluated=EvaluatedModel(
            checkpoint="runs/ntu60-cv-1a2b3c4d/checkpoints/epoch-0120/checkpoint.pt",
            dataset="ntu60",
            dataset_checksum="sha256:00",
            case="cv",
            selection=selection,
            epoch=epoch,
            num_views=5,
            turn_rad=0.0,
            num_parameters=691048,
        ),
        num_clips=18932,
        num_correct=17891,
        top1=0.945,
        top5=0.99,
        loss=0.25,
        per_class=(
            ClassScore("drink", 10, 0.5),
            ClassScore("eat", 1000, 0.9),
            ClassScore("never tested", 0, None),
        ),
        confused=(Confusion("drink", "eat", 5, 0.5),),
    )


def lines(parts, capsys):
    render.result(*parts)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_a_report(capsys):
    assert lines(tables.report(make_report()), capsys) == [
        "top-1  94.50%",
        "top-5  99.00%",
        "mean   70.00% over the classes",
        "loss   0.2500",
        "clips  18,932, the test part of ntu60 cv",
        "views  5 per clip, logits averaged",
        "model  691,048 parameters",
        "from   runs/ntu60-cv-1a2b3c4d/checkpoints/epoch-0120/checkpoint.pt",
        "epoch  120, the last epoch",
        "",
        "weakest classes  top-1  clips",
        "\u2500" * 29,
        "drink            50.0%     10",
        "eat              90.0%  1,000",
        "",
        "most confused  predicted as  clips  share",
        "\u2500" * 41,
        "drink          eat               5  50.0%",
    ]


def test_a_report_says_when_the_test_set_chose_the_epoch(capsys):
    text = " ".join(lines(tables.scores(make_report("test")), capsys))
    assert "ON THE TEST SET, so this score is too high" in " ".join(text.split())


def test_a_name_with_a_line_end_stays_in_its_row(capsys):
    table = tables.SafeTable("name", box=None)
    table.add_row("a\nb")
    render.result(table)
    assert capsys.readouterr().out.splitlines()[-1].strip() == "a\\nb"


def test_a_report_without_an_epoch(capsys):
    assert "epoch  the epoch that was best" in "\n".join(
        lines(tables.scores(make_report("validation", None)), capsys)
    )


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        (
            {"train/loss": 4.09434, "train/top1": 0.01667, "lr": 0.1, "speed/clips_per_s": 9.0},
            "epoch   7/120  loss 4.094  train   1.7%  lr 0.1  9 clips/s",
        ),
        (
            {
                "train/loss": 0.5,
                "train/top1": 1.0,
                "val/loss": 0.6,
                "val/top1": 0.875,
                "val/top5": 1.0,
                "lr": 1e-3,
                "time/epoch_s": 1.5,
                "speed/clips_per_s": 12345.6,
            },
            "epoch   7/120  loss 0.500  train 100.0%  val  87.5%  lr 0.001  12,346 clips/s",
        ),
    ],
)
def test_an_epoch_is_one_line(metrics, line, capsys):
    TrainingLines()(EpochResult(num_epochs=120, history=({},) * 6 + (metrics,)))
    assert capsys.readouterr().err == f"{line}\n"
    assert len(line) <= 80


def make_prepared(skipped=(), reused=False):
    info = DatasetInfo(
        format_version=1,
        dataset="nwucla",
        skeleton=KINECT20,
        class_names=("walk", "sit"),
        num_clips=1484,
        num_poses=58000,
        num_skipped=len(skipped),
        source={},
        checksum=f"sha256:{0:064}",
    )
    folder = Path("data/nwucla")
    return PrepareResult(folder, info, reused, tuple(skipped), {"cv": (1020, 464)})


def test_a_dataset(capsys):
    skipped = [Skipped("a.json", "is empty"), Skipped("b.json", "is empty")]
    assert lines(data_tables.prepared(make_prepared(skipped)), capsys) == [
        "nwucla: 1,484 clips, 58,000 poses, 2 classes: walk, sit; written: data/nwucla",
        "",
        "case  training clips  test clips",
        "\u2500" * 32,
        "cv             1,020         464",
        "",
        "left out because  files  for example",
        "\u2500" * 36,
        "is empty              2  a.json",
        "all files: data/nwucla/skipped.csv",
    ]
    assert lines(data_tables.prepared(make_prepared(reused=True)), capsys)[0].endswith(
        "already prepared: data/nwucla"
    )


def test_the_first_classes_of_a_dataset(capsys):
    prepared = make_prepared()
    info = prepared.info.model_copy(update={"class_names": tuple("abcdefg")})
    (headline, *_) = lines(data_tables.prepared(replace(prepared, info=info)), capsys)
    assert headline.endswith("7 classes: a, b, c, d, e, ...; written: data/nwucla")


def test_a_dataset_as_plain_data():
    content = data_tables.prepared_data(make_prepared([Skipped("a.json", "is empty")]))
    assert content["splits"] == {"cv": {"train": 1020, "test": 464}}
    assert content["skipped"] == [{"name": "a.json", "reason": "is empty"}]
    assert content["folder"] == "data/nwucla"
