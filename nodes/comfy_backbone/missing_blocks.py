"""LoRAs and merges of full SDXL on a pruned MODEL: what has no block is counted, and said in one line an action.

Core warns of every key: up to 2,350 lines for a LoRA, 940 for a merge. It has no hook for what a MODEL lacks on
purpose, so its two functions that find a LoRA's keys are wrapped when the first pruned MODEL is made. For every other
MODEL they do what they did.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import comfy.lora
import comfy.utils
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher

from ...pgp_core.unet.core_loading import loads_in_core
from .topology import info_in

log = logging.getLogger(__name__)

_PREFIX = "diffusion_model."
#: Attribute of a wrapped function of core's.
_WRAPPED = "_pgp_diffsr_wrapped"


def reporting(patcher: ModelPatcher) -> ModelPatcher:
    """Let a pruned MODEL, and its clones, tell of patches for removed blocks in one line."""
    _wrap(comfy.lora, "model_lora_keys_unet", _with_missing_names)
    _wrap(comfy.lora, "load_lora", _without_missing)
    patcher.__class__ = _reporting(type(patcher))
    return patcher


def missing(model: BaseModel) -> frozenset[str]:
    """Names of the weights that a MODEL's whole UNet has and it has not, as keys of patches.

    Args:
        model: core's BaseModel.
    """
    found: frozenset[str] | None = getattr(model, "_pgp_diffsr_missing", None)
    if found is None:
        # Core's configuration says the whole depths, whatever the plan.
        whole = {_PREFIX + name for name in comfy.utils.unet_to_diffusers(model.model_config.unet_config).values()}
        found = frozenset(k for k in whole - model.state_dict().keys() if ".transformer_blocks." in k)
        vars(model)["_pgp_diffsr_missing"] = found
    return found


def _said(gone: int, of: int, what: str = "patches") -> None:
    log.warning(
        "%d of %d %s are for transformer blocks that this pruned model does not have; the others are used",
        *(gone, of, what),
    )


# -- LoRAs ---------------------------------------------------------------------------------------------------


class _KeyMap(dict[Any, Any]):
    """Core's map from a LoRA's names to a MODEL's, with what the MODEL lacks."""

    lacks: frozenset[str] = frozenset()


def _with_missing_names(core: Callable[..., Any], model: BaseModel, *args: Any, **kwargs: Any) -> Any:
    """Core's ``model_lora_keys_unet``, which knows removed blocks by diffusers' names only, by LDM's too."""
    found = core(model, *args, **kwargs)
    info = info_in(model)
    if info is None or not info.plan.removed:
        return found
    out = _KeyMap(found)
    out.lacks = missing(model)
    for key in out.lacks:
        # As core does it for those that are there.
        if key.endswith(".weight"):
            stem = key.removesuffix(".weight")
            out[stem] = key
            out["lora_unet_" + stem.removeprefix(_PREFIX).replace(".", "_")] = key
        else:
            out[key] = key
    return out


def _without_missing(core: Callable[..., Any], lora: Any, to_load: Any, *args: Any, **kwargs: Any) -> Any:
    """Core's ``load_lora``, less the patches for removed blocks, which are counted."""
    found = core(lora, to_load, *args, **kwargs)
    lacks = getattr(to_load, "lacks", None)
    if not lacks:
        return found
    kept = {k: v for k, v in found.items() if (k if isinstance(k, str) else k[0]) not in lacks}
    if len(kept) < len(found):
        _said(len(found) - len(kept), sum(str(k if isinstance(k, str) else k[0]).startswith(_PREFIX) for k in found))
    return kept


def _wrap(module: Any, name: str, around: Callable[..., Any]) -> None:
    core = getattr(module, name)
    if hasattr(core, _WRAPPED):
        return

    @functools.wraps(core)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return around(core, *args, **kwargs)

    setattr(wrapper, _WRAPPED, core)
    setattr(module, name, wrapper)


# -- merges --------------------------------------------------------------------------------------------------


if TYPE_CHECKING:
    _Patcher = ModelPatcher
else:
    # Which one it is turns out when there is one.
    _Patcher = object


class _Reporting(_Patcher):
    """Mixed into whichever class of ModelPatcher core takes."""

    #: Keys of a merge that went nowhere, and all of them; merge nodes give them one by one.
    _pgp_gone, _pgp_given = 0, 0

    def add_patches(self, patches: Any, *args: Any, **kwargs: Any) -> Any:
        taken = super().add_patches(patches, *args, **kwargs)
        lost = self._lost(patches, taken)
        if len(patches) == 1:
            self._pgp_gone += len(lost)
            self._pgp_given += 1
        elif lost:
            _said(len(lost), len(patches))
        return [*taken, *lost]

    def add_hook_patches(self, hook: Any, patches: Any, *args: Any, **kwargs: Any) -> Any:
        taken = super().add_hook_patches(hook, patches, *args, **kwargs)
        lost = self._lost(patches, taken)
        if lost:
            _said(len(lost), len(patches))
        return [*taken, *lost]

    def get_key_patches(self, filter_prefix: Any = None) -> Any:
        # With a prefix it is asked by merge nodes: this MODEL is what is merged into another.
        gone = len(missing(self.model)) if filter_prefix is not None else 0
        found = super().get_key_patches(filter_prefix)
        if gone:
            log.warning(
                "the pruned model that is merged has %d of %d weights: the blocks that it lacks stay what they are in "
                "the other model",
                *(len(found), len(found) + gone),
            )
        return found

    def state_dict_for_saving(self, *args: Any, **kwargs: Any) -> Any:
        # Asked by core's nodes that save models; this pack's own asks for the UNet alone.
        info = self.model.model_config.info
        log.warning("a pruned model is saved by core. %s", loads_in_core(info))
        return super().state_dict_for_saving(*args, **kwargs)

    def clone(self, *args: Any, **kwargs: Any) -> Any:
        self._tell()
        return super().clone(*args, **kwargs)

    def model_patches_to(self, device: Any) -> Any:
        # The first thing that is done to a MODEL that is about to be used or saved.
        self._tell()
        return super().model_patches_to(device)

    def _tell(self) -> None:
        """Of a merge that is over: no one says when it is, but the MODEL is used after it."""
        if self._pgp_gone:
            _said(self._pgp_gone, self._pgp_given, "weights of a merge")
        self._pgp_gone, self._pgp_given = 0, 0

    def _lost(self, patches: Iterable[Any], taken: Iterable[Any]) -> list[Any]:
        lacks, known = missing(self.model), set(taken)
        return [k for k in patches if k not in known and (k if isinstance(k, str) else k[0]) in lacks]


#: One class for each of core's, so that clones have the same.
_CLASSES: dict[type, type] = {}


def _reporting(base: type) -> type:
    if base not in _CLASSES:
        _CLASSES[base] = type(base.__name__, (_Reporting, base), {})
    return _CLASSES[base]
