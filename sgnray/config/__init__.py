"""Recipes: typed, frozen, complete."""

from sgnray.config.recipe import (
    Recipe,
    dotted_values,
    dump_recipe,
    list_recipes,
    load_recipe,
    parse_recipe,
    recipe_for,
    recipe_hash,
    to_dict,
)
from sgnray.config.schema import DataConfig, ModelConfig, OptimConfig

__all__ = [
    "DataConfig",
    "ModelConfig",
    "OptimConfig",
    "Recipe",
    "dotted_values",
    "dump_recipe",
    "list_recipes",
    "load_recipe",
    "parse_recipe",
    "recipe_for",
    "recipe_hash",
    "to_dict",
]
