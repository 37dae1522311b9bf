"""What a UNet file holds, read from its names, shapes and metadata alone; the same for both backbones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import CheckpointError, PGPError, name_some
from ..files.json_format import loads, parse_metadata
from ..files.prefixes import Home, beneath, find_home
from ..files.scaled_fp8 import name_quantised
from ..files.weights import WeightsFile
from ..files.what_it_is import FAITHDIFF_GROUPS, OTHER_PARTS, UNET_HEADS, kind_of
from .known import NANO_SHAPE, SDXL, SDXL_SHAPE, TOPOLOGIES
from .plan import PrunePlan, StackPlan
from .prediction import MARKERS, V_PREDICTION, ZERO_SNR, told
from .shape import UNetShape
from .topology import KeyMap, Scheme, scheme_of, split_block, stacks_of

#: What of our own metadata is a setting, see :class:`pgp_core.restorers.recipe.Recipe`.
SAID = frozenset({"cfg"})
PLAN_KEY, MODEL_KEY = "pgp.plan", "pgp.model"
#: A UNet's first weight, in both schemes.
_FIRST = {"conv_in.weight", "input_blocks.0.0.weight"}
#: On files whose blocks do not bear their original numbers (``pgp-diffsr export --renumber``).
RENUMBERED_KEY = "pgp.renumbered"


@dataclass(frozen=True)
class UNetInfo:
    """A UNet in a file.

    Attributes:
        name: of the file.
        shape: of the unpruned UNet.
        plan: the blocks that are loaded: those in the file that the plan asked for keeps.
        prediction: one of :data:`pgp_core.schedule.PREDICTIONS`.
        zero_snr: the noise schedule ends in pure noise ("zero terminal SNR").
        latent_std: see :func:`pgp_core.schedule.start_gain`.
        prefix, scheme, names: how the file names its tensors.
        keys: the file's names of the tensors to load.
        spacing: of the timesteps as its diffusers folder has it, by diffusers' names.
        notes: what is to be said of the file, a line each.
        said: what our own metadata says of how the model is meant to be used, such as ``cfg``.
    """

    name: str
    shape: UNetShape
    plan: PrunePlan
    prediction: str
    zero_snr: bool
    latent_std: float
    prefix: str
    scheme: Scheme
    names: KeyMap
    keys: tuple[str, ...]
    spacing: str = "leading"
    notes: tuple[str, ...] = ()
    said: Mapping[str, Any] = field(default_factory=dict)

    def ldm(self, key: str) -> str:
        """LDM name, without prefix, of one of the file's keys."""
        bare = key[len(self.prefix) :]
        return bare if self.scheme == "ldm" else self.names.to_ldm(bare)

    def diffusers(self, key: str) -> str:
        """diffusers' name of one of the file's keys."""
        bare = key[len(self.prefix) :]
        return bare if self.scheme == "diffusers" else self.names.to_diffusers(bare)


def inspect_unet(file: WeightsFile, plan: PrunePlan | None = None) -> UNetInfo:
    """Find the UNet in a file: a UNet alone, a whole checkpoint, or FaithDiff's; full or pruned; either naming.

    Args:
        plan: leave the blocks that it removes in the file.

    Raises:
        CheckpointError: if there is no SDXL-shaped UNet in it, saying what there is.
        PlanError: if the plan, or the one in the metadata, does not fit.
    """
    try:
        return _inspect(file, plan)
    except CheckpointError as e:
        text = str(e)
        raise CheckpointError(text if file.name in text else f"{file.name}: {text}") from None


def unet_of(file: WeightsFile) -> UNetInfo | None:
    """The UNet in a file, or None where there is none that is known."""
    try:
        return inspect_unet(file)
    except PGPError:
        return None


