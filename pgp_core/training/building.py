"""From a configuration to what is trained."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..codecs.decoder import DecoderShape, PixelDecoder
from ..conditioning import prompts
from ..conditioning.entries import load as load_conditioning
from ..errors import PGPError, TrainingError, name_some
from ..files.checkpoints import read_safetensors
from ..files.weights import open_weights
from ..guidance.file import read_guidance
from ..guidance.fresh import make_fresh_guidance
from ..guidance.module import Guidance, GuidanceSpec
from ..progress import Say
from ..restorers.given import Given
from ..restorers.nano import model as nano
from ..restorers.sdxl import loading as sdxl_loading
from ..restorers.sdxl import loras as sdxl_loras
from ..restorers.sdxl.loading import FoundUNet, Prompt
from ..unet import lora
from ..unet.inspect import UNetInfo
from ..unet.known import NANO_SHAPE
from ..unet.lora.files import load
from ..unet.on_diffusers import build_unet
from ..unet.plan import PrunePlan, load_plan
from ..unet.prune import prune_state_dict
from ..unet.shape import UNetShape
from . import nano_decoder
from .config import NANO_GUIDANCE, RunConfig
from .lora_layers import add_lora, full_rank, load_lora, shrink_input
from .nano_subject import NanoSubject
from .sdxl_subject import Captions, SavedPrompts, SDXLSubject
from .subject import Subject
from .tables import FromCommandLine

WEIGHTS = "model.safetensors"
#: Values of ``model.guidance`` that are no file.
OWN_GUIDANCE = ("fresh", "own", "faithdiff+fresh", "none", *NANO_GUIDANCE)


@dataclass(frozen=True)
class Parts:
    """What is known of a run's model before its weights are read.

    Attributes:
        shape, plan: of the UNet.
        spec: of the guidance, or None.
        prediction: what the UNet outputs.
        base: the file that weights come from, if any.
        load: the whole, on a device, nothing of it trained yet.
        decoder: size of nano's learned decoder, where it has one; ``decoder_file`` is what it starts from.
    """

    shape: UNetShape
    plan: PrunePlan
    spec: GuidanceSpec | None
    prediction: str
    base: Path | None
    load: Callable[[torch.device], Subject]
    info: UNetInfo | None = None
    decoder: DecoderShape | None = None
    decoder_file: Path | None = None


def inspect(config: RunConfig, say: Say) -> Parts:
    """Look at the files that a run starts from; their weights are not read.

    Raises:
        PGPError: if one is missing, damaged, or does not fit.
    """
    return _sdxl(config, say) if config.model.of.full_size else _nano(config)


def empty(parts: Parts, config: RunConfig) -> Subject:
    """The model without weights, on the meta device, its trained parts marked."""
    with torch.device("meta"):
        unet = build_unet(parts.shape, parts.plan)
        guidance = Guidance(parts.spec) if parts.spec else None
        subject: Subject
        if not config.model.of.full_size:
            assert guidance is not None
            decoder = PixelDecoder(parts.decoder) if parts.decoder else None
            subject = NanoSubject(unet, guidance, parts.shape, parts.prediction, decoder=decoder)
        else:
            subject = SDXLSubject(unet, guidance, None, None, parts.prediction)
        select(subject, config, start=False)
    return subject


def select(subject: Subject, config: RunConfig, start: bool = True, say: Say | None = None) -> None:
    """Mark what is trained, and add the LoRA if that is trained.

    Args:
        start: give the LoRA its start values.
        say: told what of the LoRA before it is left out.

    Raises:
        TrainingError: if the model has no such part, or no checkpointing is possible.
    """
    model = config.model
    subject.requires_grad_(False)
    found: dict[str, torch.nn.Module | None] = {"unet": subject.unet, "contexts": getattr(subject, "contexts", None)}
    found["decoder"] = getattr(subject, "decoder", None)
    for part in ("lq_adapter", "peam", "lq_encoder", "alignment"):
        module = getattr(subject.guidance, part, None)
        found[part] = module if module is not None and any(True for _ in module.parameters()) else None
    for part in model.train:
        if part == "lora":
            _add_lora(subject, config, start, say)
            continue
        module = found[part]
        if module is None:
            there = ", ".join(k for k, v in found.items() if v is not None)
            raise TrainingError(
                f"{config.source}: model.train has {part!r}, which this model does not have: it has {there}"
            )
        module.requires_grad_(True)
    if config.run.checkpointing:
        _check_sites(subject, config)
        subject.unet.enable_gradient_checkpointing()  # type: ignore[operator]


def _add_lora(subject: Subject, config: RunConfig, start: bool, say: Say | None) -> None:
    unet: Any = subject.unet
    s1, nano_s1 = config.s1, not config.model.of.full_size and config.s1 is not None
    first = first_lora(config) if start else None
    second = s1 is not None and s1.second_lora
    if first is not None and second:
        lora.merge(unet, first, say=say)
    # Nano's first LoRA may change the input layer at will.
    add_lora(unet, config.model.lora_rank, {"conv_in": full_rank(unet.conv_in)} if nano_s1 and not second else {})
    if first is not None and not second:
        load_lora(unet, first, say=say)
    elif nano_s1 and start and first is None:
        shrink_input(unet)


def first_lora(config: RunConfig) -> lora.LoRA | None:
    """The LoRA of the stage before.

    Raises:
        TrainingError, CheckpointError: if it is not there, or is none.
    """
    name = config.s1.first_lora if config.s1 is not None else ""
    if not name:
        return None
    path = beside(config, name, "lora.safetensors" if config.model.of.full_size else WEIGHTS)
    if not path.is_file():
        raise TrainingError(f"{path} is not there: run what makes it first, or give another s1.first_lora")
    return load(path)[0]


def beside(config: RunConfig, name: str, file: str) -> Path:
    """A file that a configuration names: by its path, or by the name of a run beside this one."""
    if name.endswith(".safetensors"):
        return resolve(config, name)
    return config.run.folder.parent / name / file


def _check_sites(subject: Subject, config: RunConfig) -> None:
    """No site may lie in a checkpointed layer: hooks are gone when it is computed again."""
    sites = subject.guidance.spec.sites if subject.guidance is not None else ()
    for site in sites:
        if ".resnets." in f"{site.module}." or ".transformer_blocks." in site.module:
            raise TrainingError(
                f"{config.source}: run.checkpointing computes {site.module} again without the guidance that works "
                "there: leave it out, or use another site"
            )


# -- nano ----------------------------------------------------------------------------------------------------


def _nano(config: RunConfig) -> Parts:
    model = config.model
    plan = read_plan(config) or PrunePlan.full(NANO_SHAPE.topology)
    spec = nano.guidance_spec(None if model.guidance == "base" else model.guidance)
    base = beside(config, model.base, WEIGHTS) if model.base else None
    if base is not None and not base.is_file():
        raise TrainingError(f"{base} is not there: run what makes it first, or give another model.base")
    nano_decoder.check(config)
    named = beside(config, model.decoder, nano_decoder.FILE) if model.decoder else None
    first = config.s1.first_lora if config.s1 is not None else ""
    before = [base, beside(config, first, WEIGHTS) if first else None]
    decoder = nano_decoder.start(named, [path for path in before if path is not None])

    def load(device: torch.device) -> Subject:
        torch.manual_seed(config.run.seed)
        subject = NanoSubject(build_unet(NANO_SHAPE, plan), Guidance.fresh(spec), NANO_SHAPE)
        if base is not None:
            _load_nano(subject, base, plan)
        subject.decoder = nano_decoder.load(config, decoder)
        return subject.to(device)

    shape = nano_decoder.shape(config, decoder)
    return Parts(NANO_SHAPE, plan, spec, nano.PREDICTION, base, load, decoder=shape, decoder_file=decoder)


def _load_nano(subject: NanoSubject, path: Path, plan: PrunePlan) -> None:
    weights, _ = read_safetensors(path)
    kept = prune_state_dict({k[5:]: v for k, v in weights.items() if k.startswith("unet.")}, plan)
    weights = {k: v for k, v in weights.items() if not k.startswith("unet.")}
    weights |= {f"unet.{k}": v for k, v in kept.items()}
    try:
        missing, unexpected = subject.load_state_dict(weights, strict=False)
    except RuntimeError as e:
        raise TrainingError(f"{path} does not fit this run: {str(e).splitlines()[-1].strip()}") from None
    # What may be new is the PEAM and the adapter levels that feed it; all else must be there.
    unknown = [k for k in missing if not k.startswith(("guidance.peam.", "guidance.lq_adapter.body."))]
    if unknown:
        raise TrainingError(f"{path} does not fit this run: it lacks {name_some(unknown)}")
    if unexpected:
        raise TrainingError(f"{path} does not fit this run, which has no {name_some(unexpected)}")


# -- SDXL ----------------------------------------------------------------------------------------------------


def _sdxl(config: RunConfig, say: Say) -> Parts:
    model = config.model
    base = resolve(config, model.base) if model.base else None
    files = Given(
        model=base,
        base=model.sdxl,
        vae=model.vae,
        plan=read_plan(config),
        loras=model.loras,
        conditioning=model.conditioning,
        negative_conditioning=model.negative_conditioning,
    )
    sdxl_loading.check_together(files)
    found = sdxl_loading.find_unet(files, say)
    if found.info.zero_snr:
        raise TrainingError(
            f"{found.info.name} has a noise schedule that ends in pure noise, which is not trained here"
        )
    spec, weights = _guidance(config, found.info, base)
    info = found.info

    def load(device: torch.device) -> Subject:
        guidance = None
        if spec is not None:
            guidance = Guidance(spec, device="meta").load({k: v.float() for k, v in weights().items()})
        make_prompts = _prompts(config, files, device, say)
        if isinstance(make_prompts, SavedPrompts):
            _check_widths(make_prompts, info.shape)
        vae = sdxl_loading.read_vae(files, device)
        unet = _read_unet(found, files, device, say)
        subject = SDXLSubject(unet, guidance, vae, make_prompts, info.prediction)
        return subject.to(device)

    return Parts(info.shape, info.plan, spec, info.prediction, base or model.sdxl, load, info)


def _read_unet(found: FoundUNet, files: Given, device: torch.device, say: Say) -> torch.nn.Module:
    unet = found.read(device, torch.float32, build_unet)
    sdxl_loras.merge_loras(unet, files.loras, False, say)
    return unet


def _guidance(
    config: RunConfig, info: UNetInfo, base: Path | None
) -> tuple[GuidanceSpec | None, Callable[[], dict[str, torch.Tensor]]]:
    """The spec, and how to read or make the weights."""
    kind = config.model.guidance
    if kind == "none":
        return None, dict
    if kind in ("fresh", "faithdiff+fresh"):
        faithdiff = base if kind != "fresh" else None
        spec, tensors = make_fresh_guidance(info.shape.channels[0], info.plan, faithdiff, config.run.seed)
        return spec, lambda: tensors
    path = base if kind == "own" else resolve(config, kind)
    if path is None:
        raise TrainingError(f'{config.source}: model.guidance is "own", which needs FaithDiff\'s file as model.base')
    with open_weights(path) as file:
        spec, tensors = read_guidance(file)
    sdxl_loading.check_fits(spec, info.shape, path.name)
    return spec.with_plan(info.plan), lambda: tensors


def _prompts(config: RunConfig, files: Given, device: torch.device, say: Say) -> Captions | SavedPrompts:
    model = config.model
    if model.conditioning is not None:
        if model.negative_conditioning is None and (config.loss.prompt_dropout or config.s1 is not None):
            raise TrainingError(
                f"{config.source}: model.negative_conditioning is missing: dropped prompts need it beside "
                "model.conditioning"
            )
        positive = Prompt(load_conditioning(model.conditioning).entries, model.conditioning.name)
        other = model.negative_conditioning
        negative = Prompt(load_conditioning(other).entries, other.name) if other else positive
        return SavedPrompts(positive, negative)
    if model.sdxl is None or not model.sdxl.is_dir():
        raise TrainingError(
            f"{config.source}: there are no text encoders: give model.sdxl, a diffusers folder, or model.conditioning "
            "and model.negative_conditioning (save them with ComfyUI's text encoders)"
        )
    # They run without gradient for every caption: half precision where it is fast.
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    return Captions(prompts.TextEncoders(model.sdxl, device, dtype, say=say), model.prompt, model.negative_prompt)


def _check_widths(saved: SavedPrompts, shape: UNetShape) -> None:
    have, need = (saved.context.shape[-1], saved.pooled.shape[-1]), (shape.context_dim, shape.pooled_dim)
    if have != need:
        raise TrainingError(
            f"the saved conditioning has tokens of {have[0]} and a pooled vector of {have[1]} numbers, the UNet takes "
            f"{need[0]} and {need[1]}: encode with the text encoders of SDXL"
        )


# -- both ----------------------------------------------------------------------------------------------------


def read_plan(config: RunConfig) -> PrunePlan | None:
    """The plan that a configuration names, or None.

    Raises:
        TrainingError: if there is none, or it is malformed.
    """
    text = config.model.plan
    if not text:
        return None
    path = resolve(config, text)
    try:
        return load_plan(str(path) if path.exists() else text)
    except PGPError as e:
        raise TrainingError(f"{config.source}: model.plan: {e}") from None


def resolve(config: RunConfig, text: str) -> Path:
    """A path that a configuration names as text."""
    path = Path(os.path.expanduser(text))
    return path if isinstance(text, FromCommandLine) else config.root / path
