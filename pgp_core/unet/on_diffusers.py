"""diffusers' UNet as our backbone: building it, pruned or full, and hooking guidance into it.

Nodes never need it: diffusers is imported when something is called, here as everywhere in this package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import GuidanceError
from ..files.checkpoints import check_same
from ..files.weights import WeightsFile
from ..guidance.module import Guidance
from .inspect import UNetInfo
from .plan import PrunePlan
from .prune import prune_module
from .shape import UNetShape
from .topology import KeyMap, scheme_of


def build_unet(shape: UNetShape, plan: PrunePlan | None = None) -> torch.nn.Module:
    """A diffusers ``UNet2DConditionModel`` on the current default device, randomly initialised.

    Args:
        shape: see :class:`UNetShape`.
        plan: applied after building; block numbers keep their gaps. Build under ``torch.device("meta")``
            when weights are to be assigned.
    """
    from diffusers import UNet2DConditionModel

    depth = shape.topology.depths
    level_1, level_2 = depth["down_blocks.1.attentions.0"], depth["down_blocks.2.attentions.0"]
    unet: Any = UNet2DConditionModel(
        in_channels=shape.latent_channels,
        out_channels=shape.latent_channels,
        block_out_channels=shape.channels,
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, level_1, level_2),
        # diffusers calls the number of heads "attention_head_dim" here; see its own SDXL configuration.
        attention_head_dim=tuple(c // shape.head_dim for c in shape.channels),
        cross_attention_dim=shape.context_dim,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=shape.adm_dim,
    )
    return prune_module(unet, plan) if plan else unet


def load_unet(
    shape: UNetShape, plan: PrunePlan | None, state_dict: Mapping[str, torch.Tensor], source: str = "this file"
) -> torch.nn.Module:
    """A diffusers UNet with the weights of a file in either scheme, without allocating it twice.

    Raises:
        CheckpointError: naming the first few missing, foreign or misshapen keys.
        PlanError: if the plan does not fit the shape.
    """
    weights = dict(state_dict)
    if scheme_of(weights) == "ldm":
        names = KeyMap.of(weights)
        weights = {names.to_diffusers(k): v for k, v in weights.items()}
    with torch.device("meta"):
        unet = build_unet(shape, plan)
    check_same({k: tuple(v.shape) for k, v in unet.state_dict().items()}, weights, source)
    unet.load_state_dict(weights, assign=True)
    return unet.eval()


def check_whole(info: UNetInfo, file: WeightsFile, plan: PrunePlan | None = None) -> None:
    """Whether a file has every weight of its UNet, by diffusers' own account of it. No weight is read.

    Args:
        plan: whose removed blocks may be missing; None wants all blocks.

    Raises:
        CheckpointError: naming the first few missing, foreign or misshapen keys.
    """
    with torch.device("meta"):
        expected = {k: tuple(v.shape) for k, v in build_unet(info.shape, plan).state_dict().items()}
        found = {info.diffusers(k): torch.empty(file.shapes[k]) for k in info.keys}
    check_same(expected, found, file.name)


class Reached(Exception):  # noqa: N818 - not an error: it ends a UNet call early
    """Raised out of a guided UNet call that was asked to stop at a site.

    Attributes:
        features: the UNet's own there, ``(B, C, H, W)`` in the dtype in which the site computes.
    """

    def __init__(self, features: torch.Tensor):
        super().__init__("the UNet has come to the site")
        self.features = features


class _Run:
    """What the hooks read during one guided stretch; filled by :func:`guided`."""

    def __init__(self, strength: float, exchange: bool):
        self.strength = strength
        self.exchange = exchange


@contextmanager
def guided(
    unet: torch.nn.Module,
    guidance: Guidance,
    features: Sequence[torch.Tensor],
    strength: float = 1.0,
    exchange: bool = True,
    phased: Mapping[int, torch.Tensor] | None = None,
    stop: int | None = None,
) -> Iterator[_Run]:
    """Hook guidance into a diffusers UNet for the duration of a ``with`` block.

    The hook sits on the site's module, so the skip connection takes the fused features too.

    Args:
        features: from :meth:`Guidance.features`; batch 1 or the batch of the UNet call. A call with k times
            the batch (CFG) has them repeated k times.
        strength: may be changed on the yielded object between calls (the sampling range).
        phased: of sites whose phase exchange has been made already, see :meth:`Guidance.fuse`.
        stop: the site at which a UNet call ends with :class:`Reached`.

    Raises:
        GuidanceError: if the UNet has no such site.
        Reached: out of a UNet call inside the block, with ``stop``.
    """
    run = _Run(strength, exchange)

    def hook(site: int) -> Any:
        def fuse(_module: Any, _inputs: Any, h: torch.Tensor) -> torch.Tensor:
            f = features[site].to(h.device)
            if f.shape[0] != 1 and h.shape[0] % f.shape[0] == 0:
                f = f.repeat(h.shape[0] // f.shape[0], 1, 1, 1)
            # A PEAM stays in float32 where the UNet is in half precision, which its convolutions overflow.
            own = h.to(guidance.dtype_at(site, f))
            if site == stop:
                raise Reached(own)
            made = (phased or {}).get(site)
            return guidance.fuse(site, own, f, run.strength, run.exchange, made).to(h.dtype)

        return fuse

    handles = []
    try:
        for i, site in enumerate(guidance.spec.sites):
            try:
                module = unet.get_submodule(site.module)
            except AttributeError:
                raise GuidanceError(f"this UNet has no {site.module}, where the guidance works") from None
            handles.append(module.register_forward_hook(hook(i)))
        yield run
    finally:
        for handle in handles:
            handle.remove()
