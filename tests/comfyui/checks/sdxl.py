"""SDXL-shaped files, narrow: FaithDiff, plans on files and on a loaded MODEL, saving."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch as replace

import comfy.cldm.cldm
import comfy.controlnet
import comfy.lora
import comfy.model_management
import comfy.sample
import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy_extras.nodes_torch_compile import TorchCompileModel
from pgp_pack.nodes import comfy_backbone
from pgp_pack.nodes.comfy_backbone.model import WEIGHT_DTYPES
from pgp_pack.pgp_core.unet.plan import PrunePlan, StackPlan, load_plan
from safetensors import safe_open

from . import scene

HEIGHT, WIDTH, FACTOR = 17, 13, 8
SEED, STEPS, CFG = 5, 4, 5.0

GAPS = scene.support("gaps").GAPS


def gaps() -> PrunePlan:
    return PrunePlan("gaps", "sdxl", {k: StackPlan(d, keep) for k, (d, keep) in GAPS.items()})


def files(out: Path) -> Path:
    """Where the tests put the narrow files."""
    return out.parent / "files"


def conditioning(seed: int) -> list[Any]:
    g = torch.Generator().manual_seed(seed)
    sizes = {"height": 136, "width": 104, "crop_h": 0, "crop_w": 0, "target_height": 136, "target_width": 104}
    return [[torch.randn(1, 7, 32, generator=g), {"pooled_output": torch.randn(1, 32, generator=g), **sizes}]]


def pictures(seed: int, batch: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(batch, 3, 6, 6, generator=g)
    x = torch.nn.functional.interpolate(x, (HEIGHT * FACTOR, WIDTH * FACTOR), mode="bicubic", align_corners=False)
    return x.clamp(0, 1).movedim(1, -1).contiguous()


def noise(batch: int = 1) -> torch.Tensor:
    result: torch.Tensor = comfy.sample.prepare_noise(torch.zeros(batch, 4, HEIGHT, WIDTH), SEED)
    return result


def sample(
    model: Any,
    batch: int = 1,
    steps: int = STEPS,
    cfg: float = CFG,
    latent: Any = None,
    start: Any = None,
    control: Any = None,
    **options: Any,
) -> torch.Tensor:
    """As the KSampler node: Euler, ``ddim_uniform``."""
    positive, negative = conditioning(1), conditioning(2)
    if control is not None:
        hint = pictures(7).movedim(-1, 1)
        for ((_, entry),) in (positive, negative):
            entry["control"] = control.copy().set_cond_hint(hint, 1.0, (0.0, 1.0))
            entry["control_apply_to_uncond"] = False
    start = noise(batch) if start is None else start
    # fmt: off
    result: torch.Tensor = comfy.sample.sample(
        model, start, steps, cfg, "euler", "ddim_uniform", positive, negative,
        torch.zeros_like(start) if latent is None else latent, denoise=1.0, seed=SEED, disable_pbar=True, **options,
    )
    # fmt: on
    return result


def load(out: Path, name: str = "FaithDiff.bin", **options: Any) -> Any:
    return comfy_backbone.load_unet(str(files(out) / name), {"dtype": torch.float32, **options})


def check_faithdiff(out: Path) -> Any:
    model = load(out)
    guidance = comfy_backbone.load_guidance(str(files(out) / "FaithDiff.bin"))
    image = pictures(1, 2)
    latent = sample(comfy_backbone.apply_guidance(model, guidance, image, 1.0, 0.0, 1.0), 2)
    first = comfy_backbone.apply_guidance(model, guidance, image[:1], 1.0, 0.0, 1.0)
    alone = sample(first, start=noise(2)[:1])
    scene.save(out, image=image, latent=latent, noise=noise(2), alone=alone)
    converted = comfy_backbone.apply_guidance(
        load(out, "faithdiff-unet.safetensors"),
        comfy_backbone.load_guidance(str(files(out) / "faithdiff-guidance.safetensors")),
        *(image, 1.0, 0.0, 1.0),
    )
    return {
        "unguided": scene.difference(latent, sample(model, 2)),
        "converted is the same": torch.equal(sample(converted, 2), latent),
        "said": comfy_backbone.describe_guidance(guidance),
    }


def check_one_lq_for_a_batch_and_cfg_one(out: Path) -> Any:
    model = load(out)
    guidance = comfy_backbone.load_guidance(str(files(out) / "FaithDiff.bin"))
    guided = comfy_backbone.apply_guidance(model, guidance, pictures(1), 1.0, 0.0, 1.0)
    twice = comfy_backbone.apply_guidance(model, guidance, pictures(1).repeat(2, 1, 1, 1), 1.0, 0.0, 1.0)
    return {"difference": scene.difference(sample(guided, 2, cfg=1.0), sample(twice, 2, cfg=1.0))}


def check_pgp(out: Path) -> Any:
    """Pruned, FaithDiff's alignment and PEAM in one file; a fresh PEAM changes nothing, a trained one does."""
    model, image = load(out, plan=gaps()), pictures(1)

    def run(name: str) -> torch.Tensor:
        guidance = comfy_backbone.load_guidance(str(files(out) / name))
        return sample(comfy_backbone.apply_guidance(model, guidance, image, 1.0, 0.0, 1.0))

    both, fresh, faithdiff = run("both.safetensors"), run("both-fresh.safetensors"), run("FaithDiff.bin")
    alone, plain = run("fresh.safetensors"), sample(model)
    scene.save(out, image=image, latent=both, noise=noise())
    patch = comfy_backbone.load_guidance(str(files(out) / "fresh.safetensors"))
    return {
        "fresh changes nothing": torch.equal(alone, plain),
        "fresh beside alignment changes nothing": torch.equal(fresh, faithdiff),
        "trained changes": scene.difference(both, faithdiff),
        "said": comfy_backbone.describe_guidance(patch),
    }


