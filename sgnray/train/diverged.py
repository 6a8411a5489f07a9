"""What is told when the loss stops being a number: where it began, and what to try."""

from __future__ import annotations

from collections.abc import Sequence

from sgnray.config import Recipe
from sgnray.errors import Problem, SgnError

# A paper's batch is listed whole; of a larger one, this many.
_MAX_NAMES = 64


def explain_divergence(
    recipe: Recipe, *, epoch: int, step: int, num_steps: int, clip_names: Sequence[str]
) -> SgnError:
    """Return the error of a run whose loss is no longer finite.

    `epoch` and `step` are counted from 0: the first step of that epoch whose loss was not finite;
    `clip_names` are the clips of its whole batch, over all workers.
    """
    return SgnError(
        "the loss is no longer a finite number",
        where=f"epoch {epoch + 1}, step {step + 1} of {num_steps}",
        now=_what_to_try(recipe, is_first_step=epoch == 0 and step == 0),
        problems=[Problem(f"its {len(clip_names)} clips", _listed(clip_names))],
    )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _MAX_NAMES
    shown = ", ".join(names[:_MAX_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown


def _what_to_try(recipe: Recipe, *, is_first_step: bool) -> str:
    if is_first_step:
        # Nothing has been learnt yet: the weights are small, so the input is not.
        return "look for wild numbers in these clips, 'sgn data verify', or in the data keys"
    optim = recipe.optim
    advice = [f"a smaller optim.learning_rate than {optim.learning_rate:g}"]
    if recipe.train.precision == "bf16":
        advice.append("train.precision=float32")
    if optim.warmup_epochs == 0:
        advice.append("optim.warmup_epochs=5")
    return f"try {', or '.join(advice)}; 'sgn data verify' looks for wild numbers in the clips"