def _inspect(file: WeightsFile, plan: PrunePlan | None) -> UNetInfo:
    if RENUMBERED_KEY in file.metadata:
        raise CheckpointError(
            f"{file.name} has renumbered blocks (export --renumber), for other tools: use the file it was made from"
        )
    home = find_home(file.shapes, UNET_HEADS)
    prefix = home.prefix if home else ""
    found = beneath(file, home or Home()).shapes
    bare = {k: v for k, v in found.items() if not k.startswith((*FAITHDIFF_GROUPS, *OTHER_PARTS)) and k not in MARKERS}
    if not bare.keys() & _FIRST and (kind := kind_of(bare or file.shapes)):
        raise CheckpointError(f"{file.name} holds {kind.what}, no UNet: {kind.advice}")
    if home and (quantised := name_quantised(bare)):
        raise CheckpointError(f"{file.name} {quantised}")
    scheme, names = scheme_of(bare), KeyMap.of(bare)
    if names.resnets != 2:
        raise CheckpointError(f"its UNet has {names.resnets} residual blocks a level, SDXL has 2")
    whole = [prefix + k for k in bare if prefix + k not in file.floating]
    if whole:
        raise CheckpointError(f"these tensors hold no floating-point numbers: {name_some(whole)}")
    shape = _shape(bare, scheme, names)
    about = _about(file)
    sampling = told(file, prefix, about)
    stacks = stacks_of(bare)
    own = _own_plan(file, stacks, shape)
    kept = own if plan is None else _narrowed(own, plan, stacks, file.name)

    def stays(key: str) -> bool:
        block = split_block(key)
        if block is None:
            return True
        stack = names.to_diffusers(block[0]) if scheme == "ldm" else block[0]
        return kept.keeps(stack, block[1])

    # Raises where a name belongs to no UNet, so that asking for it later does not.
    renamed = {names.to_diffusers(k) if scheme == "ldm" else names.to_ldm(k): k for k in bare}
    twice = bare.keys() - renamed.values()
    if twice:
        raise CheckpointError(f"these tensors are in it twice, under two spellings: {name_some(twice)}")
    return UNetInfo(
        name=file.name,
        shape=shape,
        plan=kept,
        prediction=sampling.prediction,
        zero_snr=sampling.zero_snr,
        latent_std=float(about.get("latent_std", 0)),
        prefix=prefix,
        scheme=scheme,
        names=names,
        keys=tuple(prefix + k for k in bare if stays(k)),
        spacing=sampling.spacing,
        said={k: about[k] for k in about if k in SAID},
        notes=tuple(n for n in (*file.notes, home.note if home else "", *sampling.notes) if n),
    )


def _about(file: WeightsFile) -> dict[str, Any]:
    """Our own metadata on a file, or nothing."""
    text = file.metadata.get(MODEL_KEY)
    if text is None:
        return {}
    try:
        about = loads(text)
        if not isinstance(about, dict):
            raise TypeError("it is no object")
        if not 0 <= float(about.get("latent_std", 0)) <= 1e4:
            raise ValueError(f"latent_std is {about['latent_std']}")
        if not 0 <= float(about.get("cfg", 1)) <= 100:
            raise ValueError(f"cfg is {about['cfg']}")
    except Exception as e:
        raise CheckpointError(f'{file.name}: its metadata "{MODEL_KEY}" is wrong: {e}') from None
    return about


def _shape(bare: Mapping[str, tuple[int, ...]], scheme: Scheme, names: KeyMap) -> UNetShape:
    """Widths from the weights. What widths do not say (channels a head) is SDXL's, or nano's."""

    def size(name: str, axis: int) -> int:
        key = names.to_ldm(name) if scheme == "ldm" else name
        found = bare.get(key)
        if found is None:
            kind = kind_of(bare)
            if kind is not None:
                raise CheckpointError(f"it holds {kind.what}, no UNet (it lacks {key}): {kind.advice}")
            raise CheckpointError(f"it lacks {key}, so it holds no whole SDXL-shaped UNet")
        if len(found) <= axis or not 1 <= found[axis] <= 65536:
            raise CheckpointError(f"{key} has the impossible shape {tuple(found)}")
        return int(found[axis])

    label = names.to_ldm("add_embedding.linear_1.weight") if scheme == "ldm" else "add_embedding.linear_1.weight"
    if label not in bare:
        raise CheckpointError("it is a UNet of Stable Diffusion 1.5 or 2; PGP-DiffSR needs SDXL's")
    if any(k.startswith("input_blocks.9." if scheme == "ldm" else "down_blocks.3.") for k in bare):
        raise CheckpointError("its UNet has four scales, as SDXL's refiner has; the base model is needed")
    inputs, outputs = size("conv_in.weight", 1), size("conv_out.weight", 0)
    if inputs == 9:
        raise CheckpointError("it is an inpainting UNet (9 input channels); a plain SDXL UNet (4) is needed")
    if inputs != outputs or inputs not in (SDXL_SHAPE.latent_channels, NANO_SHAPE.latent_channels):
        raise CheckpointError(f"its UNet has {inputs} input and {outputs} output channels; SDXL has 4 and 4")
    like = NANO_SHAPE if inputs == NANO_SHAPE.latent_channels else SDXL_SHAPE
    one, two, three = (size(f"down_blocks.{i}.resnets.0.conv1.weight", 0) for i in range(3))
    widths = (one, two, three)
    context = {v[1] for k, v in bare.items() if k.endswith(".attn2.to_k.weight") and len(v) == 2}
    if len(context) > 1:
        raise CheckpointError(f"its cross-attention takes tokens of several widths: {sorted(context)}")
    shape = replace(
        like,
        channels=widths,
        context_dim=context.pop() if context else like.context_dim,
        pooled_dim=size("add_embedding.linear_1.weight", 1) - 6 * 256,
    )
    # 32: the groups of GroupNorm.
    if shape.pooled_dim < 1 or any(w % shape.head_dim or w % 32 or w % widths[0] for w in widths):
        raise CheckpointError(f"its UNet has levels of {widths} channels, which is no width of SDXL's kind")
    return shape


