"""One TOML file a run: what it may say, and reading it.

Relative paths to what a run reads count from the file's folder (those on the command line, and those of files that
ship, from the working directory), the run's own folder from the working directory.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ..choices import DTYPES
from ..errors import ConfigError
from ..files.boundary import first_line
from ..files.text import read_text
from .adversarial.config import Adversarial, not_fitting
from .kinds import KINDS, Kind
from .tables import FromCommandLine, limits, read_table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PATHS = (PurePosixPath, PureWindowsPath)
#: Configurations that ship.
READY = Path(__file__).parents[1] / "assets" / "configs"

#: What of a model may be trained.
PARTS = ("unet", "lq_adapter", "peam", "lq_encoder", "alignment", "contexts", "lora", "decoder")
#: ``model.guidance`` of nano.
NANO_GUIDANCE = ("base", "peam", "add", "phase", "convs")


@dataclass(frozen=True)
class Run:
    """``[run]``.

    Attributes:
        folder: where checkpoints, log and results go; a run that is there already goes on.
        steps: optimiser steps.
        precision: ``auto`` takes bfloat16 autocast where the hardware has units for it.
        checkpointing: compute activations of the UNet again in the backward pass instead of keeping them.
        device: ``cpu``, or what accelerate's own configuration says.
        save_every, log_every, sample_every: steps between checkpoints, rows of the log, sample pictures (0: none).
        samples: how many crops a sample picture shows.
        tensorboard: write its event files too.
        result_dtype: of the files that the run ends with (full-size models; nano's stay in float32).
    """

    folder: Path = field(metadata=limits(inputs=False))
    steps: int = field(metadata=limits(at_least=1))
    seed: int = field(default=0, metadata=limits(at_least=0))
    precision: str = field(default="auto", metadata=limits(one_of=("auto", "float32", "bf16")))
    checkpointing: bool = False
    device: str = field(default="auto", metadata=limits(one_of=("auto", "cpu")))
    save_every: int = field(default=500, metadata=limits(at_least=1))
    log_every: int = field(default=20, metadata=limits(at_least=1))
    sample_every: int = field(default=0, metadata=limits(at_least=0))
    samples: int = field(default=4, metadata=limits(at_least=1, at_most=16))
    tensorboard: bool = False
    result_dtype: str = field(default="fp16", metadata=limits(one_of=tuple(DTYPES)))


@dataclass(frozen=True)
class Model:
    """``[model]``.

    Attributes:
        base: file of the UNet: any SDXL-shaped one, FaithDiff's, one that a run made; left out, the one in ``sdxl``.
            For nano a ``model.safetensors``, or the name of a run beside this one; left out, nano starts afresh.
        plan: name or file of a plan: blocks that are left out of the base.
        guidance: ``fresh``: LQ adapter and one PEAM that change nothing yet; ``own``: what FaithDiff's file holds;
            ``faithdiff+fresh``: both; ``none``; or a guidance file. For nano ``base`` or ``peam``, or for the paper's
            ablation ``add``, ``phase`` or ``convs`` in PEAM's place.
        sdxl: a diffusers folder, or a checkpoint (without text encoders), for VAE and prompts.
        vae: a file or folder in place of that in ``sdxl``.
        train: which parts are trained; ``lora`` is a LoRA on the UNet, instead of ``unet``; ``decoder`` is nano's
            learned one, which ``[s1]`` teaches.
        lora_rank: of that LoRA.
        loras: added to the base's weights before.
        prompt: for pictures without a caption.
        negative_prompt: what a dropped prompt is replaced by.
        conditioning, negative_conditioning: saved CONDITIONING in place of captions and of the negative prompt.
        decoder: nano's learned decoder to go on with, a file or the name of a run beside this one; left out, the one
            of the run that the first LoRA or else the base is of; if there is none, and it is trained, a fresh one.
        decoder_width, decoder_depth: of a fresh one: channels between its convolutions, and how many there are.
    """

    kind: str = field(metadata=limits(one_of=tuple(KINDS)))
    base: str = ""
    plan: str = ""
    guidance: str = "fresh"
    sdxl: Path | None = None
    vae: Path | None = None
    train: tuple[str, ...] = field(default=("unet", "lq_adapter", "peam"), metadata=limits(one_of=PARTS))
    lora_rank: int = field(default=16, metadata=limits(at_least=1, at_most=1024))
    loras: tuple[Path, ...] = ()
    prompt: str = ""
    negative_prompt: str = ""
    conditioning: Path | None = None
    negative_conditioning: Path | None = None
    decoder: str = ""
    decoder_width: int = field(default=24, metadata=limits(at_least=1, at_most=512))
    decoder_depth: int = field(default=4, metadata=limits(at_least=2, at_most=32))

    @property
    def of(self) -> Kind:
        """What its kind means."""
        return KINDS[self.kind]


@dataclass(frozen=True)
class Data:
    """``[data]``.

    Attributes:
        kind: ``synthetic`` paints its own pictures; ``folder`` takes yours.
        folder: with HQ pictures, and captions beside them (``a.txt`` beside ``a.png``).
        batch: crops that one device works on at once (the micro-batch).
        accumulation: micro-batches a step and device.
        patch: side of a crop, HQ pixels.
        workers: processes that prepare crops, a device.
        pictures, size: of the synthetic set: how many, and their side.
        cache: where the painted set is kept; by default beside the run's folder.
        seed: of pictures and crops; by default the run's.
        recipe: how LQ is made of HQ: ``second-order`` as FaithDiff's (by default for a folder), or ``nano``'s.
        degradation: the recipe's parameters, in place of its own.
        enlarge: LQ to canvas: as upscaling does, or as FaithDiff's training did (nearest, bilinear or bicubic).
        crops_per_picture: crops in a row from one picture of a folder; more spares decoding.
    """

    kind: str = field(metadata=limits(one_of=("synthetic", "folder")))
    folder: Path | None = None
    batch: int = field(default=1, metadata=limits(at_least=1))
    accumulation: int = field(default=1, metadata=limits(at_least=1))
    patch: int = field(default=512, metadata=limits(at_least=16))
    workers: int = field(default=1, metadata=limits(at_least=0))
    pictures: int = field(default=4000, metadata=limits(at_least=1))
    size: int = field(default=256, metadata=limits(at_least=32))
    cache: Path | None = field(default=None, metadata=limits(inputs=False))
    seed: int | None = field(default=None, metadata=limits(at_least=0))
    recipe: str = field(default="default", metadata=limits(one_of=("default", "second-order", "nano")))
    degradation: dict[str, Any] = field(default_factory=dict)
    enlarge: str = field(default="canvas", metadata=limits(one_of=("canvas", "faithdiff")))
    crops_per_picture: int = field(default=1, metadata=limits(at_least=1))


@dataclass(frozen=True)
class Loss:
    """``[loss]`` of fine-tuning; see :class:`pgp_core.training.diffusion_loss.DiffusionLoss`."""

    kind: str = field(default="l1", metadata=limits(one_of=("l1", "l2")))
    timesteps: tuple[int, int] = field(default=(0, 999), metadata=limits(at_least=0, at_most=999))
    stratified: bool = False
    noise_offset: float = field(default=0.0, metadata=limits(at_least=0, at_most=1))
    prompt_dropout: float = field(default=0.0, metadata=limits(at_least=0, at_most=1))
    drop_base: float = field(default=0.0, metadata=limits(at_least=0, at_most=1))
    latent_std: float = field(default=0.0, metadata=limits(at_least=0))


@dataclass(frozen=True)
class Optimizer:
    """``[optimizer]``.

    Attributes:
        kind: ``adamw``, or ``adamw8bit`` with 8-bit states (the ``adam8bit`` extra).
        lr: the highest learning rate.
        schedule: ``cosine`` to zero, or ``constant``, after the warm-up.
        warmup: steps in which the rate rises linearly.
        clip: norm that the gradient is clipped to; 0: it is not.
        lr_factors: beginnings of parameter names, and what ``lr`` is multiplied by for them.
    """

    kind: str = field(default="adamw", metadata=limits(one_of=("adamw", "adamw8bit")))
    lr: float = field(default=5e-5, metadata=limits(above=0))
    betas: tuple[float, float] = field(default=(0.9, 0.999), metadata=limits(at_least=0, at_most=0.99999999))
    weight_decay: float = field(default=1e-2, metadata=limits(at_least=0))
    schedule: str = field(default="cosine", metadata=limits(one_of=("cosine", "constant")))
    warmup: int = field(default=0, metadata=limits(at_least=0))
    clip: float = field(default=1.0, metadata=limits(at_least=0))
    lr_factors: dict[str, float] = field(default_factory=dict, metadata=limits(at_least=0))


@dataclass(frozen=True)
class Average:
    """``[ema]``: the moving average, whose weights are the run's result where it is enabled.

    Attributes:
        every: steps between updates (FaithDiff's authors: 100).
        device: ``cpu`` keeps it off the training device.
    """

    enabled: bool = True
    decay: float = field(default=0.999, metadata=limits(at_least=0, at_most=1))
    every: int = field(default=1, metadata=limits(at_least=1))
    device: str = field(default="same", metadata=limits(one_of=("same", "cpu")))


@dataclass(frozen=True)
class S1:
    """``[s1]`` of distillation to one step: where it starts from, and the loss.

    Attributes:
        preset, stage: whose settings stand for what is left out: ``paper``, ``pisa-sr`` or ``nano``; 1 or 2.
        first_lora: the LoRA of the stage before, a file or the name of a run beside this one: it goes on; or, with
            ``second_lora``, stays as it is.
        second_lora: train a LoRA of its own beside the first (PiSA-SR's dial between pixels and perception).
        score_model: CSD's frozen score model, a file with a UNet; left out, the UNet in ``model.sdxl``, or where there
            is none the run's base with all the blocks that its file has. For nano a ``model.safetensors`` or the name
            of a run beside this one; left out, ``full``.
        l1, l2, edges, perceptual, csd: weights of the terms.
        space: where l1 and l2 compare: ``picture`` or ``latent``.
        measure: of the perceptual term.
        vgg: file of the weights that the measure lpips needs.
        csd_guidance, csd_from, csd_to: CFG scale of the score model; shares of the timesteps between which it is asked.
        shifted: weight of the loss between passes moved by two pixels, in every second step.
        null_prompt: share of samples whose prompt is empty.
        timestep: at which the one step is made; left out, the model's own.
    """

    preset: str = field(default="paper", metadata=limits(one_of=("paper", "pisa-sr", "nano")))
    stage: int = field(default=1, metadata=limits(at_least=1, at_most=2))
    first_lora: str = ""
    second_lora: bool = False
    score_model: str = ""
    l1: float | None = field(default=None, metadata=limits(at_least=0))
    l2: float | None = field(default=None, metadata=limits(at_least=0))
    space: str | None = field(default=None, metadata=limits(one_of=("picture", "latent")))
    edges: float | None = field(default=None, metadata=limits(at_least=0))
    perceptual: float | None = field(default=None, metadata=limits(at_least=0))
    measure: str | None = None
    vgg: Path | None = None
    csd: float | None = field(default=None, metadata=limits(at_least=0))
    csd_guidance: float | None = field(default=None, metadata=limits(at_least=0))
    csd_from: float | None = field(default=None, metadata=limits(at_least=0, at_most=1))
    csd_to: float | None = field(default=None, metadata=limits(at_least=0, at_most=1))
    shifted: float | None = field(default=None, metadata=limits(at_least=0))
    null_prompt: float | None = field(default=None, metadata=limits(at_least=0, at_most=1))
    timestep: int | None = field(default=None, metadata=limits(at_least=0, at_most=999))


@dataclass(frozen=True)
class Teacher:
    """``[teacher]``: HQ gets another model's texture, see :func:`pgp_core.training.teachers.target`.

    ``pgp-diffsr train teacher`` makes the crops once, as ``[data]`` draws them; the run is trained on those.

    Attributes:
        kind: ``upscaler``: a model that enlarges a picture to four times its size.
        file: of the crops; by default beside the run's folder.
        model: who makes them: ``real-esrgan``, a file of an upscaler, or a folder of finished pictures.
        licence: of that upscaler, which the crops' file carries; Real-ESRGAN's is known.
        crops: how many.
        size: their side, HQ pixels; the run cuts ``data.patch`` of it.
        sigma: of the Gaussian, HQ pixels: what is coarser comes from HQ, what is finer from the teacher.
    """

    kind: str = field(metadata=limits(one_of=("upscaler",)))
    file: Path | None = field(default=None, metadata=limits(inputs=False))
    model: str = "real-esrgan"
    licence: str = ""
    crops: int = field(default=4000, metadata=limits(at_least=2))
    size: int = field(default=128, metadata=limits(at_least=32))
    sigma: float = field(default=2.0, metadata=limits(above=0))


@dataclass(frozen=True)
class RunConfig:
    """A whole run. ``s1`` makes it a distillation, ``adversarial`` one against discriminators; else it is
    fine-tuning."""

    run: Run
    model: Model
    data: Data
    loss: Loss = field(default_factory=Loss)
    optimizer: Optimizer = field(default_factory=Optimizer)
    ema: Average = field(default_factory=Average)
    s1: S1 | None = None
    adversarial: Adversarial | None = None
    teacher: Teacher | None = None
    #: Of the file; not a key.
    source: str = field(default="", init=False)
    root: Path = field(default=Path(), init=False)

    @property
    def data_seed(self) -> int:
        """The seed of pictures and crops."""
        return self.run.seed if self.data.seed is None else self.data.seed

    def to_json(self) -> dict[str, Any]:
        """Plain data, as it is kept with the results."""
        data = dataclasses.asdict(self)
        del data["source"], data["root"]
        return {k: _plain(v) for k, v in data.items() if v is not None}


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read and check a file; a bare name is looked for among those that ship.

    Args:
        overrides: ``section.key=value`` each, the value as TOML has it; text needs no quotes.

    Raises:
        ConfigError: naming the key, and what was expected there.
    """
    found, root = path, path.parent
    if "\0" in str(path):
        raise ConfigError(f"{path}: no file's name holds a null character")
    if not path.exists() and (READY / f"{path}.toml").is_file():
        found, root = READY / f"{path}.toml", Path()
    try:
        table = tomllib.loads(read_text(found))
    except FileNotFoundError:
        ready = ", ".join(sorted(p.stem for p in READY.glob("*.toml")))
        raise ConfigError(f"there is no file {path}; ready ones are {ready}") from None
    except OSError as e:
        raise ConfigError(f"{path} cannot be read: {e.strerror or e}") from None
    # Of whatever kind: Python's limit on whole numbers is a plain ValueError, deep tables a RecursionError.
    except Exception as e:
        raise ConfigError(f"{path} is no TOML: {first_line(e)}") from None
    for text in overrides:
        _override(table, text)
    return read_config(table, path.name, root)


def read_config(table: dict[str, Any], source: str = "this configuration", root: Path = Path()) -> RunConfig:
    """A configuration from its tables; see :func:`load_config`."""
    config = read_table(RunConfig, table, "", source, root)
    object.__setattr__(config, "source", source)
    object.__setattr__(config, "root", root)
    _check(config, table)
    return config


def _override(table: dict[str, Any], text: str) -> None:
    name, equals, value = text.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(re.fullmatch(r"[\w-]+", k) for k in keys):
        raise ConfigError(f"--set takes section.key=value, not {text!r}")
    try:
        parsed: Any = tomllib.loads(f"x = {value}")["x"]
    # What is no TOML is text; that it is too long or too deep for a value of its kind is said there.
    except Exception:
        parsed = value.strip()
    for key in keys[:-1]:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"--set {name}: {key} is no table")
    table[keys[-1]] = _marked(parsed)


def _marked(value: Any) -> Any:
    if isinstance(value, str):
        return FromCommandLine(value)
    return [_marked(v) for v in value] if isinstance(value, list) else value


def named_paths(value: Any) -> Any:
    """Plain data in which paths from a root or a home folder on are names: figures are shared."""
    if isinstance(value, dict):
        return {k: named_paths(v) for k, v in value.items()}
    if isinstance(value, list):
        return [named_paths(v) for v in value]
    if isinstance(value, str) and (value.startswith("~") or any(p(value).is_absolute() for p in _PATHS)):
        return PurePosixPath(value.replace("\\", "/")).name
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _check(config: RunConfig, table: dict[str, Any]) -> None:
    """What no single key can say."""
    source, model, data = config.source, config.model, config.data
    nano = not model.of.full_size
    if "s1" in table and "loss" in table:
        raise ConfigError(f"{source}: [loss] is for fine-tuning and [s1] for distillation: a run has one of them")
    if data.kind == "folder" and data.folder is None:
        raise ConfigError(f"{source}: data.folder is missing: it must be a folder with HQ pictures")
    if not model.train:
        raise ConfigError(f'{source}: model.train is empty: name what is trained, such as ["unet", "peam"]')
    if {"unet", "lora"} <= set(model.train):
        raise ConfigError(f'{source}: model.train has both "unet" and "lora": a LoRA is trained instead of the UNet')
    if config.s1 is not None and config.s1.second_lora and not config.s1.first_lora:
        raise ConfigError(f"{source}: s1.first_lora is missing: a second LoRA is trained beside it")
    if config.s1 is not None and "lora" not in model.train:
        raise ConfigError(f'{source}: model.train must have "lora": distillation to one step trains a LoRA')
    shifted = config.s1 is not None and bool(config.s1.shifted)
    wrong = not_fitting(config.adversarial, config.s1 is not None, shifted, config.run.steps, data.patch, model.of.grid)
    if wrong:
        raise ConfigError(f"{source}: {wrong}")
    if nano:
        if model.guidance not in NANO_GUIDANCE:
            listed = ", ".join(NANO_GUIDANCE)
            raise ConfigError(f"{source}: model.guidance must be one of {listed} for nano, not {model.guidance!r}")
        for key in ("sdxl", "vae", "conditioning", "negative_conditioning", "prompt", "negative_prompt", "loras"):
            if key in table["model"]:
                raise ConfigError(f"{source}: model.{key} is for SDXL; nano has no {key}")
    elif not model.base and model.sdxl is None:
        raise ConfigError(f"{source}: model.base is missing: it must be a file with an SDXL-shaped UNet")
    else:
        for part in {"contexts", "decoder"} & set(model.train):
            raise ConfigError(f'{source}: model.train has "{part}", which only nano has')
        for key in ("decoder", "decoder_width", "decoder_depth"):
            if key in table["model"]:
                raise ConfigError(f"{source}: model.{key} is for nano")
    if config.teacher is not None and config.teacher.size < data.patch:
        raise ConfigError(
            f"{source}: data.patch, {data.patch}, is cut from the teacher's crops: teacher.size must be that at least, "
            f"not {config.teacher.size}"
        )
    grid = model.of.grid
    if data.patch % grid:
        raise ConfigError(f"{source}: data.patch must be a multiple of {grid}, not {data.patch}")
    if config.optimizer.schedule == "cosine" and config.optimizer.warmup >= config.run.steps > 1:
        raise ConfigError(
            f"{source}: optimizer.warmup must be less than run.steps, {config.run.steps}, not {config.optimizer.warmup}"
        )
