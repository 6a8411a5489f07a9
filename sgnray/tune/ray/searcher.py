"""What Ray asks for the next trial."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from sgnray.metric_keys import VAL_TOP1

NextTrial = Callable[[], dict[str, Any] | None]


class Proposals(Searcher):  # type: ignore[misc]
    """Hands on the trials that the search proposes, until there are no more.

    How they end the search hears from Ray's callbacks, and keeps in its own record: what Ray
    would save of this object stays empty.
    """

    def __init__(self, next_trial: NextTrial) -> None:
        super().__init__(metric=VAL_TOP1, mode="max")
        self._next_trial = next_trial

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the configuration of a new trial."""
        return self._next_trial() or str(Searcher.FINISHED)

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        """Learn nothing here."""

    def save(self, *_: Any, **__: Any) -> None:
        """Save nothing."""

    def restore(self, *_: Any, **__: Any) -> None:
        """Restore nothing."""

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out: the search's files and locks cannot travel, and need not."""
        return {}
