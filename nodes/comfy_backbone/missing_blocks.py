"""LoRAs for full SDXL on a pruned MODEL: what has no block is counted, and said once."""

from __future__ import annotations

import logging
from typing import Any

from ...pgp_core.topology import split_block

log = logging.getLogger(__name__)


def reporting(patcher: Any) -> Any:
    """Let a pruned MODEL, and its clones, tell of patches for removed blocks in one line.

    Core would warn of every key: several hundred lines for a LoRA of SDXL.
    """
    patcher.__class__ = _reporting(type(patcher))
    return patcher


class _Reporting:
    """Mixed into whichever class of ModelPatcher core takes."""

    def add_patches(self, patches: Any, *args: Any, **kwargs: Any) -> Any:
        taken = super().add_patches(patches, *args, **kwargs)  # type: ignore[misc]
        lost = [k for k in patches if k not in taken and self._removed(k if isinstance(k, str) else k[0])]
        if lost:
            log.warning(
                "%d of %d patches are for transformer blocks that this pruned model does not have; the others are used",
                *(len(lost), len(patches)),
            )
        return [*taken, *lost]

    def _removed(self, key: str) -> bool:
        """Whether a weight's block was pruned away."""
        block = split_block(key.removeprefix("diffusion_model."))
        if block is None:
            return False
        try:
            blocks = self.model.diffusion_model.get_submodule(f"{block[0]}.transformer_blocks")  # type: ignore[attr-defined]
        except AttributeError:
            return False
        return str(block[1]) not in blocks._modules


#: One class for each of core's, so that clones have the same.
_CLASSES: dict[type, type] = {}


def _reporting(base: type) -> type:
    if base not in _CLASSES:
        _CLASSES[base] = type(base.__name__, (_Reporting, base), {})
    return _CLASSES[base]