def _lora() -> dict[str, torch.Tensor]:
    """A LoRA on every block of two stacks, in kohya's names; large, so that one block more or less shows."""
    g, lora = torch.Generator().manual_seed(3), {}
    for stack, depth in (("down_blocks_2_attentions_1", 10), ("up_blocks_0_attentions_0", 10)):
        for i in range(depth):
            stem = f"lora_unet_{stack}_transformer_blocks_{i}_attn1_to_q"
            lora[f"{stem}.lora_down.weight"] = torch.randn(4, 64, generator=g)
            lora[f"{stem}.lora_up.weight"] = torch.randn(64, 4, generator=g) * 0.3
            lora[f"{stem}.alpha"] = torch.tensor(4.0)
    return lora


def check_lora_by_peft(out: Path) -> Any:
    """A LoRA by PEFT on a UNet with gaps, through core's loader."""
    model = load(out, plan=gaps())
    patched, loaded = scene.with_lora(model, files(out) / "lora.safetensors")
    x = noise(2)
    result = scene.raw(patched, conditioning(1), x, 1)
    scene.save(out, x=x, output=result)
    return {**loaded, "changes": scene.difference(result, scene.raw(model, conditioning(1), x, 1))}


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Lines of warnings."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger().removeHandler(handler)


def check_plans(out: Path) -> Any:
    """File with plan, MODEL with plan and saved file: the same, in any order with clones and LoRAs."""
    base = load(out)
    whole = sample(base)
    from_file = load(out, plan=gaps())
    live, saving = comfy_backbone.apply_plan(base, gaps())
    expected = sample(from_file)
    results = {"differs from whole": scene.difference(expected, whole)}
    results["live is the file's"] = torch.equal(sample(live), expected)
    results["base after pruned"] = torch.equal(sample(base), whole)
    results["clone of live"] = torch.equal(sample(live.clone()), expected)

    def with_lora(model: Any) -> Any:
        return comfy.sd.load_lora_for_models(model, None, _lora(), 1.0, 0.0)[0]

    with _logged() as lines:
        lora_on_file = with_lora(from_file)
    results["said of the LoRA"] = lines
    expected_lora = sample(lora_on_file)
    results["LoRA matters"] = scene.difference(expected_lora, expected)
    # The pruned clone was loaded last: keys of skipped blocks must still be found.
    sample(live)
    lora_on_live = with_lora(live)
    results["LoRA layers on file, live"] = [len(lora_on_file.patches), len(lora_on_live.patches)]
    results["LoRA after plan"] = torch.equal(sample(lora_on_live), expected_lora)
    lora_on_base = with_lora(base)
    whole_lora = sample(lora_on_base)
    plan_after, _ = comfy_backbone.apply_plan(lora_on_base, gaps())
    results["plan after LoRA"] = torch.equal(sample(plan_after), expected_lora)
    results["base with LoRA after that"] = torch.equal(sample(lora_on_base), whole_lora)
    results["base at the end"] = torch.equal(sample(base), whole)
    results["said"] = str(saving)

    coarse, _ = comfy_backbone.apply_plan(base, load_plan("pgp-sdxl-coarse"))
    both, _ = comfy_backbone.apply_plan(coarse, load_plan("pgp-sdxl"))
    results["coarse then fine"] = torch.equal(sample(both), sample(load(out, plan=load_plan("pgp-sdxl"))))
    try:
        comfy_backbone.apply_plan(both, load_plan("pgp-sdxl-coarse"))
    except Exception as e:
        results["back to coarse"] = [type(e).__name__, str(e)]

    folder_paths.set_output_directory(str(files(out) / "output"))
    for name, model, reference in (("live", live, expected), ("file", from_file, expected)):
        path = comfy_backbone.save_unet(model, "diffusion_models/pruned", {"1": {}}, {"workflow": {"x": 1}})
        again = comfy_backbone.load_unet(str(path), {"dtype": torch.float32})
        results[f"saved {name}"] = torch.equal(sample(again), reference)
        with safe_open(path, "pt") as f:
            results[f"saved {name}: keys"] = len(list(f.keys()))
            results[f"saved {name}: metadata"] = f.metadata()
    baked = comfy_backbone.load_unet(str(comfy_backbone.save_unet(lora_on_live, "x")), {"dtype": torch.float32})
    results["saved with LoRA"] = scene.difference(sample(baked), expected_lora)
    return results


