"""What population-based training may search: only what a model half trained can change."""

from __future__ import annotations

from sgnray.checkpoints.checkpoint import build_model
from sgnray.config import Recipe
from sgnray.data.store import SkeletonDataset
from sgnray.errors import Problem, RecipeError, UsageError
from sgnray.tune.plan import Plan

# Part of the state that is handed on, or of how scores compare, without being a shape.
_FIXED = ("optim.optimizer", "train.ema_decay", "data.windows", "model.inputs")


def check_population(plan: Plan, dataset: SkeletonDataset) -> None:
    """Raise UsageError or RecipeError where a search cannot be population-based."""
    if plan.scheduler != "pbt":
        return
    if plan.num_workers > 1 or plan.space.rows:
        raise UsageError(
            "population-based training takes axes to draw from, and one worker per trial",
            where="--scheduler pbt",
            now="use --scheduler asha or none",
        )
    base = _shapes(plan.recipe, dataset)
    problems = [
        Problem(key, "changes what the model is made of, which cannot change half way")
        for key, axis in plan.space.axes.items()
        if key in _FIXED
        or any(_shapes(plan.recipe_of({key: end}), dataset) != base for end in axis.extremes())
    ]
    if plan.space.conditions:
        problems += [
            Problem(key, "has a condition, and PBT knows none") for key in plan.space.conditions
        ]
    if problems:
        raise RecipeError(
            f"the search space {plan.space.source} cannot be searched by PBT",
            where=plan.space.source,
            now="leave these keys out in a space of your own, or use --scheduler asha",
            problems=problems,
        )


def _shapes(recipe: Recipe, dataset: SkeletonDataset) -> dict[str, tuple[int, ...]]:
    model = build_model(recipe, dataset.skeleton, len(dataset.info.class_names))
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}