def _own_plan(file: WeightsFile, stacks: Mapping[str, tuple[int, ...]], shape: UNetShape) -> PrunePlan:
    """Which blocks the file has, named after its metadata where that says so and is right."""
    topology = shape.topology
    plan = PrunePlan(
        "full" if all(len(b) == topology.depths.get(s) for s, b in stacks.items()) else "pruned",
        topology.name,
        {s: StackPlan(d, stacks.get(s, ())) for s, d in topology.depths.items()},
        {},
    )
    missing = [s for s in topology.depths if s not in stacks]
    foreign = [s for s in stacks if s not in topology.depths]
    if missing or foreign:
        what = f"lacks the transformer stacks {name_some(missing)}" if missing else f"has {name_some(foreign)} besides"
        raise CheckpointError(f"it is not shaped as {topology.name}: it {what}")
    for stack, depth in topology.depths.items():
        if any(b >= depth for b in stacks[stack]):
            raise CheckpointError(
                f"its {stack} has block {max(stacks[stack])}; {topology.name} has {depth} blocks there"
            )
    text = file.metadata.get(PLAN_KEY)
    if text is None:
        return plan
    stated = PrunePlan.from_json(parse_metadata(text, PLAN_KEY, file.name, CheckpointError), file.name)
    if stated.topology not in TOPOLOGIES:
        raise CheckpointError(f"{file.name} is pruned from {stated.topology}, which this release does not know: update")
    if stated.topology != topology.name:
        raise CheckpointError(f"{file.name} is {topology.name}, but the plan in its metadata is for {stated.topology}")
    if stated.blocks != {s: kept for s, kept in plan.blocks.items() if s in stated.stacks}:
        raise CheckpointError(f"{file.name} has other blocks than the plan in its metadata says: it is incomplete")
    return replace(plan, name=stated.name, provenance=stated.provenance)


def _narrowed(own: PrunePlan, plan: PrunePlan, stacks: Mapping[str, tuple[int, ...]], name: str) -> PrunePlan:
    """The file's blocks less what a plan removes."""
    if plan.topology != own.topology:
        raise CheckpointError(f"plan {plan.name} is for {plan.topology}, {name} is {own.topology}: choose another plan")
    plan.check_model(stacks, name)
    return PrunePlan(
        plan.name,
        own.topology,
        {s: StackPlan(e.depth, tuple(b for b in e.keep if plan.keeps(s, b))) for s, e in own.stacks.items()},
        plan.provenance,
    )


def metadata_of(info: UNetInfo, title: str) -> dict[str, str]:
    """Metadata for a file of this UNet: modelspec, the plan, and what loading needs to know."""
    architecture = "stable-diffusion-xl-v1-base" if info.shape.topology is SDXL else info.shape.topology.name
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": architecture,
        "modelspec.implementation": "sgm",
        "modelspec.title": title,
        "modelspec.prediction_type": {"v_prediction": "v"}.get(info.prediction, info.prediction),
        PLAN_KEY: json.dumps(info.plan.to_json()),
        MODEL_KEY: json.dumps(
            {
                "topology": info.shape.topology.name,
                "prediction": info.prediction,
                "latent_std": info.latent_std,
                **info.said,
                **({"zero_snr": True} if info.zero_snr else {}),
            }
        ),
    }


def markers_of(info: UNetInfo) -> tuple[str, ...]:
    """Names of the empty tensors by which a file of this UNet tells core's loader how it is sampled."""
    return (V_PREDICTION,) * (info.prediction == "v_prediction") + (ZERO_SNR,) * info.zero_snr
