"""PGP-DiffSR for ComfyUI.

ComfyUI imports this folder as a module under its full path and calls :func:`comfy_entrypoint`. Outside
ComfyUI there is nothing here: the algorithms are in ``pgp_core``, which imports no ComfyUI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .nodes import PGPDiffSRExtension

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> PGPDiffSRExtension:
    """ComfyUI's V3 entry point; imported late, so that this module loads without ComfyUI."""
    from .nodes import PGPDiffSRExtension

    return PGPDiffSRExtension()


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
