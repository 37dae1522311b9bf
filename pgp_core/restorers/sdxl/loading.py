"""From files to a full-size model: UNet, guidance, VAE, LoRAs and prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ...codecs.vae import VAE, load_vae
from ...conditioning import entries as conditioning
from ...conditioning import prompts
from ...conditioning.entries import Entry
from ...errors import CheckpointError, ConditioningError, GuidanceError, PGPError
from ...files import diffusers_folder
from ...files.weights import WeightsFile, open_weights, read_converted
from ...guidance import file as guidance_file
from ...guidance.module import Guidance, GuidanceSpec
from ...progress import Say
from ...unet.inspect import UNetInfo, inspect_unet
from ...unet.known import SDXL_KIND
from ...unet.loading import Build, load_unet
from ...unet.model import UNet
from ...unet.shape import UNetShape
from ..given import Given
from ..recipe import Recipe
from .needs import has_vae


@dataclass(frozen=True)
class Prompt:
    """CONDITIONING of one text, and what to call it in errors."""

    entries: Sequence[Entry]
    source: str


def default_dtype(device: torch.device | str) -> torch.dtype:
    """Of the UNet: float32 on the CPU, else float16, which the authors use."""
    return torch.float32 if torch.device(device).type == "cpu" else torch.float16


# -- UNet ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FoundUNet:
    """A UNet in a file that was looked at, but not yet read."""

    info: UNetInfo
    opened: Callable[[], AbstractContextManager[WeightsFile]]

    def read(self, device: torch.device | str, dtype: torch.dtype, build: Build = UNet) -> torch.nn.Module:
        """The UNet, read tensor by tensor; of a plan's blocks only those that it keeps.

        Args:
            build: see :func:`pgp_core.unet.loading.load_unet`.

        Raises:
            CheckpointError: if weights are missing or of another shape.
        """
        names = {k: self.info.diffusers(k) for k in self.info.keys}
        weights = read_converted(self.opened, names, device, dtype)
        return load_unet(self.info.shape, self.info.plan, weights, self.info.name, build).requires_grad_(False)


def find_unet(given: Given, say: Say) -> FoundUNet:
    """The UNet given, else the one in the diffusers folder or checkpoint.

    Raises:
        CheckpointError, PlanError: if there is no SDXL-shaped UNet, or the plan does not fit.
    """
    opened = _unet_file(given)
    with opened() as file:
        info = inspect_unet(file, given.plan)
    for note in info.notes:
        say(f"{info.name}: {note}")
    if info.shape.topology not in SDXL_KIND:
        raise CheckpointError(f"{info.name} is {info.shape.topology.name}'s UNet: leave out --model to use it")
    if info.prediction not in ("epsilon", "v_prediction"):
        raise CheckpointError(f"{info.name} predicts {info.prediction!r}; epsilon and v_prediction are known")
    if info.prediction != "epsilon" or info.zero_snr:
        say(f"{info.name} is sampled with {info.prediction}{', zero terminal SNR' if info.zero_snr else ''}")
    return FoundUNet(info, opened)


def _unet_file(given: Given) -> Callable[[], AbstractContextManager[WeightsFile]]:
    """How to open the UNet's file."""
    path = given.model or given.base
    if path is None:
        raise CheckpointError("there is no UNet: give --model FILE or --base DIR")
    if given.model is None and diffusers_folder.is_pipeline(path):
        diffusers_folder.component(path, "unet", "give the UNet with --model")
    return partial(open_weights, path)


# -- guidance ------------------------------------------------------------------------------------------------


def read_guidance(path: Path, shape: UNetShape, device: torch.device | str, dtype: torch.dtype, say: Say) -> Guidance:
    """LQ adapter, PEAM, LQ encoder and alignment from a guidance file or FaithDiff's own.

    All in float32, whatever the UNet's dtype: a PEAM's twelve convolutions overflow half precision, the LQ encoder
    runs once a picture. Only the alignment, which runs at every call, has the UNet's dtype, as the authors run it.

    Raises:
        GuidanceError: if it is none, is damaged, or was made for another model.
    """
    with open_weights(path) as file:
        spec, tensors = guidance_file.read_guidance(file)
    check_fits(spec, shape, path.name)
    floats = {k: v.float() for k, v in tensors.items()}
    guidance = Guidance(spec, device="meta").load(floats, path.name).eval().requires_grad_(False).to(device)
    if "alignment" in spec.parts:
        guidance.alignment.blocks.to(dtype)
        guidance.alignment.proj.to(dtype)
    if not spec.trained:
        say(f"{path.name} is not trained: it changes nothing yet")
    return guidance


