"""What early stopping would have saved: ASHA's rule replayed over trials that ran to their end."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from sgnray.tune.state.board import TrialRow, rank

_FEWEST = 6  # with fewer, one trial more or less is all there is to say


@dataclass(frozen=True)
class Savings:
    """Epochs that ASHA would have done of all that were done, and the score of its best trial."""

    num_epochs: int
    num_epochs_asha: int
    best_score: float
    best_score_asha: float

    @property
    def share(self) -> float:
        """Share of the epochs that would have been spared."""
        return 1 - self.num_epochs_asha / self.num_epochs


def replay_asha(
    rows: Sequence[TrialRow], num_epochs: int, grace_epochs: int, at_once: int
) -> Savings | None:
    """Replay Ray's ASHA over full curves, `at_once` trials taking turns by the epoch.

    None where too few trials ran to the end for it to mean anything.
    """
    full = [row for row in rows if row.status == "finished"]
    if len(full) < _FEWEST or num_epochs <= grace_epochs:
        return None
    from sgnray.tune.ray.scheduler import Asha

    asha = Asha(num_epochs, grace_epochs)
    waiting = deque(full)
    running = deque(waiting.popleft() for _ in range(min(at_once, len(full))))
    done = dict.fromkeys((row.number for row in full), 0)
    while running:
        row = running.popleft()
        done[row.number] += 1
        epoch = done[row.number]
        if asha.goes_on(row.number, epoch, row.scores[epoch - 1]) and epoch < num_epochs:
            running.append(row)
        elif waiting:
            running.append(waiting.popleft())
    kept = [row for row in full if done[row.number] >= num_epochs]
    return Savings(
        num_epochs=num_epochs * len(full),
        num_epochs_asha=sum(done.values()),
        best_score=rank(full)[0].scores[-1],
        best_score_asha=rank(kept)[0].scores[-1] if kept else 0.0,
    )
