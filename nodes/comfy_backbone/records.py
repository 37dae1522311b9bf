"""Which family of restorers a MODEL is of, and what its file says: what nodes ask before they act."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import comfy.latent_formats
from comfy.model_patcher import ModelPatcher

from ...pgp_core.guidance.module import Guidance
from ...pgp_core.restorers.family import Family
from ...pgp_core.restorers.finding import FAMILIES, family_of_unet
from ...pgp_core.restorers.nano.family import NANO
from ...pgp_core.restorers.nano.model import own_cfg
from ...pgp_core.restorers.recipe import Recipe
from ...pgp_core.unet.known import SDXL
from .nano_latent import NanoLatent

#: Of core's attachments to a MODEL, which its clones share.
_KEY = "pgp_diffsr_family"
#: Latents of families that are not those of core's model class.
_LATENTS: dict[str, type[comfy.latent_formats.LatentFormat]] = {NANO.name: NanoLatent}


@dataclass(frozen=True)
class Record:
    """What is known of a MODEL.

    Attributes:
        family: whose it is.
        said: what its file says of its recipe.
    """

    family: Family
    said: Mapping[str, Any] = field(default_factory=dict)

    def recipe(self, one_step: bool, **user: Any) -> Recipe:
        """How it is used: the family's recipe, unless the file or the user says otherwise."""
        # What a file says of CFG is said of steps.
        said = {k: v for k, v in self.said.items() if not (one_step and k == "cfg")}
        return self.family.recipe(one_step, said, user)


def latent_format(family: Family) -> comfy.latent_formats.LatentFormat | None:
    """The family's own, or None for that of core's model class."""
    made = _LATENTS.get(family.name)
    return None if made is None else made()


def mark(model: ModelPatcher, record: Record) -> None:
    """Let a MODEL carry its record."""
    model.set_attachments(_KEY, record)


def bundled_record() -> Record:
    """Of the model that comes with the pack."""
    return Record(NANO, {"cfg": own_cfg()})


def record_of(model: ModelPatcher, guidance: Guidance | None = None) -> Record:
    """The record that a MODEL carries, or what follows from core's class for it. A MODEL of which nothing is known is
    used as any SDXL model is; what cannot work with it is refused by what it does.

    Args:
        guidance: that will be applied to it.
    """
    carried = model.get_attachment(_KEY)
    if not isinstance(carried, Record):
        classes = {cls.__name__ for cls in type(model.model).__mro__}
        family = next((f for f in reversed(FAMILIES) if classes & set(f.core)), None)
        carried = Record(family or family_of_unet(SDXL.name))
    return guided(carried, guidance) if isinstance(guidance, Guidance) else carried


def guided(record: Record, guidance: Guidance) -> Record:
    """The record of a MODEL with guidance."""
    return Record(family_of_unet(record.family.topologies[0], frozenset(guidance.spec.parts)), record.said)
