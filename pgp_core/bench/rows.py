"""What is compared: the rows of the table, and the UNet of each."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import PGPError
from ..guidance.module import Guidance, GuidanceSpec
from ..guidance.on_diffusers import guided
from ..restorers.finding import family_of_unet
from ..restorers.nano.family import NANO
from ..restorers.sdxl.family import SDXL
from ..unet.model import UNet
from ..unet.plan import PrunePlan, load_plan
from ..unet.prune import prune_state_dict
from ..unet.shape import UNetShape
from .weights import fill


@dataclass(frozen=True)
class Row:
    """One row of the table: a plan (None: unpruned), and what guides the UNet (None: nothing)."""

    name: str
    plan: PrunePlan | None = None
    guidance: GuidanceSpec | None = None


def _of_sdxl() -> tuple[GuidanceSpec, GuidanceSpec, str]:
    from ..guidance.faithdiff import guidance_spec

    return guidance_spec(), GuidanceSpec(), "pgp-sdxl"


def _of_nano() -> tuple[GuidanceSpec, GuidanceSpec, str]:
    from ..restorers.nano import model as nano

    both = nano.guidance_spec()
    return nano.guidance_spec(None), GuidanceSpec(**{**both.__dict__, "sites": (nano.PEAM_SITE,)}), NANO.name


#: What is compared of a topology: the base's guidance, PEAM's, and the name of the fine plan.
COMPARED = {SDXL.name: _of_sdxl, NANO.name: _of_nano}


def rows_of(shape: UNetShape) -> tuple[Row, ...]:
    """full, faithdiff, coarse, fine, fine+peam of a UNet.

    For nano ``faithdiff`` is its base, which takes the LQ in at the same place, by addition.

    Raises:
        PGPError: if there is no such comparison for the shape.
    """
    topology = shape.topology.name
    if topology not in COMPARED:
        raise PGPError(f"there is nothing to compare for {topology}; {' and '.join(COMPARED)} are known")
    base, peam, fine = COMPARED[topology]()
    return (
        Row("full"),
        Row("faithdiff", guidance=base),
        Row("coarse", load_plan(f"{fine}-coarse")),
        Row("fine", load_plan(fine)),
        Row("fine+peam", load_plan(fine), peam),
    )


@dataclass
class StepGuidance:
    """A guidance with random weights, of which only the layers that run at each UNet call have memory.

    What is computed once per picture (LQ adapter, LQ encoder, the alignment's embedding) is no part of a step:
    it stays on the meta device, and noise stands in for its features.
    """

    guidance: Guidance
    features: tuple[torch.Tensor, ...]
    params: int

    @classmethod
    def make(
        cls, spec: GuidanceSpec, canvas: tuple[int, int], device: torch.device | str, dtype: torch.dtype
    ) -> StepGuidance:
        """Build it for an LQ canvas of ``(height, width)`` pixels."""
        guidance = Guidance(spec, device="meta", dtype=dtype).eval()
        ran: list[torch.nn.Module] = []
        hooks = [
            m.register_forward_hook(lambda module, _inputs, _output: ran.append(module))
            for m in guidance.modules()
            if not any(m.children())
        ]
        with torch.no_grad(), torch.device("meta"):
            shapes = guidance.features(torch.empty(1, 3, *canvas, dtype=dtype))
            ran.clear()
            for site, f in enumerate(shapes):
                guidance.fuse(site, torch.empty(f.shape, dtype=dtype), f)
        for hook in hooks:
            hook.remove()
        for module in ran:
            fill(module, device)
        noise = torch.Generator().manual_seed(1)
        features = tuple(torch.randn(f.shape, generator=noise).to(device, dtype) for f in shapes)
        return cls(guidance, features, sum(p.numel() for m in ran for p in m.parameters()))


class Net:
    """One row's UNet, ready to be called again and again with the same inputs.

    Args:
        row: which.
        shape: of the unpruned UNet.
        weights: of the unpruned UNet, or of any that holds the row's blocks. They are shared, not copied, so
            all rows together take the memory of one.
        inputs: of the UNet, see :func:`make_inputs`.
        latent: side of the latent.
        compiled: through ``torch.compile``.

    Attributes:
        unet_params: of the UNet.
        params: of what runs in a step: the UNet, and of its guidance the part that every call needs.
        weights_bytes: of the same.
    """

    def __init__(
        self,
        row: Row,
        shape: UNetShape,
        weights: Mapping[str, torch.Tensor],
        inputs: Mapping[str, Any],
        latent: int,
        compiled: bool = False,
    ):
        self.row = row
        self.inputs = inputs
        x = inputs["sample"]
        with torch.device("meta"):
            self.unet: Any = UNet(shape, row.plan)
        own = prune_state_dict(dict(weights), row.plan) if row.plan else weights
        self.unet.load_state_dict(own, assign=True)
        self.unet.requires_grad_(False).eval()
        self.guide: StepGuidance | None = None
        self.unet_params = self.params = sum(p.numel() for p in self.unet.parameters())
        self._hooks = ExitStack()
        if row.guidance:
            side = latent * family_of_unet(shape.topology.name).factor
            self.guide = StepGuidance.make(row.guidance, (side, side), x.device, x.dtype)
            self._hooks.enter_context(guided(self.unet, self.guide.guidance, self.guide.features))
            self.params += self.guide.params
        self.weights_bytes = self.params * x.dtype.itemsize
        self._call: Any = torch.compile(self.unet) if compiled else self.unet

    @torch.inference_mode()
    def step(self) -> torch.Tensor:
        """One UNet call: ``(B, C, N, N)``."""
        return self._call(**self.inputs, return_dict=False)[0]


def make_weights(shape: UNetShape, device: torch.device | str, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Random weights of the unpruned UNet, diffusers' keys."""
    with torch.device("meta"):
        unet = UNet(shape).to(dtype)
    return fill(unet, device).state_dict()


def make_inputs(
    shape: UNetShape, latent: int, batch: int, device: torch.device | str, dtype: torch.dtype
) -> dict[str, Any]:
    """Noise as latent and text (77 tokens), SDXL's micro-conditioning for the canvas, a middle timestep."""
    noise = torch.Generator().manual_seed(2)

    def randn(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=noise).to(device, dtype)

    side = float(latent * family_of_unet(shape.topology.name).factor)
    ids = torch.tensor([[side, side, 0.0, 0.0, side, side]], device=device, dtype=dtype).repeat(batch, 1)
    return {
        "sample": randn(batch, shape.latent_channels, latent, latent),
        "timestep": torch.full((batch,), 501.0, device=device),
        "encoder_hidden_states": randn(batch, 77, shape.context_dim),
        "added_cond_kwargs": {"text_embeds": randn(batch, shape.pooled_dim), "time_ids": ids},
    }
