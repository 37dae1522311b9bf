"""Files of this project, by their formats' names and metadata; and what a folder says of the file in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..codecs import decoder_file
from ..conditioning import entries
from ..errors import CheckpointError, PGPError, ReportError
from ..files import diffusers_folder
from ..files.json_format import loads, parse_metadata
from ..files.signs.names import Kind
from ..files.weights import WeightsFile
from ..guidance import spec as guidance
from ..unet import plan
from ..unet.inspect import RENUMBERED_KEY
from ..unet.known import SDXL
from ..unet.lora.files import NAMES
from .sdxl.loras import S1_KEY

_REPORT = "pgp-diffsr/redundancy-report"
_PARTS = {
    "lq_adapter": "LQ adapter",
    "peam": "PEAM",
    "lq_encoder": "FaithDiff's LQ encoder",
    "alignment": "FaithDiff's alignment",
}
#: By the factor that a folder's configuration says its latents are scaled with.
_SCALES = {0.13025: "SDXL", 0.18215: "Stable Diffusion 1 or 2", 0.3611: "Flux.1", 1.5305: "Stable Diffusion 3"}
#: Bytes of a JSON file that are looked at for its format.
_LONGEST = 64 << 20


def is_ours(path: Path) -> bool:
    """Whether a JSON file is a plan or a report."""
    try:
        with path.open("rb") as file:
            return of_json(path, file.read(1024)) is not None
    except OSError:
        return False


def of_json(path: Path, start: bytes) -> Kind | None:
    """A plan or a report.

    Args:
        start: the file's first bytes; both formats have their name there.

    Raises:
        PGPError: if it says that it is one, and is damaged.
    """
    if path.suffix.lower() != ".json":
        return None
    if plan.FORMAT.encode() in start:
        found = plan.load_plan(path)
        return Kind(
            f"a prune plan for {found.topology}, {found.name}: it removes {found.removed} blocks",
            "for --plan, or models/pgp_plans",
        )
    if _REPORT.encode() in start:
        if path.stat().st_size > _LONGEST:
            raise ReportError(f"{path.name} is longer than any report: get it again")
        return Kind("a redundancy report", "for pgp-diffsr plan build --report FILE")
    return None


def of_metadata(file: WeightsFile) -> Kind | None:
    """Guidance, saved CONDITIONING, a one-step LoRA, a UNet for other tools: what says of itself that it is ours.

    Raises:
        PGPError: if it says so, and is damaged.
    """
    if guidance.METADATA_KEY in file.metadata:
        return _guidance(guidance.GuidanceSpec.from_metadata(file.metadata, file.name))
    if decoder_file.METADATA_KEY in file.metadata:
        shape = decoder_file.read_shape(file.metadata, file.name)
        return Kind(
            f"nano's learned decoder ({shape.depth} convolutions of width {shape.width})", "for nano's folder", ""
        )
    if entries.METADATA_KEY in file.metadata:
        said = parse_metadata(file.metadata[entries.METADATA_KEY], entries.METADATA_KEY, file.name, CheckpointError)
        return _conditioning(said if isinstance(said, Mapping) else {})
    if S1_KEY in file.metadata:
        return _one_step(file)
    if RENUMBERED_KEY in file.metadata:
        return Kind("a pruned UNet with renumbered blocks, for other tools", "for what it was exported for")
    return None


def _guidance(spec: guidance.GuidanceSpec) -> Kind:
    parts = ", ".join(_PARTS[p] for p in spec.PARTS if p in spec.parts)
    trained = "" if spec.trained else ", not trained"
    made = f", made with the plan {spec.plan_name}" if spec.plan_name else ""
    return Kind(f"guidance for {spec.base} ({parts}{trained}{made})", "for --guidance, or Load PGP-DiffSR Guidance", "")


def _conditioning(said: Mapping[str, Any]) -> Kind:
    prompt = said.get("prompt")
    of = f" of the prompt {prompt[:80]!r}" if isinstance(prompt, str) and prompt else ""
    return Kind(
        f"saved CONDITIONING{of}", "for --conditioning or --negative-conditioning, or Load PGP-DiffSR Conditioning"
    )


def _one_step(file: WeightsFile) -> Kind:
    try:
        said = loads(file.metadata[S1_KEY])
        timestep, topology = int(said["timestep"]), str(said.get("topology", SDXL.name))
    # Older files say less.
    except Exception:
        return Kind("a LoRA for one step (S1)", "for --lora with --one-step")
    return Kind(
        f"a LoRA for one step (S1) of {topology}, at timestep {timestep}", "for --lora with --one-step, or Load LoRA"
    )


def lora_in(folder: Path) -> Path | None:
    """The LoRA of a folder as PEFT or diffusers saves it; None where it holds other files of weights too."""
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if not found:
        return None
    others = [p for p in folder.iterdir() if p.suffix.lower() in diffusers_folder.WEIGHTS and p.name not in NAMES]
    return None if others else found[0]


def whose_vae(path: Path, what: str) -> str:
    """What a VAE is, where the folder of diffusers that it lies in says it: files of SDXL's and SD's are alike."""
    folder = path if path.is_dir() else path.parent
    if not what.startswith("a VAE of ") or not (path.is_dir() or folder.name == "vae"):
        return what
    try:
        factor = diffusers_folder.config(folder).get("scaling_factor")
    except PGPError:
        return what
    whose = next((name for known, name in _SCALES.items() if factor == known), None)
    return f"a VAE of {whose}" if whose else what
