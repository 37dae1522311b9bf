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
from ..files.what_it_is import FAITHDIFF_GROUPS, OTHER_PARTS, UNET_HEADS, kind_of, unet_kind
from .known import SDXL
from .plan import PrunePlan, StackPlan
from .prediction import MARKERS, V_PREDICTION, ZERO_SNR, told
from .recognise import latent_channels, shape_of, topology_of
from .shape import UNetShape
from .topology import KeyMap, Scheme, Topology, scheme_of, split_block, stacks_of

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
    if home and (kind := unet_kind(bare)):
        raise CheckpointError(f"{file.name} holds {kind.what}: {kind.advice}")
    if home and (quantised := name_quantised(bare)):
        raise CheckpointError(f"{file.name} {quantised}")
    scheme, names = scheme_of(bare), KeyMap.of(bare)
    whole = [prefix + k for k in bare if prefix + k not in file.floating]
    if whole:
        raise CheckpointError(f"these tensors hold no floating-point numbers: {name_some(whole)}")
    channels, about = latent_channels(bare, scheme, names), _about(file)
    sampling = told(file, prefix, about)
    stacks, stated = stacks_of(bare), _stated(file)
    topology = topology_of(stacks, names.resnets, channels, about.get("topology", stated and stated.topology))
    shape = shape_of(bare, scheme, names, topology)
    own = _own_plan(file.name, stated, stacks, topology)
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
        if not isinstance(about.get("topology", ""), str):
            raise TypeError(f"topology is {about['topology']!r}")
    except Exception as e:
        raise CheckpointError(f'{file.name}: its metadata "{MODEL_KEY}" is wrong: {e}') from None
    return about


def _own_plan(
    name: str, stated: PrunePlan | None, stacks: Mapping[str, tuple[int, ...]], topology: Topology
) -> PrunePlan:
    """Which blocks a file has, named after the plan in its metadata where there is one and it is right."""
    plan = PrunePlan(
        "full" if all(len(b) == topology.depths[s] for s, b in stacks.items()) else "pruned",
        topology.name,
        {s: StackPlan(d, stacks[s]) for s, d in topology.depths.items()},
        {},
    )
    if stated is None:
        return plan
    if stated.topology != topology.name:
        raise CheckpointError(f"{name} is {topology.name}, but the plan in its metadata is for {stated.topology}")
    if stated.blocks != {s: kept for s, kept in plan.blocks.items() if s in stated.stacks}:
        raise CheckpointError(f"{name} has other blocks than the plan in its metadata says: it is incomplete")
    return replace(plan, name=stated.name, provenance=stated.provenance)


def _stated(file: WeightsFile) -> PrunePlan | None:
    """The plan in a file's metadata."""
    text = file.metadata.get(PLAN_KEY)
    if text is None:
        return None
    return PrunePlan.from_json(parse_metadata(text, PLAN_KEY, file.name, CheckpointError), file.name)


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
