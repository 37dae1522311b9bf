"""Nano's record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...images.frames import Frame
from ...sampling.rules import RESIDUAL
from ..family import Family
from ..given import Given
from ..recipe import Recipe
from .model import S1_TIMESTEP, Files

if TYPE_CHECKING:
    import torch

    from ...files.weights import WeightsFile
    from ...progress import Say
    from ..restorer import Restorer


def _recognise(file: WeightsFile, _given: Given) -> str | None:
    from ...unet.inspect import unet_of

    info = unet_of(file)
    return f"a nano UNet, {info.plan.name}" if info is not None and info.plan.topology == NANO.name else None


def _missing(given: Given) -> tuple[str, ...]:
    return Files.of(given).missing(given.one_step is not False)


def _wrong(given: Given) -> str | None:
    files = Files.of(given)
    if given.natural and not files.has_natural:
        return f"--natural needs a second S1 LoRA, {files.natural}, and this nano has none: leave it out"
    return None


def _load(given: Given, device: torch.device, _say: Say) -> Restorer:
    from .restorer import NanoRestorer

    return NanoRestorer.of(given, device)


NANO = Family(
    name="pgp-nano",
    title="nano",
    files="pgp-nano-unet.safetensors, with its guidance, contexts, S1 LoRA and, if it has one, decoder beside it; they "
    "come with this pack",
    wants=(),
    # Latents of a quarter, halved twice by the UNet. Convolutions repeat zeros beyond the picture, and nano's colours
    # near the border suffer: saturated blue is off by up to 25 levels of 255 there, 32 pixels further in by less
    # than 1.
    frame=Frame(multiple=16, border=32),
    steps=Recipe(steps=20, cfg=1.0, start="noise"),
    once=Recipe(steps=1, cfg=1.0, rule=RESIDUAL, timestep=S1_TIMESTEP),
    takes=frozenset({"natural"}),
    licence="Apache-2.0",
    published="bundled",
    topologies=("pgp-nano",),
    recognise=_recognise,
    wrong=_wrong,
    load=_load,
    missing=_missing,
    bundled=True,
    factor=4,
    residual=True,
    prefers_one_step=True,
)

FAMILIES = (NANO,)
