"""Guidance on a MODEL that runs other blocks than it was trained with."""

from __future__ import annotations

import logging

from comfy.model_patcher import ModelPatcher

from ...pgp_core.errors import PGPError
from ...pgp_core.guidance.fits import other_plan
from .blocks import running
from .guidance import guidance_in

log = logging.getLogger(__name__)


def other_plan_note(model: ModelPatcher) -> str:
    """What to say of a MODEL's guidance and plan, which is logged too; empty where nothing is."""
    patch = guidance_in(model.model_options.get("transformer_options", {}))
    if patch is None:
        return ""
    try:
        runs = running(model)
    except PGPError:
        # Another pack's network, of which nothing is known.
        return ""
    note = other_plan(patch.patcher.model.spec, runs)
    if note is None:
        return ""
    log.warning("guidance: %s", note)
    return f"Guidance: {note}."
