"""Every error that a user can cause, and helpers for their messages.

SgnError                  it failed; exit 1
    UsageError            a wrong path, flag, case or name; exit 2
        RecipeError       a recipe, an override or a search space with problems
        MissingExtraError an optional package that is not installed
    InputError            raw input, or a dataset, that cannot be used
        ClipError         one raw clip refused; its reason goes to skipped.csv
        EmptyError        raw data of which no clip can be used
    CheckpointError       a checkpoint that is not ours or does not fit
        CorruptError         a checkpoint that is cut off; the one before it may be usable
    RunError              a run folder that belongs to something else, or is in use
    ClusterError          Ray does not answer, or lacks the requested resources
    OutputError           a full disk, a folder that cannot be written or is in use
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType


@dataclass(frozen=True)
class Problem:
    """One of several things wrong with one input: `where` is a key, a line or a file."""

    where: str
    what: str


class SgnError(Exception):
    """A failure that the user can understand: what is wrong, where, and what to do now."""

    exit_code = 1

    def __init__(
        self, what: str, *, where: str, now: str, problems: Sequence[Problem] = ()
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.now = now
        self.problems = tuple(problems)

    def __str__(self) -> str:
        rows = [f"{problem.where}: {problem.what}" for problem in self.problems]
        return "; ".join([f"{self.what} ({self.where})", *rows, self.now])

    def __reduce__(self) -> tuple[Callable[..., SgnError], tuple[str]]:
        # Errors cross process borders on their way from a Ray worker to the terminal.
        kind = partial(type(self), where=self.where, now=self.now, problems=self.problems)
        return kind, (self.what,)


class UsageError(SgnError):
    """The command has a wrong path, flag, case or name."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe, an override or a search space has problems; all of them are listed."""


class MissingExtraError(UsageError):
    """A feature needs an optional package that is not installed."""


class InputError(SgnError):
    """Raw input, or a dataset, cannot be used."""


class ClipError(InputError):
    """One raw clip is refused; the others are still used."""


class EmptyError(InputError):
    """No clip of the raw data can be used."""


class CheckpointError(SgnError):
    """A checkpoint is not ours, or does not fit what it is used with."""


class CorruptError(CheckpointError):
    """A checkpoint is cut off or damaged; the one before it may be complete."""


class RunError(SgnError):
    """A run folder belongs to another recipe or dataset, or is in use."""


class ClusterError(SgnError):
    """Ray does not answer, or the cluster lacks the requested resources."""


class OutputError(SgnError):
    """Something could not be written; what was there before is unchanged."""


def import_extra(module: str, *, extra: str) -> ModuleType:
    """Import an optional module, or raise MissingExtraError naming the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"this needs the package {module.split('.')[0]}, which is not installed",
            where=f"extra '{extra}'",
            now=f"pip install 'sgnray[{extra}]'",
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message; its class if it has no message."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def last_line(error: BaseException) -> str:
    """Return the last line of an exception's message; its class if it has no message."""
    text = str(error).strip()
    return text.splitlines()[-1] if text else type(error).__name__


def count_of(number: float, noun: str) -> str:
    """Return a number with its noun: "1 epoch" or "2 epochs"."""
    return f"{number:,.12g} {noun}{'' if number == 1 else 's'}"


def check_count(number: int | None, noun: str, *, option: str) -> None:
    """Raise UsageError for a number below 1; None is the default."""
    if number is not None and number < 1:
        raise UsageError(
            f"invalid number of {noun}s: {number}",
            where=option,
            now=f"ask for one {noun} or more, for example {option} 5",
        )


def show_first(names: Sequence[str]) -> str:
    """Return the first of some names, and how many others there are: "a, and 2 others"."""
    others = f", and {count_of(len(names) - 1, 'other')}" if len(names) > 1 else ""
    return f"{names[0]}{others}"


def count_problems(problems: Sequence[object]) -> str:
    """Return "1 problem" or "N problems"."""
    return count_of(len(problems), "problem")


def shorten_problems(problems: Sequence[Problem]) -> list[Problem]:
    """Keep the first ten problems, and say how many more there are."""
    rest = [Problem("and", f"{len(problems) - 10:,} more")] if len(problems) > 10 else []
    return [*problems[:10], *rest]
