"""The nano model: what it is, and where its files lie. A demonstration, trained on synthetic pictures.

Its latent is the residual: the UNet denoises ``SCALE * (z_H - z_L)``, so a sample is added to the encoded
LQ canvas. Full-size models work on the full latent, as in the paper; a model this small would spend
itself on copying the LQ.
"""

from __future__ import annotations

from pathlib import Path

from .guidance import GuidanceSpec, Site

FOLDER = Path(__file__).parent / "assets" / "nano"

UNET_FILE = "pgp-nano-unet.safetensors"
GUIDANCE_FILE = "pgp-nano-guidance.safetensors"
S1_FILE = "loras/pgp-nano-s1.safetensors"
CONTEXTS_FILE = "pgp-nano-contexts.safetensors"

#: The residual latent is multiplied by this, which gives it about unit variance.
SCALE = 12.0

#: SDXL's micro-conditioning, constant: original height and width, crop, target height and width.
TIME_IDS = (512.0, 512.0, 0.0, 0.0, 512.0, 512.0)

#: The UNet outputs the residual itself. To predict noise, or v, it would have to carry 48 channels of noise
#: through layers of 64; what it loses on the way stays on the picture as grain.
PREDICTION = "sample"

#: Timestep at which one step is made: there the UNet has learned to look at the LQ features alone.
S1_TIMESTEP = 999

#: Where the base takes the LQ in, before PEAM is added: beside the noisy latent, as FaithDiff does.
BASE_SITE = Site("conv_in", 64, 0, 4, "add")
PEAM_SITE = Site("down_blocks.0.downsamplers.0", 64, 2, 8, "peam")


def guidance_spec(peam: bool = True, **changes: object) -> GuidanceSpec:
    """Nano's guidance; without ``peam`` that of its base."""
    return GuidanceSpec(
        base="pgp-nano",
        sites=(BASE_SITE, PEAM_SITE) if peam else (BASE_SITE,),
        channels=(64, 64, 64, 64),
        unshuffle=4,
        input_range=(-2.0, 2.0),
        **changes,  # type: ignore[arg-type]
    )