def check_attention_patches_see_original_blocks(out: Path) -> Any:
    def seen(model: Any) -> list[list[Any]]:
        found: list[list[Any]] = []

        def patch(q: Any, k: Any, v: Any, extra: Any) -> Any:
            found.append([*extra["block"], extra["block_index"]])
            return q, k, v

        model = model.clone()
        model.set_model_attn1_patch(patch)
        sample(model, steps=1, cfg=1.0)
        return found

    return {"file": seen(load(out, plan=gaps())), "live": seen(comfy_backbone.apply_plan(load(out), gaps())[0])}


def check_weight_dtypes(out: Path) -> Any:
    results = {}
    guidance = comfy_backbone.load_guidance(str(files(out) / "both.safetensors"))
    for name, options in WEIGHT_DTYPES.items():
        model = comfy_backbone.load_unet(str(files(out) / "FaithDiff.bin"), {**options, "plan": gaps()})
        weight = model.model.diffusion_model.input_blocks[7][0].in_layers[2].weight
        for kind, image in (("textured", pictures(1)), ("black", torch.zeros(1, HEIGHT * FACTOR, WIDTH * FACTOR, 3))):
            latent = sample(comfy_backbone.apply_guidance(model, guidance, image, 1.0, 0.0, 1.0), steps=2)
            results[f"{name}/{kind}"] = {"stored": str(weight.dtype), "finite": bool(latent.isfinite().all())}
    return results


def check_compiled(out: Path) -> Any:
    """Core's compiled MODEL, base, pruned and base again: no graph of one is used for the other."""
    base = load(out)
    guidance = comfy_backbone.load_guidance(str(files(out) / "both.safetensors"))
    live, _ = comfy_backbone.apply_plan(base, load_plan("pgp-sdxl"))

    def guided(model: Any) -> Any:
        return comfy_backbone.apply_guidance(model, guidance, pictures(1), 1.0, 0.0, 1.0)

    models = {"base": base, "pruned": live, "guided": guided(live)}
    expected = {k: sample(m, steps=2) for k, m in models.items()}
    graphs = []
    compile_ = torch.compile

    def compiling(model: Any, backend: str, **options: Any) -> Any:
        # The code generator of the default backend needs a C++ compiler; the graphs are the same.
        def counting(graph: Any, _inputs: Any) -> Any:
            graphs.append(1)
            return graph.forward

        return compile_(model, backend=counting, **{**options, "options": None, "mode": None})

    results: dict[str, Any] = {}
    with replace.object(torch, "compile", compiling):
        compiled = {k: TorchCompileModel.execute(m, "inductor")[0] for k, m in models.items()}
        for i, name in enumerate(("base", "pruned", "guided", "base", "pruned", "guided")):
            results[f"{i} {name}"] = scene.difference(sample(compiled[name], steps=2), expected[name])
        results["uncompiled after that"] = scene.difference(sample(base, steps=2), expected["base"])
    results["graphs"] = len(graphs)
    torch.compiler.reset()
    return results


