"""The nano model: what it is, and where its files lie. A demonstration, trained on synthetic pictures.

Its latent is the residual: the UNet denoises ``SCALE * (z_H - z_L)``, so a sample is added to the encoded
LQ canvas. Full-size models work on the full latent, as in the paper; a model this small would spend
itself on copying the LQ.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from ...files.json_format import loads
from ...guidance.spec import GuidanceSpec, Site
from ..given import Given

FOLDER = Path(__file__).parents[2] / "assets" / "nano"

UNET_FILE = "pgp-nano-unet.safetensors"
GUIDANCE_FILE = "pgp-nano-guidance.safetensors"
S1_FILE = "loras/pgp-nano-s1.safetensors"
#: A second S1 LoRA, which may be there or not, see :mod:`.natural`.
NATURAL_FILE = "loras/pgp-nano-s1-natural.safetensors"
CONTEXTS_FILE = "pgp-nano-contexts.safetensors"
#: May be missing: pictures then come out of the pixel shuffle as they are. One step and many share it.
DECODER_FILE = "pgp-nano-decoder.safetensors"

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


@dataclass(frozen=True)
class Files:
    """Where nano's parts lie; by default the bundled ones."""

    folder: Path = FOLDER
    unet: str = UNET_FILE
    guidance: str = GUIDANCE_FILE
    s1: str = S1_FILE
    contexts: str = CONTEXTS_FILE
    decoder: str = DECODER_FILE
    natural: str = NATURAL_FILE

    @classmethod
    def of(cls, given: Given) -> Files:
        """The bundled files, or those beside a nano UNet of the user's own."""
        if given.model is None or given.bundled:
            return cls()
        return cls(given.model.parent, given.model.name)

    @property
    def decoder_path(self) -> Path | None:
        """The learned decoder, or None where there is none."""
        path = self.folder / self.decoder
        return path if path.exists() else None

    @property
    def has_natural(self) -> bool:
        """Whether there is a second S1 LoRA."""
        return (self.folder / self.natural).exists()

    def missing(self, one_step: bool) -> tuple[str, ...]:
        """What is not there, a line each."""
        wanted = {self.guidance: "guidance", self.contexts: "contexts", **({self.s1: "S1 LoRA"} if one_step else {})}
        return tuple(
            f"its {what}, {name} beside it" for name, what in wanted.items() if not (self.folder / name).exists()
        )


def about(metadata: dict[str, str], source: str) -> dict[str, Any]:
    """What a nano UNet's file says of itself: ``cfg``, ``prediction``, ``latent_std``.

    Raises:
        CheckpointError: if it does not say, or predicts what is not known.
    """
    from ...schedule import PREDICTIONS

    try:
        said = loads(metadata["pgp.model"])
        told = {
            "cfg": float(said["cfg"]),
            "prediction": str(said["prediction"]),
            "latent_std": float(said.get("latent_std", 0)),
        }
    except Exception as e:
        raise CheckpointError(f"{source} lacks nano's metadata ({e})") from None
    if told["prediction"] not in PREDICTIONS:
        raise CheckpointError(f"{source} predicts {told['prediction']!r}, which this release does not know: update")
    return told


def own_cfg(folder: Path = FOLDER) -> float:
    """The CFG scale that the multi-step model is meant for, as its file says.

    Raises:
        CheckpointError: if the file is damaged or does not say.
    """
    from ...files.weights import open_weights

    with open_weights(folder / UNET_FILE) as file:
        return float(about(dict(file.metadata), UNET_FILE)["cfg"])
