"""Guidance: its files, and what acts on a MODEL while it is sampled."""

from __future__ import annotations

from .apply import KEY, apply_guidance, is_guided
from .loading import describe_guidance, load_guidance
from .patch import GuidancePatch, guidance_in

__all__ = ["KEY", "GuidancePatch", "apply_guidance", "describe_guidance", "guidance_in", "is_guided", "load_guidance"]