def check_fits(spec: GuidanceSpec, shape: UNetShape, name: str) -> None:
    widths = {"conv_in": shape.channels[0], "mid_block": shape.channels[-1]}
    widths |= {f"down_blocks.{i}": n for i, n in enumerate(shape.channels)}
    if spec.base != shape.topology.name:
        raise GuidanceError(f"{name} guides {spec.base}, not {shape.topology.name}: give guidance for this model")
    names = shape.topology.names
    for site in spec.sites:
        width = next((n for head, n in widths.items() if f"{site.module}.".startswith(f"{head}.")), None)
        if width == site.channels and site.scale != 8 * 2 ** names.halvings_before(site.module):
            raise GuidanceError(
                f"{name} takes one feature from {site.scale} pixels at {site.module}, SDXL has another scale"
            )
        if width != site.channels:
            raise GuidanceError(
                f"{name} is guidance for {site.channels} channels at {site.module}, the UNet has {width or 'none'} "
                "there: give guidance that was made for it"
            )


# -- VAE and prompts -----------------------------------------------------------------------------------------


def read_vae(given: Given, device: torch.device | str) -> VAE:
    """The VAE given, else the one in the diffusers folder or checkpoint.

    Raises:
        CheckpointError: if there is none.
    """
    path = given.vae or given.base or (given.model if given.model and has_vae(given.model) else None)
    if path is None:
        raise CheckpointError("there is no VAE: give --vae FILE, or --base DIR or CHECKPOINT")
    if given.vae is None and diffusers_folder.is_pipeline(path):
        diffusers_folder.component(path, "vae", "give one with --vae")
    return load_vae(path, device, *(("give one with --vae",) if given.vae is None else ()))


def read_prompts(given: Given, recipe: Recipe, device: torch.device | str, say: Say) -> tuple[Prompt, Prompt | None]:
    """Positive and negative prompt: saved CONDITIONING where it is given, else text.

    Args:
        recipe: whose texts they are; CFG needs the negative one.

    Raises:
        ConditioningError, CheckpointError: if a file is none, or there is nothing to encode a text with.
    """
    with_negative = recipe.cfg != 1
    wanted = [(given.conditioning, recipe.prompt, "--conditioning")]
    if with_negative:
        wanted.append((given.negative_conditioning, recipe.negative_prompt, "--negative-conditioning"))
    texts = [text for path, text, _ in wanted if path is None]
    encoded: list[list[Entry]] = []
    if texts:
        if given.base is None or not given.base.is_dir():
            options = " and ".join(f"{option} FILE" for path, _, option in wanted if path is None)
            raise ConditioningError(
                f"there are no text encoders here: give {options} (save it with ComfyUI's text encoders), "
                "or --base with a diffusers folder" + ("; --cfg 1 needs no negative one" if with_negative else "")
            )
        encoded = prompts.encode(given.base, texts, device, say)
    found = [
        Prompt(encoded.pop(0), "the prompt") if path is None else Prompt(conditioning.load(path).entries, path.name)
        for path, _, _ in wanted
    ]
    return found[0], found[1] if with_negative else None


def check_prompt(prompt: Prompt, shape: UNetShape) -> None:
    """Whether a prompt has the widths that a UNet takes.

    Raises:
        ConditioningError: if not.
    """
    made = conditioning.to_sampling(prompt.entries, (8, 8), prompt.source)
    have, need = (made.context.shape[-1], made.pooled.shape[-1]), (shape.context_dim, shape.pooled_dim)
    if have != need:
        raise ConditioningError(
            f"{prompt.source} has tokens of {have[0]} and a pooled vector of {have[1]} numbers, the UNet takes "
            f"{need[0]} and {need[1]}: encode with the text encoders of SDXL"
        )


def check_together(given: Given) -> None:
    """What is wrong with the choice of files, before anything large is read.

    Raises:
        PGPError: if a file or folder is not there, or something is given twice.
    """
    given.check_files()
    base = given.base
    if base is not None and base.is_dir() and not diffusers_folder.is_pipeline(base):
        # Says what is wrong with one that holds no weights at all.
        diffusers_folder.find_weights(base)
        whole = base.parent if diffusers_folder.is_pipeline(base.parent) else "a whole diffusers folder or a checkpoint"
        raise PGPError(f"{base} holds one component: give {whole} as --base, or this one as --model or --vae")
