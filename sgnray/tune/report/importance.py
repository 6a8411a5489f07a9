"""The importance of each searched key: PED-ANOVA, from Optuna (extra `tune`)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from sgnray.tune.space.sampler import make_study, optuna_trial
from sgnray.tune.space.space import Space
from sgnray.tune.state.trials import TrialRow, comparable

_FEWEST = 8  # below that it is mostly noise


def importances(rows: Sequence[TrialRow], space: Space) -> dict[str, float]:
    """Return the importance of each key as a share, the largest first; the sum is 1.

    Only trials with the most epochs count. A key that some of them lack, because its condition did
    not hold, is left out. Empty with too few trials or without Optuna: see `explain_missing`.
    """
    full = comparable(rows)
    if not space.axes or len(full) < _FEWEST or importlib.util.find_spec("optuna") is None:
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    study = make_study()
    for row in full:
        study.add_trial(optuna_trial(space, row.values, row.score))
    common = [key for key in space.axes if all(key in row.values for row in full)]
    found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), params=common)
    return {key: float(share) for key, share in found.items()}


def explain_missing(space: Space) -> str:
    """Explain why the importance of keys is unknown."""
    if not space.axes:
        return "the importance of keys cannot be computed for a list of trials"
    if importlib.util.find_spec("optuna") is None:
        return "pip install 'sgnray[tune]' to see the importance of each key"
    return (
        f"fewer than {_FEWEST} trials ran to the end: too few to compute the importance of each key"
    )
