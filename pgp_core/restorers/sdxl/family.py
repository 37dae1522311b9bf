"""The records of the families on SDXL's UNet and those that were distilled from it: FaithDiff, PGP-DiffSR, and any such
model without guidance.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...images.frames import Frame
from ...sampling.rules import RESIDUAL
from ...unet import known
from ..family import Family
from ..given import Given
from ..recipe import Recipe
from .needs import BASE, has_vae_in, missing

if TYPE_CHECKING:
    import torch

    from ...files.weights import WeightsFile
    from ...progress import Say
    from ...unet.plan import PrunePlan
    from ..restorer import Restorer

#: Latents of an eighth, halved twice by the UNet.
FRAME = Frame(multiple=32)
#: Timestep of a one-step LoRA whose metadata says none; PiSA-SR's.
S1_TIMESTEP = 1
#: FaithDiff's: from noise, with a little of the picture's latent in it.
GUIDED = Recipe(steps=20, cfg=5.0, start="lr")
#: Image to image: nothing but the latent holds the picture, so half of the noise range is left out.
UNGUIDED = Recipe(steps=20, cfg=5.0, start="lq", denoise=0.5)
#: S1 is distilled without CFG.
ONCE = Recipe(steps=1, cfg=1.0, rule=RESIDUAL, timestep=S1_TIMESTEP)

#: Topologies with SDXL's latents and prompts, SDXL's own first.
_KIND = tuple(t.name for t in known.SDXL_KIND)
_DISTILLED = tuple(name for name in _KIND if name != known.SDXL.name)
#: What topologies are called by people.
_TITLES = {
    "sdxl": "SDXL",
    "ssd-1b": "SSD-1B, distilled from SDXL",
    "segmind-vega": "Segmind Vega, distilled from SDXL",
    "koala-1b": "KOALA-1B, distilled from SDXL",
    "koala-700m": "KOALA-700M, distilled from SDXL",
}
#: Parts of FaithDiff's guidance; with others beside them it is PGP-DiffSR's.
_OF_FAITHDIFF = frozenset({"lq_encoder", "alignment"})
_PROMPTS = ("prompt", "negative_prompt", "conditioning", "negative_conditioning")
_LORAS = ("loras", "semantic_lora", "pixel", "semantic")
TAKES = frozenset({"base", "guidance", "vae", "plan", "dtype", *_LORAS, *_PROMPTS})


def recipe_for(one_step: bool, guided: bool) -> Recipe:
    """How a model of SDXL's kind is meant to be used."""
    steps = GUIDED if guided else UNGUIDED
    return replace(ONCE, start=steps.start) if one_step else steps


def what_is_wrong(given: Given) -> str | None:
    """What does not go together, in the words of the command line, or None."""
    if given.one_step and not given.loras:
        return "--one-step of a full-size model needs its S1 LoRA: give --lora too"
    if given.semantic_lora is not None and not given.one_step:
        return "--semantic-lora is for --one-step"
    return given.contradiction()


def _guidance_parts(given: Given) -> frozenset[str]:
    """What is in the guidance that is given apart; nothing where there is none, or it cannot be read."""
    from ...errors import PGPError
    from ...files.weights import open_weights
    from ...guidance.file import spec_of

    if given.guidance is None:
        return frozenset()
    try:
        with open_weights(given.guidance) as file:
            return frozenset(spec_of(file).parts)
    except PGPError:
        return frozenset()


def _of_kind(file: WeightsFile, topologies: tuple[str, ...] = _KIND) -> tuple[str, PrunePlan] | None:
    """A UNet of one of these topologies, in words, and its blocks; or None."""
    from ...unet.inspect import unet_of

    info = unet_of(file)
    if info is None or info.plan.topology not in topologies:
        return None
    kind = _TITLES.get(info.plan.topology, info.plan.topology)
    return f"a UNet of {kind}{f', pruned ({info.plan.name})' if info.plan.removed else ''}", info.plan


