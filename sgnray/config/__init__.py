"""Recipes: typed, frozen, complete."""

from sgnray.config.recipe import (
    Recipe,
    Values,
    as_overrides,
    dump_recipe,
    list_recipes,
    load_recipe,
    parse_recipe,
    recipe_for,
    recipe_hash,
    to_dict,
)
from sgnray.config.schema import (
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    OptimConfig,
    TrainConfig,
)

__all__ = [
    "DataConfig",
    "EvaluateConfig",
    "ModelConfig",
    "OptimConfig",
    "Recipe",
    "TrainConfig",
    "Values",
    "as_overrides",
    "dump_recipe",
    "list_recipes",
    "load_recipe",
    "parse_recipe",
    "recipe_for",
    "recipe_hash",
    "to_dict",
]
