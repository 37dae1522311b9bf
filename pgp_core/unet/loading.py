"""Weights of a file in a UNet for inference, and whether a file has them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ..files.checkpoints import check_same
from ..files.weights import WeightsFile
from .inspect import UNetInfo
from .model import UNet
from .plan import PrunePlan
from .shape import UNetShape
from .topology import KeyMap, scheme_of

#: Makes a UNet of a shape, less what a plan removes.
Build = Callable[[UNetShape, PrunePlan | None], torch.nn.Module]

#: Attribute of a UNet that keeps what it was built from.
_SHAPE = "_pgp_diffsr_shape"


def load_unet(
    shape: UNetShape,
    plan: PrunePlan | None,
    state_dict: Mapping[str, torch.Tensor],
    source: str = "this file",
    build: Build = UNet,
) -> torch.nn.Module:
    """A UNet with the weights of a file in either scheme, without allocating it twice.

    Args:
        build: our own class, or :func:`pgp_core.unet.on_diffusers.build_unet` for what is to be trained.

    Raises:
        CheckpointError: naming the first few missing, foreign or misshapen keys.
        PlanError: if the plan does not fit the shape.
    """
    weights = dict(state_dict)
    if scheme_of(weights) == "ldm":
        names = KeyMap.of(weights)
        weights = {names.to_diffusers(k): v for k, v in weights.items()}
    with torch.device("meta"):
        unet = build(shape, plan)
    check_same({k: tuple(v.shape) for k, v in unet.state_dict().items()}, weights, source)
    unet.load_state_dict(weights, assign=True)
    vars(unet)[_SHAPE] = shape
    return unet.eval()


def built_shape(unet: torch.nn.Module) -> UNetShape:
    """The shape of the unpruned UNet from which :func:`load_unet` made one: of a pruned one, blocks do not say it."""
    shape = vars(unet)[_SHAPE]
    assert isinstance(shape, UNetShape)
    return shape


def check_whole(info: UNetInfo, file: WeightsFile, plan: PrunePlan | None = None) -> None:
    """Whether a file has every weight of its UNet. No weight is read.

    Args:
        plan: whose removed blocks may be missing; None wants all blocks.

    Raises:
        CheckpointError: naming the first few missing, foreign or misshapen keys.
    """
    with torch.device("meta"):
        expected = {k: tuple(v.shape) for k, v in UNet(info.shape, plan).state_dict().items()}
        found = {info.diffusers(k): torch.empty(file.shapes[k]) for k in info.keys}
    check_same(expected, found, file.name)
