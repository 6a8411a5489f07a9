"""The page of a search: its pictures, its texts, and which keys matter most."""

import io
import re
from html.parser import HTMLParser

import matplotlib.image
import optuna
import pytest

from sgnray.train.tracking.plot_style import new_figure
from sgnray.tune.folder import claim_search
from sgnray.tune.page import compute_importances, explain_missing, write_page
from sgnray.tune.plots import _draw_history, draw_pictures, frontier
from sgnray.tune.space import Choice, Range, Space
from sgnray.tune.trials import TrialRow, best_of

SPACE = Space(
    "mine",
    {
        "optim.learning_rate": Range("log_uniform", 1e-3, 1e-1),
        "data.num_segments": Choice((4, 6)),
        "model.dropout": Range("uniform", 0.0, 0.5),
        "optim.warmup_epochs": Range("integer", 0, 5),
    },
)


def make_rows(count):
    return [
        TrialRow(
            number,
            "finished" if number % 3 else "stopped",
            {
                "optim.learning_rate": 0.001 * number,
                "data.num_segments": (4, 6)[number % 2],
                "model.dropout": 0.5 / number,
            },
            (0.3, 0.3 + number / 100)[: 2 if number % 3 else 1],
            flops=1000 * (number % 4 + 1),
        )
        for number in range(1, count + 1)
    ]


def test_plots_are_drawn_only_with_enough_trials():
    assert set(draw_pictures([], SPACE, {})) == set()
    assert set(draw_pictures(make_rows(1), SPACE, {})) == {"history"}
    named = draw_pictures(make_rows(9), SPACE, {"optim.learning_rate": 0.7, "x": 0.3})
    assert set(named) == {"history", "parallel", "frontier", "importance"}
    for png in named.values():
        image = matplotlib.image.imread(io.BytesIO(png), format="png")
        assert image.shape[1] > image.shape[0] > 300
        assert image[..., :3].std() > 0.02  # not an empty sheet


def test_the_frontier_contains_trials_that_no_cheaper_one_beats():
    def row(number, flops, score):
        return TrialRow(number, "finished", {}, (score,), flops=flops)

    rows = [row(1, 10, 0.5), row(2, 10, 0.6), row(3, 20, 0.55), row(4, 30, 0.7), row(5, 40, 0.7)]
    assert [each.number for each in frontier(rows)] == [2, 4]


class Page(HTMLParser):
    """Collects what a browser would show, and what it would load."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.cells.append(data.strip())


NASTY = '<script>alert("1")</script>&{{ best }}{% x %}'


@pytest.fixture
def page(tmp_path, make_plan):
    rows = (
        TrialRow(1, "finished", {"data.windows": NASTY}, (0.25, 0.5), 0.01, 2.0, 7, 9, NASTY),
        TrialRow(2, "failed", {"data.windows": "even"}, error=NASTY),
    )
    plan = make_plan(space=Space(NASTY, {"data.windows": Choice((NASTY, "even"))}))
    with claim_search(tmp_path, "mine", plan) as folder:
        write_page(folder, rows, best_of(rows), {})
    return (folder.path / "search.html").read_text()


def test_every_text_on_the_page_is_escaped(page):
    shown = Page(page)
    assert shown.tags.count("script") == 1
    assert shown.cells.count(NASTY) == 3  # a value, a host, an error
    assert f"data.windows={NASTY}" in shown.cells


def test_the_page_needs_nothing_else(page):
    shown = Page(page)
    assert shown.links
    assert all(link.startswith("data:image/png;base64,") for link in shown.links)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "50.00%" in page


@pytest.mark.parametrize(
    ("statuses", "text"),
    [
        (("finished", "finished"), "all ran to the end"),
        (("finished", "failed"), "not all ran to the end"),
        (("finished", "interrupted"), "not all ran to the end"),
        (("finished", "stopped", "failed"), "ASHA stopped the worse ones early"),
    ],
)
@pytest.mark.parametrize("scheduler", ["asha", "none"])
def test_the_page_says_how_the_trials_ended(tmp_path, make_plan, scheduler, statuses, text):
    values = {"optim.learning_rate": 0.01, "data.num_segments": 4}
    rows = tuple(
        TrialRow(number, each, values, (number / 10,)) for number, each in enumerate(statuses, 1)
    )
    with claim_search(tmp_path, "mine", make_plan(scheduler=scheduler)) as folder:
        write_page(folder, rows, best_of(rows), {})
    assert f"the schedule in proportion; {text}</dd>" in (folder.path / "search.html").read_text()


def test_a_trial_that_was_interrupted_was_not_stopped_early():
    axes = new_figure((4.0, 4.0), dpi=50, h_pad=0.1).subplots()
    rows = [TrialRow(1, "finished", {}, (0.5,)), TrialRow(2, "interrupted", {}, (0.4,))]
    _draw_history(axes, rows)
    assert axes.get_legend_handles_labels()[1][1:] == ["ran to the end", "not finished"]


DROPOUT_SPACE = Space(
    "mine", {"model.dropout": Range("uniform", 0.0, 1.0), "optim.decay": Choice((0.1, 0.2))}
)


def make_dropout_rows(count):
    """The score depends on the dropout only."""
    return [
        TrialRow(
            number,
            "finished",
            {"model.dropout": number / count, "optim.decay": (0.1, 0.2)[number // 2 % 2]},
            (0.2, number / count),
        )
        for number in range(1, count + 1)
    ]


def test_the_key_that_determines_the_score_is_most_important():
    optuna.logging.set_verbosity(optuna.logging.INFO)  # as it is after the import
    found = compute_importances(
        [*make_dropout_rows(40), TrialRow(41, "stopped", {"model.dropout": 0.0}, (0.1,))],
        DROPOUT_SPACE,
    )
    assert list(found) == ["model.dropout", "optim.decay"]
    assert found["model.dropout"] > 0.8
    assert sum(found.values()) == pytest.approx(1.0)
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING  # else it logs each study


def test_few_trials_have_no_importances():
    assert compute_importances(make_dropout_rows(5), DROPOUT_SPACE) == {}
    assert explain_missing(DROPOUT_SPACE).startswith("fewer than 8 trials")
    rows = Space("mine", rows=({}, {"model.dropout": 0.1}))
    assert compute_importances(make_dropout_rows(9), rows) == {}
