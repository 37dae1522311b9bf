"""The models of part 3 with random weights at their true size, a row each: what users would load, without a file.

A new family is one function here and one line of :data:`FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch


@dataclass(frozen=True)
class Made:
    """A model, and its modules by what they are called in a table."""

    restorer: Any
    modules: Mapping[str, torch.nn.Module]


Make = Callable[[torch.device, torch.dtype, bool], Made]


def nano(device: torch.device, dtype: torch.dtype, tiny: bool) -> Made:
    """The bundled model in one step: its real weights are there."""
    from pgp_core.restorers.nano.restorer import NanoRestorer

    made = NanoRestorer.load(one_step=True, device=device, dtype=dtype)
    return Made(made, {"unet": made.unet, "guidance": made.guidance})


def sdxl_shape(tiny: bool) -> Any:
    """SDXL's own; tiny: at the least width that its 64 channels a head allow."""
    from pgp_core.unet.known import SDXL_SHAPE

    return replace(SDXL_SHAPE, channels=(64, 64, 64), context_dim=32, pooled_dim=32) if tiny else SDXL_SHAPE


def sdxl_s1(device: torch.device, dtype: torch.dtype, tiny: bool) -> Made:
    """PGP-DiffSR in one step: the pruned SDXL with adapter and PEAM, between SDXL's VAE."""
    from pgp_core.bench.rows import make_weights
    from pgp_core.bench.weights import fill
    from pgp_core.codecs.vae import VAE
    from pgp_core.guidance.fresh import fresh_spec
    from pgp_core.guidance.module import Guidance
    from pgp_core.restorers.sdxl.family import recipe_for
    from pgp_core.restorers.sdxl.loading import Prompt
    from pgp_core.restorers.sdxl.restorer import SDXLRestorer
    from pgp_core.unet.loading import load_unet
    from pgp_core.unet.plan import load_plan
    from pgp_core.unet.prune import prune_state_dict

    shape = sdxl_shape(tiny)
    plan = load_plan("pgp-sdxl")
    unet = load_unet(shape, plan, prune_state_dict(make_weights(shape, device, dtype), plan)).requires_grad_(False)
    with torch.device("meta"):
        guidance = Guidance(fresh_spec(shape.channels[0]))
    # As users' files are read: all of it in float32, whatever the UNet has.
    fill(guidance, device)
    vae = VAE(fill(_vae(tiny), device))
    g = torch.Generator().manual_seed(0)
    tokens, pooled = torch.randn(1, 77, shape.context_dim, generator=g), torch.randn(1, shape.pooled_dim, generator=g)
    prompt = Prompt([[tokens, {"pooled_output": pooled}]], "the prompt")
    recipe = recipe_for(one_step=True, guided=True)
    made = SDXLRestorer(unet, vae, prompt, None, recipe, guidance.eval(), "pgp-sdxl-s1")
    return Made(made, {"unet": unet, "guidance": guidance, "vae": vae.module})


def _vae(tiny: bool) -> torch.nn.Module:
    """SDXL's, on the meta device."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(32, 32, 32, 32) if tiny else (128, 256, 512, 512),
            layers_per_block=2,
            sample_size=1024,
        )


#: Later: S3Diff, OSEDiff, PiSA-SR, AdcSR.
FAMILIES: Mapping[str, Make] = {"nano, one step": nano, "PGP-DiffSR (SDXL), one step": sdxl_s1}
