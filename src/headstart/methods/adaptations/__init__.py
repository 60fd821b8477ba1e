"""Recipes of deep domain adaptation: each a function of the task's loss that returns phases. Sums of terms need none: `joint`."""

from headstart.methods.adaptations.recipe import AdaptationRecipe, LossOf, RecipeOf, joint, source_only

__all__ = ["AdaptationRecipe", "LossOf", "RecipeOf", "joint", "source_only"]
