"""A MODEL as ComfyUI-GGUF's nodes load it: packed weights that say another shape, and layers that hide them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.nodes.comfy_backbone import model as backbone
from pgp_pack.nodes.comfy_backbone import tile_model
from pgp_pack.pgp_core.unet.plan import StackPlan

from . import one_step, scene
from .raised import raised

BLOCK = 32


class Packed(torch.Tensor):
    """Bytes: a scale in half precision and 32 numbers of 8 bits, row by row. ``shape`` is that of the numbers."""

    packed_shape: torch.Size | None = None

    @property
    def shape(self) -> Any:
        return self.packed_shape if self.packed_shape is not None else self.size()

    def to(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def clone(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def detach(self) -> Any:
        return self

    def numbers(self) -> torch.Tensor:
        rows = self.as_subclass(torch.Tensor).reshape(-1, BLOCK + 2)
        scale = rows[:, :2].contiguous().view(torch.float16).float()
        return (rows[:, 2:].contiguous().view(torch.int8).float() * scale).reshape(tuple(self.shape))


def pack(weight: torch.Tensor) -> Packed:
    rows = weight.float().reshape(-1, BLOCK)
    scale = (rows.abs().amax(1, keepdim=True) / 127).half()
    numbers = (rows / scale.float().clamp_min(1e-8)).round().clamp(-127, 127).to(torch.int8)
    data = torch.cat([scale.view(torch.uint8), numbers.view(torch.uint8)], 1).reshape(weight.shape[0], -1)
    packed = data.as_subclass(Packed)
    packed.packed_shape = weight.shape
    return packed


class Operations(comfy.ops.manual_cast):
    class Linear(comfy.ops.manual_cast.Linear):
        def _load_from_state_dict(self, state_dict: Any, prefix: str, *_: Any) -> None:
            for name in ("weight", "bias"):
                value = state_dict.pop(prefix + name, None)
                setattr(self, name, None if value is None else torch.nn.Parameter(value, requires_grad=False))

        def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
            if not isinstance(self.weight, Packed):
                super()._save_to_state_dict(destination, prefix, keep_vars)
                return
            # For an estimate of memory, and with a name that no layer has.
            destination[prefix + "weight"] = torch.empty(self.weight.size(), dtype=torch.uint8, device="meta")
            destination[prefix + "temp.weight"] = torch.empty(tuple(self.weight.shape), device="meta")
            if self.bias is not None:
                destination[prefix + "bias"] = torch.empty(self.bias.shape, device="meta")

        def forward_comfy_cast_weights(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if not isinstance(self.weight, Packed):
                return super().forward_comfy_cast_weights(x, *args, **kwargs)
            return torch.nn.functional.linear(x, self.weight.numbers().to(x), self.bias)


class Patcher(comfy.model_patcher.ModelPatcher):
    """A subclass of core's, which clones keep."""


def quantised(nano: Any) -> tuple[Any, Any]:
    """Nano with its blocks' matrices packed, and nano with the numbers that are left of them."""
    plain, packed = scene.Nano(), {}
    network = plain.model.model.diffusion_model
    for name, weight in network.state_dict().items():
        packed[name] = weight.clone()
        if "transformer_blocks" in name and weight.ndim == 2 and weight.shape[1] % BLOCK == 0:
            packed[name] = pack(weight)
            network.get_parameter(name).data.copy_(packed[name].numbers())
    info = plain.model.model.model_config.info
    config = backbone._SDXLShaped(info)
    config.custom_operations = Operations
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model(packed, "", device=torch.device("cpu"))
    backbone.prune(model.diffusion_model, info.plan)
    model.load_model_weights(packed, "")
    patcher = Patcher(model, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())
    return patcher, plain


def check_quantised(_out: Path) -> Any:
    nano, image, noise = scene.Nano(), scene.pictures(1), scene.noise()
    model, plain = quantised(nano)
    results: dict[str, Any] = {"packed": sum(isinstance(p, Packed) for p in model.model.diffusion_model.parameters())}

    def tiled(m: Any) -> Any:
        return tile_model(m, 32, 16)

    info = plain.model.model.model_config.info.plan
    fewer = dataclasses.replace(info, stacks={s: StackPlan(e.depth, e.keep[1:]) for s, e in info.stacks.items()})

    def pruned(m: Any) -> Any:
        return comfy_backbone.apply_plan(m, fewer)[0]

    guided = comfy_backbone.apply_guidance(model, plain.patch, image, 1.0, 0.0, 1.0)
    expected = plain.guided(image)
    for name, act in {
        "guided": lambda m: m,
        "tiled": tiled,
        "pruned": pruned,
        "tiled, pruned": lambda m: tiled(pruned(m)),
    }.items():
        got, want = (nano.sample(act(m), noise, 2) for m in (guided, expected))
        results[name] = scene.difference(got, want)
    z = nano.vae.encode(image)
    # Neither is nano as it is bundled, which takes one step with its S1 LoRA only.
    expected.cached_patcher_init = None
    results["one step"] = scene.difference(*(one_step._sample(nano, m, z) for m in (guided, expected)))
    results["saving"] = [vars(comfy_backbone.apply_plan(m, fewer)[1]) for m in (model, plain.model)]
    reports = []
    for m in (model, plain.model):
        recorded, recording = comfy_backbone.record(m)
        nano.sample(recorded, noise, 2)
        report = recording.report()
        reports.append(report)
        results.setdefault("blocks", []).append(
            [[b.params, b.macs] for blocks in report.blocks.values() for b in blocks.values()]
        )
    other = scene.Nano()
    for weight in other.model.model.diffusion_model.parameters():
        weight.data.mul_(1.5)
    results["report of it on nano"] = raised(lambda: comfy_backbone.check_report(reports[0], nano.model))
    results["report of nano on it"] = raised(lambda: comfy_backbone.check_report(reports[1], model))
    results["report of it on another"] = raised(lambda: comfy_backbone.check_report(reports[0], other.model))
    results["save"] = raised(lambda: comfy_backbone.save_unet(model, "quantised/model"))
    return results
