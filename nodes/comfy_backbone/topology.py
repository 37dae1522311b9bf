"""What is known of a MODEL's UNet: how its modules are named, what its file said, and which topology it has."""

from __future__ import annotations

from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher

from ...pgp_core.errors import CheckpointError
from ...pgp_core.unet.inspect import UNetInfo
from ...pgp_core.unet.recognise import topology_of as recognised
from ...pgp_core.unet.topology import KeyMap, Topology


def names_of(model: ModelPatcher) -> KeyMap:
    """Names of a MODEL's UNet in both schemes: numbers go by the residual blocks of a level."""
    levels = getattr(model.model.diffusion_model, "num_res_blocks", None)
    return KeyMap(levels[0]) if levels else KeyMap()


def info_of(model: ModelPatcher) -> UNetInfo | None:
    """What this pack's loader found in a MODEL's file; None where another loaded it."""
    return info_in(model.model)


def info_in(base: BaseModel) -> UNetInfo | None:
    """The same of what a MODEL and its clones share."""
    # Core's configurations warn of what they are asked for and do not have.
    info = getattr(base.model_config, "__dict__", {}).get("info")
    return info if isinstance(info, UNetInfo) else None


def topology_of(model: ModelPatcher, stacks: dict[str, tuple[int, ...]]) -> Topology | None:
    """The topology that a MODEL's UNet has or was pruned from; None where it is none that is known.

    Args:
        stacks: see :func:`.blocks.blocks_of`.
    """
    info = info_of(model)
    if info is not None:
        return info.shape.topology
    # Not the input's channels, of which inpainting models have more.
    channels = getattr(model.model.diffusion_model, "out_channels", None)
    try:
        return recognised(stacks, names_of(model).resnets, channels) if isinstance(channels, int) else None
    except CheckpointError:
        return None
