"""How many workers a run asks for: a number, or a range that may grow and shrink."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sgnray.errors import UsageError

_OPTION = "--workers"
_TEXT = re.compile(r"([0-9]{1,6})(?::([0-9]{1,6}))?")


@dataclass(frozen=True)
class Workers:
    """From `fewest` to `most` workers; both are 0 for this process, without Ray."""

    fewest: int
    most: int

    @classmethod
    def of(cls, wanted: int | tuple[int, int]) -> Workers:
        """Convert a number, or a range (fewest, most); UsageError if it is invalid."""
        fewest, most = wanted if isinstance(wanted, tuple) else (wanted, wanted)
        if fewest < 0 or most < fewest:
            raise _refused(f"{fewest}:{most}" if isinstance(wanted, tuple) else str(wanted))
        if fewest == 0 and most > 0:
            raise UsageError(
                "a run in this process cannot grow to Ray workers",
                where=f"{_OPTION} 0:{most}",
                now=f"ask for {_OPTION} 1:{most}",
            )
        return cls(fewest, most)

    @property
    def is_elastic(self) -> bool:
        """Whether the number may change during the run."""
        return self.fewest < self.most

    def __str__(self) -> str:
        return f"{self.fewest}:{self.most}" if self.is_elastic else str(self.most)


def parse_workers(text: str) -> int | tuple[int, int]:
    """Read N or MIN:MAX; UsageError for anything else."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise _refused(text)
    wanted = int(found[1]) if found[2] is None else (int(found[1]), int(found[2]))
    Workers.of(wanted)
    return wanted


def _refused(text: str) -> UsageError:
    return UsageError(
        f"invalid number of workers: '{text}'",
        where=_OPTION,
        now=f"give a number like {_OPTION} 8, or a range like {_OPTION} 1:8 that grows and shrinks "
        "with the cluster",
    )
