"""From a run folder to the files that ship: pruned UNet, guidance, contexts, S1 LoRA, figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..codecs.decoder_file import read_decoder, write_decoder
from ..errors import PGPError
from ..files.atomic import replacing
from ..files.boundary import parsing
from ..files.checkpoints import read_safetensors, sha256, write_safetensors
from ..files.text import read_text
from ..guidance.module import KEY_PREFIX, METADATA_KEY
from ..restorers.nano import model as nano
from ..restorers.nano.family import NANO
from ..restorers.nano.natural import DEFAULT_KEY
from ..unet import lora
from ..unet.plan import load_plan
from ..unet.topology import KeyMap, stacks_of
from . import nano_decoder
from .config import named_paths
from .journal import read_rows
from .nano import STAGES, stage_config

#: A run of the user's own in the same folder: distillation to the second S1 LoRA, see
#: :mod:`pgp_core.restorers.nano.natural`.
NATURAL = "natural"


def export_nano(
    folder: Path, out: Path = nano.FOLDER, cfg: float = 1.0, natural_default: float = 0.0
) -> dict[str, Any]:
    """Write nano's files in float16 from stage ``finish`` and, as far as S1 has been run, ``s1-2`` or ``s1``; one of
    these may have a decoder, which one step and many then share. Where there is a run :data:`NATURAL`, its LoRA too.

    Args:
        folder: the run folder of :func:`pgp_core.training.nano.run_stage`.
        cfg: CFG scale that the multi-step model is meant for; stored in the file.
        natural_default: how natural one step is meant to be, 0 to 1; stored in the natural LoRA's file.

    Returns:
        settings, sizes and hashes, which are also in ``figures.json`` beside the files; the stages' logs are together
        in ``log.jsonl``.

    Raises:
        PGPError: if stage ``finish`` has not been run, or with another plan than its configuration's.
    """
    path = folder / "finish" / "model.safetensors"
    if not path.exists():
        raise PGPError(f"{path} is not there: run stage finish first")
    weights, _ = read_safetensors(path)
    plan = load_plan(stage_config("finish", folder).model.plan)
    unet = {k[5:]: v for k, v in weights.items() if k.startswith("unet.")}
    names = KeyMap.of(unet)
    if stacks_of(unet) != plan.blocks:
        raise PGPError(f"{path} has other blocks than plan {plan.name}: train it with the plan of nano-finish.toml")
    write_safetensors(
        out / nano.UNET_FILE,
        {names.to_ldm(k): v.half() for k, v in unet.items()},
        {
            "pgp.plan": json.dumps(plan.to_json()),
            "pgp.model": json.dumps(
                {
                    "topology": plan.topology,
                    "prediction": nano.PREDICTION,
                    "cfg": cfg,
                    "latent_std": nano.RESIDUAL_STD,
                }
            ),
            **_modelspec("PGP-DiffSR nano", "A demonstration: pruned UNet of the residual latent."),
        },
    )
    guidance = {k[9:]: v for k, v in weights.items() if k.startswith("guidance.")}
    spec = nano.guidance_spec().with_plan(plan)
    write_safetensors(
        out / nano.GUIDANCE_FILE,
        {KEY_PREFIX + k: v.half() for k, v in guidance.items()},
        {METADATA_KEY: json.dumps(spec.to_json()), **_modelspec("PGP-DiffSR nano guidance", "LQ adapter and PEAM.")},
    )
    context, pooled = weights["contexts.context"], weights["contexts.pooled"]
    write_safetensors(
        out / nano.CONTEXTS_FILE,
        {
            f"{kind}.{part}": value[i : i + 1].half()
            for i, kind in enumerate(("negative", "positive"))
            for part, value in (("context", context), ("pooled", pooled))
        },
    )
    s1 = next((n for n in ("s1-2", "s1") if (folder / n / "model.safetensors").exists()), None)
    if s1 is not None:
        rank = stage_config(s1, folder).model.lora_rank
        _write_s1(folder / s1, out / nano.S1_FILE, rank, plan.topology)
    if (folder / NATURAL / "model.safetensors").exists():
        rank = int(_figures(folder / NATURAL)["config"]["model"]["lora_rank"])
        said = {DEFAULT_KEY: f"{natural_default:g}"}
        _write_s1(folder / NATURAL, out / nano.NATURAL_FILE, rank, plan.topology, said, ", natural")
    _export_decoder(folder, (s1, "finish") if s1 is not None else ("finish",), out)
    done = [name for name in (*STAGES, NATURAL) if (folder / name / "figures.json").exists()]
    stages = [{"stage": name, **_figures(folder / name)} for name in done]
    log = [{"stage": name, **row} for name in done for row in read_rows(folder / name / "log.jsonl")]
    _write(out / "log.jsonl", "".join(json.dumps(entry) + "\n" for entry in log))
    files = {
        str(p.relative_to(out)): {"bytes": p.stat().st_size, "sha256": sha256(p)}
        for p in sorted(out.rglob("*.safetensors"))
    }
    figures = {"stages": stages, "files": files, "torch": torch.__version__}
    _write(out / "figures.json", json.dumps(figures, indent=2) + "\n")
    return figures


def _export_decoder(folder: Path, stages: Sequence[str], out: Path) -> None:
    """The decoder of the first of these stages that has one; one of an earlier export does not stay beside others."""
    target = out / nano.DECODER_FILE
    found = next((p for p in (folder / name / nano_decoder.FILE for name in stages) if p.is_file()), None)
    if found is not None:
        spec = _modelspec("PGP-DiffSR nano decoder", "Convolutions that redraw what the pixel shuffle gives.")
        write_decoder(target, read_decoder(found), torch.float16, spec)
        return
    try:
        target.unlink(missing_ok=True)
    except OSError as e:
        raise PGPError(f"{target} cannot be removed ({e.strerror or e}): the run has no decoder") from None


def _write_s1(
    run: Path, target: Path, rank: int, topology: str, said: dict[str, str] | None = None, what: str = ""
) -> None:
    """A run's LoRA as a file for every tool."""
    peft, _ = read_safetensors(run / "model.safetensors")
    write_safetensors(
        target,
        lora.from_peft({k[5:]: v.half() for k, v in peft.items() if k.startswith("unet.")}),
        {
            "pgp.s1": json.dumps({"timestep": nano.S1_TIMESTEP, "rank": rank, "topology": topology}),
            **_modelspec(f"PGP-DiffSR nano S1{what}", "LoRA for one-step restoration."),
            **(said or {}),
        },
    )


