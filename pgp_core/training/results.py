"""What a run ends with: the files that users load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from ..choices import DTYPES
from ..codecs.decoder import PixelDecoder
from ..codecs.decoder_file import write_decoder
from ..files.checkpoints import write_safetensors
from ..guidance.module import KEY_PREFIX, METADATA_KEY
from ..restorers.sdxl.loras import S1_KEY
from ..unet import lora
from ..unet.inspect import markers_of, metadata_of
from ..unet.topology import KeyMap
from . import nano_decoder
from .building import WEIGHTS, Parts
from .config import RunConfig
from .lora_layers import lora_weights
from .subject import Subject

UNET, GUIDANCE, LORA = "unet.safetensors", "guidance.safetensors", "lora.safetensors"
LORA_KEY = "pgp.lora"


def write_results(subject: Subject, config: RunConfig, parts: Parts) -> list[Path]:
    """Write what was trained to the run's folder.

    Nano: ``model.safetensors``, everything, or the LoRA alone where that is trained, and ``decoder.safetensors`` where
    there is a learned decoder, trained or not. SDXL: ``unet.safetensors`` (LDM
    names, original block numbers), ``guidance.safetensors`` and ``lora.safetensors``, each where it was trained.

    Raises:
        CheckpointError: if one cannot be written.
    """
    folder, train = config.run.folder, set(config.model.train)
    weights = {k: v.detach().cpu() for k, v in subject.state_dict().items()}
    if parts.info is None:
        weights = {k: v for k, v in weights.items() if not k.startswith("decoder.")}
        if "lora" in train:
            weights = {k: v for k, v in weights.items() if ".lora_" in k}
        write_safetensors(folder / WEIGHTS, weights)
        decoder = getattr(subject, "decoder", None)
        if not isinstance(decoder, PixelDecoder):
            return [folder / WEIGHTS]
        write_decoder(folder / nano_decoder.FILE, decoder)
        return [folder / WEIGHTS, folder / nano_decoder.FILE]
    dtype = getattr(torch, DTYPES[config.run.result_dtype])
    unet = {k[5:]: v for k, v in weights.items() if k.startswith("unet.")}
    written = []
    if "unet" in train:
        written.append(_write_unet(folder / UNET, unet, parts, dtype))
    if train & {"lq_adapter", "peam", "lq_encoder", "alignment"} and parts.spec is not None:
        spec = replace(parts.spec, trained=True).with_plan(parts.plan)
        guidance = {KEY_PREFIX + k[9:]: v.to(dtype) for k, v in weights.items() if k.startswith("guidance.")}
        title = {"modelspec.title": f"{folder.name} guidance"}
        write_safetensors(folder / GUIDANCE, guidance, {METADATA_KEY: json.dumps(spec.to_json()), **title})
        written.append(folder / GUIDANCE)
    if "lora" in train:
        written.append(_write_lora(folder / LORA, unet, config, parts, dtype))
    return written


def _write_unet(path: Path, unet: Mapping[str, torch.Tensor], parts: Parts, dtype: torch.dtype) -> Path:
    assert parts.info is not None
    names = KeyMap.of(unet)
    tensors = {names.to_ldm(k): v.to(dtype) for k, v in unet.items()}
    tensors |= {name: torch.zeros(0) for name in markers_of(parts.info)}
    write_safetensors(path, tensors, metadata_of(parts.info, path.parent.name))
    return path


def _write_lora(
    path: Path, unet: Mapping[str, torch.Tensor], config: RunConfig, parts: Parts, dtype: torch.dtype
) -> Path:
    tensors = lora.from_peft({k: v.to(dtype) for k, v in lora_weights(unet).items()})
    about = {"rank": config.model.lora_rank, "topology": parts.plan.topology, "plan_sha256": parts.plan.sha256()}
    metadata = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.title": path.parent.name,
    }
    if config.s1 is None:
        metadata[LORA_KEY] = json.dumps({"kind": "healing", **about})
    else:
        timestep = config.s1.timestep if config.s1.timestep is not None else 1
        metadata[S1_KEY] = json.dumps({"timestep": timestep, **about})
    write_safetensors(path, tensors, metadata)
    return path