def _recognise_faithdiff(file: WeightsFile, given: Given) -> str | None:
    from ...guidance.faithdiff import is_faithdiff

    found = _of_kind(file)
    if found is None:
        return None
    if is_faithdiff(file.shapes) and given.guidance is None:
        return f"FaithDiff: {found[0]}, with its LQ encoder and alignment"
    return f"{found[0]}, for FaithDiff" if _guidance_parts(given) == _OF_FAITHDIFF else None


def _recognise_pgp(file: WeightsFile, given: Given) -> str | None:
    found = _of_kind(file)
    return None if found is None or given.guidance is None else f"{found[0]}, for PGP-DiffSR"


def _recognise_distilled(file: WeightsFile, _given: Given) -> str | None:
    return _unguided(file, _DISTILLED)


def _recognise_sdxl(file: WeightsFile, _given: Given) -> str | None:
    return _unguided(file, SDXL.topologies)


def _unguided(file: WeightsFile, topologies: tuple[str, ...]) -> str | None:
    """A UNet, or a checkpoint with its VAE, in words."""
    found = _of_kind(file, topologies)
    if found is None:
        return None
    what, plan = found
    if has_vae_in(file):
        what = what.replace("a UNet", "a checkpoint", 1)
    return f"{what}; with guidance (--guidance FILE) it is PGP-DiffSR" if plan.removed else what


def _load(given: Given, device: torch.device, say: Say) -> Restorer:
    from .restorer import SDXLRestorer

    return SDXLRestorer.load(given, device, say)


SDXL = Family(
    name="sdxl",
    title="any SDXL model",
    files="a UNet or a checkpoint of SDXL, whole or pruned, in ComfyUI's or diffusers' names",
    wants=(BASE,),
    frame=FRAME,
    steps=UNGUIDED,
    once=ONCE,
    takes=TAKES,
    licence="the model's own",
    published="wherever SDXL models are",
    topologies=(known.SDXL.name,),
    recognise=_recognise_sdxl,
    load=_load,
    wrong=what_is_wrong,
    missing=missing,
    guided=lambda parts: not parts,
    core=("SDXL",),
    canvas="sdxl",
)

FAITHDIFF = replace(
    SDXL,
    name="faithdiff",
    title="FaithDiff",
    files="FaithDiff.bin: an SDXL UNet with denoise_encoder.* and information_transformer_layes.* beside it; or both "
    "files that pgp-diffsr convert makes of it",
    steps=GUIDED,
    topologies=_KIND,
    licence="its authors name none; SDXL, from which it was made, has CreativeML Open RAIL++-M",
    published="huggingface.co/jychen9811/FaithDiff",
    recognise=_recognise_faithdiff,
    guided=lambda parts: parts == _OF_FAITHDIFF,
    core=(),
)

PGP_DIFFSR = replace(
    SDXL,
    name="pgp-diffsr",
    title="PGP-DiffSR",
    files="a pruned SDXL UNet, and a guidance file with PEAM and LQ adapter",
    wants=("its guidance: --guidance FILE", BASE),
    steps=GUIDED,
    topologies=_KIND,
    licence="that of whoever trained it",
    published="no weights are public; docs/training.md says how to train them",
    recognise=_recognise_pgp,
    guided=bool,
    core=(),
)

DISTILLED = replace(
    SDXL,
    name="distilled-sdxl",
    title="SSD-1B, Segmind Vega, KOALA",
    files="a UNet or a checkpoint with fewer blocks than SDXL's, whole or pruned, in ComfyUI's or diffusers' names",
    topologies=_DISTILLED,
    licence="the one on its page",
    published="huggingface.co: segmind/SSD-1B, segmind/Segmind-Vega, etri-vilab/koala-700m, etri-vilab/koala-1b, and "
    "their LCM and Lightning versions",
    recognise=_recognise_distilled,
    core=(),
)

FAMILIES = (FAITHDIFF, PGP_DIFFSR, DISTILLED, SDXL)
