"""How much each searched key mattered: PED-ANOVA, from Optuna (extra `tune`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from sgnray.tune.space.sampler import as_parameter, distribution
from sgnray.tune.space.space import Space
from sgnray.tune.state.board import TrialRow

_FEWEST = 8  # below that it is mostly noise


def importances(rows: Sequence[TrialRow], space: Space) -> dict[str, float]:
    """Return each key's share of what made trials good, the largest first; they add up to 1.

    Of trials that went equally far only: those with the most epochs done. A key that some of them
    lack, since its condition did not hold, is left out. Empty where there are too few trials, or
    Optuna is missing: `explain_missing` says which.
    """
    most = max((row.num_epochs for row in rows), default=0)
    full = [row for row in rows if row.num_epochs == most and row.score is not None]
    if not space.axes or len(full) < _FEWEST or importlib.util.find_spec("optuna") is None:
        return {}
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    study = optuna.create_study(direction="maximize")
    for row in full:
        axes = {key: space.axes[key] for key in row.values}
        study.add_trial(
            optuna.trial.create_trial(
                value=row.score,
                params={key: as_parameter(axis, row.values[key]) for key, axis in axes.items()},
                distributions={key: distribution(axis) for key, axis in axes.items()},
            )
        )
    common = [key for key in space.axes if all(key in row.values for row in full)]
    found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), params=common)
    return {key: float(share) for key, share in found.items()}


def explain_missing(rows: Sequence[TrialRow], space: Space) -> str:
    """Say why no importance is told."""
    if not space.axes:
        return "a list of trials has no keys to weigh"
    if importlib.util.find_spec("optuna") is None:
        return "pip install 'sgnray[tune]' to see how much each key mattered"
    return f"fewer than {_FEWEST} trials ran to the end: too few to say how much each key mattered"
