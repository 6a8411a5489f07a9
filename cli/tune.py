"""`sgn tune`: search hyperparameters on the validation part of the training clips."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.text import Text

from sgnray.errors import count_of

from . import options, render
from .choices import choose_dataset, choose_recipe
from .tables import SafeTable, clean, duration, make_table
from .training_table import shown_epochs

if TYPE_CHECKING:
    from sgnray.train import RunResult
    from sgnray.tune import TrialResources, TrialRow, TuneResult

_MAX_ROWS, _MAX_FAILURES = 20, 5
_MAX_KEYS = 6  # this many fit into 80 columns
_BEST_SHOWN, _ROWS_BESIDES = 5, 5
_BEST = "bold green"


def tune(
    overrides: options.Overrides = None,
    case: options.Case = None,
    recipe: options.RecipeName = None,
    space: Annotated[
        str,
        typer.Option(metavar="NAME|FILE", help="Search space: a shipped one, or a .yaml file."),
    ] = "default",
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            metavar="N",
            help="Trials to run. Default: 16; all points of a grid.",
        ),
    ] = None,
    search: Annotated[
        Literal["random", "grid", "tpe"] | None,
        typer.Option(
            metavar="random|grid|tpe",
            help="How values are chosen. Default: as in the search space.",
        ),
    ] = None,
    scheduler: Annotated[
        Literal["asha", "none"] | None,
        typer.Option(
            metavar="asha|none",
            help="asha stops bad trials early. Default: asha; none for a grid.",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Epochs per trial, at most. Default: 12."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, metavar="N", help="Seeds per trial; the score is their mean.")
    ] = 1,
    time_budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Stop after this time: 90s, 45m, 8h."),
    ] = None,
    concurrent: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Trials at the same time. Default: as many as fit."),
    ] = None,
    cpus_per_trial: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="CPUs for each trial. Default: a share; on a cluster with GPUs, 1 per worker.",
        ),
    ] = None,
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(
            min=0.0, metavar="X", help="GPUs for each trial, such as 0.25. Default: 1 if any."
        ),
    ] = None,
    workers_per_trial: Annotated[
        int, typer.Option(min=1, metavar="N", help="DDP workers of each trial.")
    ] = 1,
    accelerator_type: options.AcceleratorType = None,
    label: options.Labels = None,
    wait: options.Wait = None,
    final: Annotated[
        bool,
        typer.Option(
            "--final", help="Then train the best trial on all training clips, and test it."
        ),
    ] = False,
    data: options.Data = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Folder of this search under --runs. Default: from the recipe."
        ),
    ] = None,
    runs: options.Runs = "runs",
    address: options.Address = None,
    json: options.Json = False,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
) -> None:
    """Search hyperparameters with Ray Tune.

    Trials are compared on a validation part of the training clips, never on the test set; the
    best one is written as best.yaml, for sgn train --recipe. Rerun an interrupted command to
    resume it.
    """
    budget_s = None if time_budget is None else options.parse_duration(time_budget, "--time-budget")
    request = options.worker_request(gpu_type=accelerator_type, labels=label, wait=wait)
    chosen = choose_recipe(case, recipe, overrides or (), data=data, default_case="first")
    if case is None and recipe is None:
        render.note(f"searching with the case {chosen.data.case}; --case selects another")
    dataset_dir = choose_dataset(data, name=chosen.data.dataset)

    from sgnray.storage.mirror import display_name, quoted_name
    from sgnray.tune import TrialResources, tune_recipe

    resources = TrialResources(
        num_workers=workers_per_trial,
        num_cpus=cpus_per_trial,
        num_gpus=gpus_per_trial,
        concurrent=concurrent,
        request=request,
    )
    with shown_search() as listener:
        tuned = tune_recipe(
            chosen,
            space,
            dataset_dir,
            num_trials=trials,
            search=search,
            scheduler=scheduler,
            num_epochs=epochs,
            num_seeds=seeds,
            time_budget_s=budget_s,
            resources=resources,
            runs_dir=runs,
            name=name,
            address=address,
            listener=listener,
        )
    finished = None
    try:
        if final:
            finished = _train_final(tuned, dataset_dir, resources, address)
    finally:  # the result of the search is shown also if the final training fails
        if json:
            render.as_json(result_data(tuned, finished), version=1)
        else:
            render.result(*result_tables(tuned))
    if json:
        return
    if finished is not None:
        render.result(final_line(finished))
    train_best = f"; train the best: sgn train --recipe {quoted_name(tuned.best_recipe_path)}"
    train_best += f" --data {shlex.quote(data)}" if data else ""
    render.note(f"see {display_name(tuned.page_path)}{'' if final else train_best}")


def _train_final(
    tuned: TuneResult,
    dataset_dir: Path,
    resources: TrialResources,
    address: str | None,
) -> RunResult:
    from sgnray.tune import final_settings, train_final

    settings = final_settings(resources, address)
    with shown_epochs(str(settings["workers"] or "")) as screen:
        return train_final(
            tuned,
            dataset_dir,
            **settings,
            command=options.command_line(),
            on_epoch=screen,
            on_progress=screen.on_progress,
        )


@contextmanager
def shown_search() -> Iterator[SearchTable]:
    """Show a search: a live table on a terminal, else each ended trial as one line."""
    board = SearchTable()
    display = Live(board, console=render.stderr(), vertical_overflow="crop", transient=True)
    with render.live(display) as is_live:
        board.is_live = is_live
        yield board


class SearchTable:
    """Draws the running trials and the best ones in the current size of the terminal."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_live = True
        self._clock = clock
        self._started_at = clock()
        self._rows: Sequence[TrialRow] = ()
        self._num_trials = self._num_epochs = 0
        self._first_done: int | None = None
        self._lines = render.lines_of_progress(
            "epochs of all trials", interval_s=render.LONG_INTERVAL_S
        )

    def on_update(self, rows: Sequence[TrialRow], num_trials: int, num_epochs: int) -> None:
        """Update the table with all trials started so far."""
        self._rows, self._num_trials, self._num_epochs = rows, num_trials, num_epochs
        if self._first_done is None:  # epochs of an earlier command do not count for the pace
            self._first_done = self._done()
        if not self.is_live:
            self._lines(self._done(), num_trials * num_epochs)

    def on_trial_end(self, row: TrialRow) -> None:
        """Print a trial; on a terminal only if it failed, since the table shows the others."""
        if row.error is not None or not self.is_live:
            render.note(trial_line(row))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the table."""
        from sgnray.tune.trials import best_first

        room = max(0, console.size.height - _ROWS_BESIDES)
        best = best_first(self._rows)[: min(_BEST_SHOWN, room)]
        running = [row for row in self._rows if row.status == "running"][: room - len(best)]
        lines: list[RenderableType] = []
        if best:
            lines.append(Text("best so far", style="bold"))
            lines += [self._line(row, _BEST if not i else "") for i, row in enumerate(best)]
        if running:
            lines.append(Text("running", style="bold"))
            lines += [self._line(row, "") for row in running]
        yield Group(*lines, Text(self._summary(), no_wrap=True, overflow="ellipsis"))

    def _line(self, row: TrialRow, style: str) -> Text:
        score = "     -" if row.score is None else f"{row.score:6.1%}"
        epochs = f"{row.num_epochs:>{len(str(self._num_epochs))}}/{self._num_epochs}"
        line = f"{row.number:>5}  {score}  {epochs}  {changes(row)}"
        return Text(clean(line), style=style, no_wrap=True, overflow="ellipsis")

    def _summary(self) -> str:
        if not self._num_trials:
            return "starting"
        count: Counter[str] = Counter(row.status for row in self._rows)
        ended = sum(row.has_ended for row in self._rows)
        parts = [f"{ended} of {self._num_trials} trials"]
        statuses = ("running", "stopped", "failed")
        parts += [f"{count[status]} {status}" for status in statuses if count[status]]
        left_s = self._left_s()
        if left_s is not None:
            parts.append(f"at most {duration(left_s)} left")
        return ", ".join(parts)

    def _done(self) -> int:
        return sum(row.num_epochs for row in self._rows)

    def _left_s(self) -> float | None:
        """Estimate the seconds left from the pace so far; early stopping shortens them."""
        done = self._done() - (self._first_done or 0)
        if done <= 0:
            return None
        waiting = self._num_trials - len(self._rows)
        missing = sum(self._num_epochs - row.num_epochs for row in self._rows if not row.has_ended)
        epoch_s = (self._clock() - self._started_at) / done
        return (missing + waiting * self._num_epochs) * epoch_s


def result_tables(tuned: TuneResult) -> list[RenderableType]:
    """Return the trials of a search, best first, the importances, and the best score."""
    parts: list[RenderableType] = [ranking(tuned.ranked, tuple(tuned.plan.space.axes))]
    if len(tuned.trials) > _MAX_ROWS:
        parts.append(f"and {len(tuned.trials) - _MAX_ROWS} more in trials.csv")
    if any(trial.status == "stopped" for trial in tuned.trials):
        parts.append("cut: stopped early, because others were better")
    parts += ["", *_failures(tuned)]
    if tuned.importances:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in tuned.importances.items())
        parts.append(f"importance: {shares}")
    spread = "" if tuned.best.spread is None else f" ± {tuned.best.spread:.2%} over seeds"
    score = f"best: trial {tuned.best.number}, {tuned.best.score or 0:.2%}{spread}"
    return [*parts, f"{score} on the validation part"]


def ranking(trials: tuple[TrialRow, ...], keys: tuple[str, ...]) -> SafeTable:
    """Return a table of the first trials, in their order, with columns for a few keys."""
    is_wide = not 0 < len(keys) <= _MAX_KEYS
    names = [key.rpartition(".")[2].replace("_", "\n") + ">" for key in keys]
    columns = ("#>", "val\ntop-1>", "epochs>", "time>", *(["changes"] if is_wide else names))
    table = make_table(*columns, gap=0)
    for trial in trials[:_MAX_ROWS]:
        score = trial.status if trial.score is None else f"{trial.score:.2%}"
        mark = {"stopped": " cut", "interrupted": " …"}.get(trial.status, "")
        values = [changes(trial)] if is_wide else [_value(trial.values.get(key)) for key in keys]
        figures = [str(trial.number), score, f"{trial.num_epochs}{mark}"]
        table.add_row(*figures, duration(trial.duration_s), *values)
    return table


def result_data(tuned: TuneResult, finished: RunResult | None = None) -> dict[str, Any]:
    """Return what `result_tables` shows and the final run, for programs."""
    from sgnray.storage.mirror import display_name

    content = {
        "folder": display_name(tuned.folder),
        "best_trial": tuned.best.number,
        "best_score": tuned.best.score,
        "best_overrides": list(tuned.best_overrides),
        "best_recipe": display_name(tuned.best_recipe_path),
        "importances": tuned.importances,
        "trials": [asdict(trial) for trial in tuned.trials],
    }
    if finished is not None:
        run, report = display_name(finished.folder), finished.report.to_dict()
        content["final"] = {"run": run, "report": report}
    return content


def final_line(finished: RunResult) -> str:
    """Describe the test result of the best recipe."""
    from sgnray.storage.mirror import display_name

    report = finished.report
    return (
        f"test: {report.top1:.2%} of {report.num_clips:,} clips, after training on all training "
        f"clips; run {display_name(finished.folder)}"
    )


def trial_line(trial: TrialRow) -> str:
    """Describe one trial of a search in a line."""
    score = trial.status if trial.score is None else f"val {trial.score:6.1%}"
    line = (
        f"trial {trial.number:>3}  {score}  {count_of(trial.num_epochs, 'epoch')}  {changes(trial)}"
    )
    return line.rstrip() if trial.error is None else f"{line.rstrip()}\n  {trial.error}"


def changes(trial: TrialRow) -> str:
    """Summarize what a trial changes."""
    if not trial.values:
        return "unchanged"
    return " ".join(f"{key.rpartition('.')[2]}={_value(v)}" for key, v in trial.values.items())


def _failures(tuned: TuneResult) -> list[RenderableType]:
    failed = [trial for trial in tuned.trials if trial.status == "failed"]
    lines: list[RenderableType] = [
        f"trial {trial.number} failed: {trial.error}" for trial in failed[:_MAX_FAILURES]
    ]
    if len(failed) > _MAX_FAILURES:
        lines.append(f"and {len(failed) - _MAX_FAILURES} more failed; see trials.csv")
    return [*lines, ""] if lines else []


def _value(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.2g}" if isinstance(value, float) else str(value)