def _write(path: Path, text: str) -> None:
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as e:
        raise PGPError(f"{path} cannot be written ({e.strerror or e})") from None


def _figures(stage: Path) -> dict[str, Any]:
    """A stage's figures."""
    path = stage / "figures.json"
    with parsing(path, PGPError, "run the stage again"):
        figures: dict[str, Any] = json.loads(read_text(path))
        figures["config"] = named_paths(figures["config"])
    return figures


def import_nano(folder: Path, source: Path = nano.FOLDER) -> Path:
    """The other way round: the files that ship become stage ``fine`` of a run folder, to train on from there.

    PEAM and what feeds it alone are left out: stage ``teach`` starts them afresh.

    Returns:
        the file written.

    Raises:
        PGPError: if stage ``fine`` is there already.
    """
    target = folder / "fine" / "model.safetensors"
    if target.exists():
        raise PGPError(f"{target} is there already: choose another folder")
    unet, _ = read_safetensors(source / nano.UNET_FILE)
    names = KeyMap.of(unet)
    weights = {f"unet.{names.to_diffusers(k)}": v.float() for k, v in unet.items()}
    guidance, _ = read_safetensors(source / nano.GUIDANCE_FILE)
    own = ("lq_adapter.conv_in.", *(f"lq_adapter.body.{i}." for i in range(nano.guidance_spec(None).levels)))
    stripped = {k.removeprefix(KEY_PREFIX): v for k, v in guidance.items()}
    weights |= {f"guidance.{k}": v.float() for k, v in stripped.items() if k.startswith(own)}
    contexts, _ = read_safetensors(source / nano.CONTEXTS_FILE)
    for part in ("context", "pooled"):
        weights[f"contexts.{part}"] = torch.cat([contexts[f"{k}.{part}"].float() for k in ("negative", "positive")])
    write_safetensors(target, weights)
    if (source / nano.DECODER_FILE).is_file():
        write_decoder(target.parent / nano_decoder.FILE, read_decoder(source / nano.DECODER_FILE))
    return target


def _modelspec(title: str, description: str) -> dict[str, str]:
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": NANO.name,
        "modelspec.title": title,
        "modelspec.description": description,
        "modelspec.license": "Apache-2.0",
    }
