"""What is measured: a model as a user gives it, and how it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...restorers.given import Given

if TYPE_CHECKING:
    from ...restorers.recipe import Recipe
    from ...restorers.restorer import Restorer
    from ...sampling.options import SampleOptions


@dataclass(frozen=True)
class Task:
    """One row.

    Attributes:
        name: of the row.
        given: of the model.
        settings: fields of :class:`pgp_core.restorers.recipe.Recipe` that the user says.
        options: of :meth:`pgp_core.restorers.recipe.Recipe.options`, beside the recipe's.
    """

    name: str
    given: Given
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def decided(self, restorer: Restorer) -> tuple[Recipe, SampleOptions]:
        """How a model that is loaded is used: its own recipe, unless the user says otherwise."""
        from ...restorers.recipe import decide

        said = {k: v for k, v in self.settings.items() if k != "steps" or not restorer.recipe.one_step}
        recipe = decide(restorer.recipe, said)
        return recipe, recipe.options(**self.options)
