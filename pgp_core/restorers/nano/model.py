"""The nano model: what it is, and where its files lie. A demonstration, trained on synthetic pictures.

Its latent is the residual: the UNet denoises ``SCALE * (z_H - z_L)``, so a sample is added to the encoded
LQ canvas. Full-size models work on the full latent, as in the paper; a model this small would spend
itself on copying the LQ.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...errors import CheckpointError
from ...files.json_format import loads
from ...files.weights import open_weights
from ...guidance.module import GuidanceSpec, Site

FOLDER = Path(__file__).parents[2] / "assets" / "nano"

UNET_FILE = "pgp-nano-unet.safetensors"
GUIDANCE_FILE = "pgp-nano-guidance.safetensors"
S1_FILE = "loras/pgp-nano-s1.safetensors"
CONTEXTS_FILE = "pgp-nano-contexts.safetensors"

#: The residual latent is multiplied by this. About 12 gives it unit variance. With twice that, at every
#: timestep half as much noise lies on the picture: v-prediction asks the UNet to output 48 channels of noise,
#: what it loses of them in layers of 64 stays as grain.
SCALE = 21.0

#: Standard deviation of the residual latent at that scale. At the noisiest timesteps that is not nothing beside
#: the noise, so sampling starts from noise of the variance of both.
RESIDUAL_STD = 1.75

#: SDXL's micro-conditioning, constant: original height and width, crop, target height and width.
TIME_IDS = (512.0, 512.0, 0.0, 0.0, 512.0, 512.0)

PREDICTION = "v_prediction"

#: Timestep at which one step is made: there v-prediction already outputs about minus the residual.
S1_TIMESTEP = 999

#: What S1's LoRA leaves of ``conv_in`` to begin with. One step gives the UNet the LQ latent where it has learned to
#: expect noise of unit variance, and SCALE times a picture is far from that: as it is, the LoRA would start at 1.2 dB
#: below bicubic, with this at 0.5 dB above (measured at a scale of 24).
S1_INPUT = 0.3 / SCALE

#: Where the base takes the LQ in, before PEAM is added: beside the noisy latent, as FaithDiff does.
BASE_SITE = Site("conv_in", 64, 0, 4, "add")
PEAM_SITE = Site("down_blocks.0.downsamplers.0", 64, 2, 8, "peam")


def guidance_spec(fusion: str | None = "peam", **changes: object) -> GuidanceSpec:
    """Nano's guidance.

    Args:
        fusion: what PEAM's site does: ``peam``, or another of :data:`pgp_core.guidance.spec.FUSIONS` for an ablation;
            None for nano's base, which has no such site.
    """
    return GuidanceSpec(
        base="pgp-nano",
        sites=(BASE_SITE, replace(PEAM_SITE, fusion=fusion)) if fusion else (BASE_SITE,),
        channels=(64, 64, 64, 64),
        unshuffle=4,
        input_range=(-2.0, 2.0),
        **changes,  # type: ignore[arg-type]
    )


def own_cfg(folder: Path = FOLDER) -> float:
    """The CFG scale that the multi-step model is meant for, as its file says.

    Raises:
        CheckpointError: if the file is damaged or does not say.
    """
    with open_weights(folder / UNET_FILE) as file:
        try:
            return float(loads(file.metadata["pgp.model"])["cfg"])
        except Exception as e:
            raise CheckpointError(f"{UNET_FILE} lacks nano's metadata ({e})") from None
