"""report.html in a real browser: hovering, sorting, playing, narrow and dark, with evil names."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sgnray.data.skeleton import NTU25
from sgnray.data.store import open_dataset
from sgnray.evaluate.analysis import calibrate, find_mistakes, score_groups
from sgnray.evaluate.metrics import Tally
from sgnray.evaluate.report import Cost, Details, EvaluatedModel, Member, make_report
from sgnray.evaluate.write import choose_played, page_of

pytestmark = pytest.mark.browser

EVIL = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
)


@pytest.fixture(scope="module")
def page_file(write_dataset, tmp_path_factory):
    """A report on 40 clips of three classes with evil names, half of them wrong."""
    folder = tmp_path_factory.mktemp("report")
    random = np.random.default_rng(0)
    clips = [
        {
            "name": f"clip-{index:02} {EVIL[index % 3]}",
            "label": index % 3,
            "camera": 1 + index % 2,
            "poses": random.normal(size=(20 + index, 25, 3)),
        }
        for index in range(40)
    ]
    dataset = open_dataset(write_dataset(folder / "data", clips, skeleton=NTU25, num_classes=3))
    dataset = dataclasses.replace(
        dataset, info=dataset.info.model_copy(update={"class_names": EVIL})
    )
    rows = np.arange(40)
    labels = torch.from_numpy(dataset.clips.labels[rows])
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(1)) * 2
    tally = Tally.of(logits, labels)
    details = Details(
        dataset_dir=f"data/{EVIL[0]}",
        members=tuple(
            Member(f"runs/{EVIL[2]}/{seed}.pt", "last", 120, seed, 20, 0.5) for seed in (0, 1)
        ),
        mean_top1=0.5,
        std_top1=0.01,
        num_seen=7,
        calibration=calibrate(logits, labels),
        groups=score_groups(logits.argmax(dim=1) == labels, dataset, rows),
        top1_by_views=(0.5, 0.52, 0.53),
        cost=Cost(10**9, 0.02, "cpu", 2),
        confusion_KK=tuple(map(tuple, tally.confusion_KK.tolist())),
        mistakes=find_mistakes(logits, labels, dataset, rows),
    )
    evaluated = EvaluatedModel(EVIL[1], "mine", "sha256:0", "cv", "test", 120, 5, 0.0, 691048)
    report = make_report(evaluated, tally, EVIL, details)
    (folder / "report.html").write_text(page_of(report, dataset), encoding="utf-8")
    one_view = dataclasses.replace(details, top1_by_views=(0.5,))
    one = page_of(dataclasses.replace(report, details=one_view), dataset)
    (folder / "one.html").write_text(one, encoding="utf-8")
    return folder / "report.html", report


def test_names_are_shown_as_text_and_not_as_html(open_page, page_file):
    path, report = page_file
    page = open_page(path)
    assert page.locator(".score").inner_text() == f"{report.top1:.2%}"
    for name in EVIL:
        assert page.get_by_text(name).count() > 0
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2


def test_warnings_name_test_set_selection_and_training_clips(open_page, page_file):
    shown = open_page(page_file[0]).locator(".warning").all_inner_texts()
    assert "selected on these test clips" in shown[0]
    assert shown[1].startswith("7 of these clips were in the training part")


def test_a_confusion_cell_shows_its_counts(open_page, page_file):
    path, report = page_file
    page = open_page(path)
    matrix = page.locator("#matrix")
    box = matrix.bounding_box()
    matrix.hover(position={"x": box["width"] * 5 / 6, "y": box["height"] / 6})
    count, total = report.details.confusion_KK[0][2], sum(report.details.confusion_KK[0])
    shown = page.locator("#cell").inner_text()
    assert shown.startswith(f"“{EVIL[0]}” taken for “{EVIL[2]}”: {count} of {total} clips")
    matrix.press("ArrowLeft")
    assert f"taken for “{EVIL[1]}”" in page.locator("#cell").inner_text()
    matrix.press("Enter")
    assert page.locator("#list button").count() == report.details.confusion_KK[0][1]
    page.get_by_role("button", name="show all").click()
    assert page.locator("#list button").count() == len(report.details.mistakes)


def test_classes_are_sorted(open_page, page_file):
    page = open_page(page_file[0])
    table = page.locator("table.sortable")
    head = table.locator("th", has_text="top-1")
    for order in ("ascending", "descending"):
        head.locator("button").focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == order
        shares = [
            float(cell.rstrip("%")) for cell in table.locator("td:nth-child(3)").all_inner_texts()
        ]
        assert shares == sorted(shares, reverse=order == "descending")
        assert len(set(shares)) > 1


def test_a_class_without_clips_comes_last_either_way(open_page, page_file):
    page = open_page(page_file[0])
    table = page.locator("table.sortable")
    table.locator("td:nth-child(3)").nth(1).evaluate("cell => { cell.textContent = ''; }")
    button = table.locator("th", has_text="top-1").locator("button")
    for _ in ("ascending", "descending"):
        button.click()
        shares = table.locator("td:nth-child(3)").all_inner_texts()
        assert shares[-1] == ""
        assert "" not in shares[:-1]


def test_charts_are_given_in_numbers_too(open_page, page_file):
    page = open_page(page_file[0])
    tables = page.locator("details")
    tables.nth(0).locator("summary").click()
    assert tables.nth(0).locator("td").all_inner_texts()[-2:] == ["3", "53.00%"]
    tables.nth(1).locator("summary").click()
    clips = tables.nth(1).locator("td:nth-child(2)").all_inner_texts()
    assert sum(map(int, clips)) == 40


def test_printed_tables_keep_their_headers(open_page, page_file):
    page = open_page(page_file[0])
    page.emulate_media(media="print")
    assert page.locator("table.sortable th button").first.is_visible()
    assert not page.locator("#list").is_visible()


def test_a_mistake_is_played(open_page, page_file):
    page = open_page(page_file[0])
    page.locator("#list button").nth(3).click()
    assert page.locator("#list button").nth(3).get_attribute("aria-pressed") == "true"
    drawn = "document.querySelector('#stage canvas').toDataURL()"
    before = page.evaluate(drawn)
    page.locator("#stage").get_by_role("button", name="play").click()
    page.wait_for_function(f"before => {drawn} !== before", arg=before, timeout=300_000)
    page.locator("#stage").get_by_role("button", name="pause").click()


@pytest.mark.parametrize("width", [360, 390, 1200])
def test_nothing_is_wider_than_the_screen(open_page, page_file, width):
    page = open_page(page_file[0], width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_light_and_dark(open_page, page_file):
    colors = {
        scheme: open_page(page_file[0], scheme=scheme).evaluate(
            "getComputedStyle(document.body).backgroundColor"
        )
        for scheme in ("light", "dark")
    }
    assert colors == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 27)"}


def test_playable_mistakes_include_every_kind(page_file):
    mistakes = page_file[1].details.mistakes
    many = [
        dataclasses.replace(item, row=n * 1000 + item.row) for n in range(20) for item in mistakes
    ]
    played = choose_played(many)
    assert len(played) == 120
    kinds = {(item.truth, item.predicted) for item in mistakes}
    assert {(item.truth, item.predicted) for item in played[: len(kinds)]} == kinds


def test_a_single_view_still_has_a_chart(open_page, page_file):
    chart = open_page(page_file[0].with_name("one.html")).locator("svg").first
    assert chart.locator("circle").count() == 1
    assert chart.locator("circle title").text_content() == "1 view: 50.00%"