def check_controlnet(out: Path) -> Any:
    """A ControlNet beside guidance, on a pruned MODEL: both act."""
    model, image = load(out, plan=gaps()), pictures(1)
    guidance = comfy_backbone.load_guidance(str(files(out) / "both.safetensors"))
    guided = comfy_backbone.apply_guidance(model, guidance, image, 1.0, 0.0, 1.0)
    g = torch.Generator().manual_seed(0)
    network = comfy.cldm.cldm.ControlNet(hint_channels=3, **model.model.model_config.unet_config)
    for name, p in network.named_parameters():
        p.copy_(torch.randn(p.shape, generator=g) * 0.03 + float(p.dim() == 1 and name.endswith("weight")))
    control = comfy.controlnet.ControlNet(network.eval(), load_device=torch.device("cpu"))

    def run(model: Any, controlled: bool) -> torch.Tensor:
        return sample(model, control=control if controlled else None)

    results = {f"{g} {c}": run(m, c) for g, m in (("guided", guided), ("plain", model)) for c in (True, False)}
    again = run(guided, True)
    return {
        "finite": bool(results["guided True"].isfinite().all()),
        "control beside guidance": scene.difference(results["guided True"], results["guided False"]),
        "guidance beside control": scene.difference(results["guided True"], results["plain True"]),
        "again": torch.equal(again, results["guided True"]),
        "without it again": torch.equal(run(guided, False), results["guided False"]),
    }


def check_inpainting_by_mask(out: Path) -> Any:
    """A noise mask on a guided MODEL: what is outside stays the latent that came in."""
    guidance = comfy_backbone.load_guidance(str(files(out) / "FaithDiff.bin"))
    model = comfy_backbone.apply_guidance(load(out), guidance, pictures(1), 1.0, 0.0, 1.0)
    latent = torch.randn(1, 4, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(9))
    mask = torch.zeros(1, 1, HEIGHT, WIDTH)
    mask[..., 4:9, 4:9] = 1
    result = sample(model, latent=latent, noise_mask=mask)
    outside = (mask == 0).expand_as(latent)
    return {
        "outside": scene.difference(result[outside], latent[outside]),
        "inside": scene.difference(result[~outside], latent[~outside]),
    }


def check_core_reads_the_converted_file(out: Path) -> Any:
    """Core's detection on the full-size file's names and shapes."""
    import json

    from comfy import model_detection

    shapes = json.loads((files(out) / "full_size_shapes.json").read_text())
    sd = {k: torch.empty(v, device="meta") for k, v in shapes.items()}
    config = model_detection.model_config_from_unet(sd, "")
    known = set(comfy.utils.unet_to_diffusers(config.unet_config).values())
    return {"config": type(config).__name__, "unexpected": sorted(shapes.keys() - known)}


def check_interrupted_while_features_are_made(out: Path) -> Any:
    """An interruption in the encoder leaves nothing that the next run would take."""
    model = load(out)
    guidance = comfy_backbone.load_guidance(str(files(out) / "FaithDiff.bin"))
    guided = comfy_backbone.apply_guidance(model, guidance, pictures(1), 1.0, 0.0, 1.0)
    encoder = guidance.model.lq_encoder

    def stop(*_: Any) -> None:
        raise comfy.model_management.InterruptProcessingException

    handle = encoder.mid_block.register_forward_hook(stop)
    raised = ""
    try:
        sample(guided)
    except comfy.model_management.InterruptProcessingException as e:
        raised = type(e).__name__
    handle.remove()
    fresh = comfy_backbone.apply_guidance(load(out), guidance, pictures(1), 1.0, 0.0, 1.0)
    return {"raised": raised, "the next run": torch.equal(sample(guided), sample(fresh))}
