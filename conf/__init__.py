"""Recipes, one per dataset and case."""
