"""FaithDiff and SDXL-shaped files in ComfyUI, narrow; see ``checks/sdxl.py`` for what is done there."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faithdiff_file
import pytest
import rounding
import torch
import trained_lora
from faithdiff_file import NARROW
from gaps import GAPS
from safetensors.torch import save_file

from pgp_core.conditioning.conditioning import Conditioning
from pgp_core.files.weights import open_weights
from pgp_core.guidance import faithdiff
from pgp_core.guidance.convert import convert
from pgp_core.guidance.module import KEY_PREFIX, METADATA_KEY, Guidance, GuidanceSpec, Site
from pgp_core.sampling.denoiser import Denoiser
from pgp_core.sampling.euler import euler
from pgp_core.sampling.options import SampleOptions
from pgp_core.unet.known import SDXL_SHAPE
from pgp_core.unet.loading import load_unet
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.plan import PrunePlan, StackPlan
from pgp_core.unet.topology import KeyMap

from .diffusers_side import Both, both, called
from .in_process import Checks, Driver

SECONDS = 500
SIZES = (136.0, 104.0, 0.0, 0.0, 136.0, 104.0)


def _write_guidance(guidance: Guidance, path: Path) -> None:
    tensors = {KEY_PREFIX + k: v.contiguous() for k, v in guidance.state_dict().items()}
    save_file(tensors, path, {METADATA_KEY: json.dumps(guidance.spec.to_json())})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The narrow files: FaithDiff's, converted; guidance with PEAM, fresh and as if trained."""
    out: Path = tmp_path_factory.mktemp("sdxl")
    files = out / "files"
    files.mkdir()
    published = files / "FaithDiff.bin"
    torch.save(faithdiff_file.state_dict(), published)
    convert(published, files, torch.float32)
    with open_weights(published) as file:
        spec, weights = faithdiff.load_extras(file)
    peam_site = Site("down_blocks.0.downsamplers.0", 64)
    torch.manual_seed(0)
    both = Guidance(dataclasses.replace(spec, sites=(*spec.sites, peam_site), channels=(64, 64, 64, 64), trained=False))
    both.load_state_dict({k[len(KEY_PREFIX) :]: v for k, v in weights.items()}, strict=False)
    both.peam["1"].reset_identity()  # type: ignore[operator]
    _write_guidance(both, files / "both-fresh.safetensors")
    last = both.peam["1"].convs[-1]  # type: ignore[index,union-attr]
    torch.nn.init.normal_(last.weight, std=0.02)
    both.spec = dataclasses.replace(both.spec, trained=True)
    _write_guidance(both, files / "both.safetensors")
    _write_guidance(
        Guidance.fresh(GuidanceSpec(sites=(peam_site,), channels=(64, 64, 64, 64), trained=False)),
        files / "fresh.safetensors",
    )
    trained_lora.write(trained_lora.adapted(_unet(_gaps())), files / "lora.safetensors")
    with torch.device("meta"):
        names, full = KeyMap(), build_unet(SDXL_SHAPE).state_dict()
    (files / "full_size_shapes.json").write_text(json.dumps({names.to_ldm(k): list(v.shape) for k, v in full.items()}))
    return out


@pytest.fixture(scope="module")
def checks(driver: Driver, folder: Path) -> Checks:
    return driver.run(folder, SECONDS, "sdxl")


@pytest.fixture
def agree(
    measured: Callable[[str, float], None], request: pytest.FixtureRequest
) -> Callable[[torch.Tensor, Both], None]:
    def compare(comfyui: torch.Tensor, diffusers: Both) -> None:
        # Core's latents on the wire are not scaled.
        difference = rounding.difference(comfyui * 0.13025, diffusers.exact)
        measured(request.node.name.removeprefix("test_"), difference)
        allowed = rounding.allowed(diffusers.rounded, diffusers.exact)
        assert difference <= allowed, f"ComfyUI and diffusers differ by {difference:.2e}, more than {allowed:.2e}"

    return compare


def _conditioning(seed: int) -> Conditioning:
    g = torch.Generator().manual_seed(seed)
    return Conditioning.of_prompt(torch.randn(1, 7, 32, generator=g), torch.randn(1, 32, generator=g), SIZES)


@torch.inference_mode()
def _by_diffusers(guidance: Path, tensors: dict[str, torch.Tensor], plan: Any = None) -> Both:
    def run(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        dtype = tensors["image"].dtype
        unet, options = _unet(plan).to(dtype), SampleOptions(steps=4, cfg=5.0, seed=5)
        guide = _guidance(guidance).to(dtype).eval()
        features = guide.features(tensors["image"].movedim(-1, 1))
        denoiser = Denoiser(unet, guide, features, _conditioning(1), _conditioning(2), options)
        return euler(denoiser, torch.zeros_like(tensors["noise"]), "epsilon", options)

    return both(run, tensors)


def _unet(plan: PrunePlan | None) -> torch.nn.Module:
    weights = faithdiff_file.state_dict()
    kept = {
        k: v for k, v in weights.items() if not k.startswith(faithdiff.GROUPS) and (plan is None or _stays(k, plan))
    }
    return load_unet(NARROW, plan, kept)


def _gaps() -> PrunePlan:
    return PrunePlan("gaps", "sdxl", {k: StackPlan(d, keep) for k, (d, keep) in GAPS.items()})


def _stays(key: str, plan: PrunePlan) -> bool:
    stack, found, tail = key.partition(".transformer_blocks.")
    return not found or plan.keeps(stack, int(tail.partition(".")[0]))


def _guidance(path: Path) -> Guidance:
    with open_weights(path) as file:
        if METADATA_KEY not in file.metadata:
            spec, weights = faithdiff.load_extras(file)
        else:
            spec = GuidanceSpec.from_metadata(file.metadata)
            weights = {k: file.read(k).clone() for k in file.shapes}
    return Guidance(spec, device="meta").load(weights)


# -- FaithDiff and PGP-DiffSR --------------------------------------------------------------------------------


def test_faithdiff_is_the_same_on_both_backbones(checks: Checks, folder: Path, agree: Any) -> None:
    result, tensors = checks["faithdiff"], checks.tensors("faithdiff")
    assert tensors["latent"].shape == (2, 4, 17, 13)
    assert result["unguided"] > 0.1
    exact = _by_diffusers(folder / "files" / "FaithDiff.bin", tensors)
    agree(tensors["latent"], exact)
    # A picture in a batch gets what it gets alone.
    agree(tensors["alone"], Both(exact.exact[:1], exact.rounded[:1]))


def test_the_converted_files_are_the_published_one(checks: Checks) -> None:
    assert checks["faithdiff"]["converted is the same"]


def test_the_loader_says_what_it_loaded(checks: Checks) -> None:
    said = checks["faithdiff"]["said"]
    assert "FaithDiff's alignment after conv_in" in said and "UNTRAINED" not in said
    assert "UNTRAINED" in checks["pgp"]["said"]


def test_one_lq_picture_serves_a_batch(checks: Checks) -> None:
    assert checks["one_lq_for_a_batch_and_cfg_one"]["difference"] <= rounding.LATENT


def test_pruned_with_alignment_and_peam_is_the_same_on_both_backbones(checks: Checks, folder: Path, agree: Any) -> None:
    assert checks["pgp"]["trained changes"] > 0.1
    tensors = checks.tensors("pgp")
    agree(tensors["latent"], _by_diffusers(folder / "files" / "both.safetensors", tensors, _gaps()))


def test_a_fresh_guidance_changes_nothing(checks: Checks) -> None:
    assert checks["pgp"]["fresh changes nothing"]
    assert checks["pgp"]["fresh beside alignment changes nothing"]


# -- plans ---------------------------------------------------------------------------------------------------


def test_plans_on_files_and_on_loaded_models_are_the_same_in_any_order(checks: Checks) -> None:
    result = checks["plans"]
    assert result["differs from whole"] > 0.01
    assert result["LoRA matters"] > 0.01
    for order in (
        "live is the file's",
        "base after pruned",
        "clone of live",
        "LoRA after plan",
        "plan after LoRA",
        "base with LoRA after that",
        "base at the end",
        "coarse then fine",
    ):
        assert result[order], order
    # A live MODEL keeps the weights of skipped blocks, so all 20 layers find theirs; the file has 2 + 4 of them.
    assert result["LoRA layers on file, live"] == [6, 20]


def test_a_lora_made_by_training_is_the_same_by_core_s_loader_and_by_peft(
    checks: Checks, measured: Callable[[str, float], None]
) -> None:
    result, tensors = checks["lora_by_peft"], checks.tensors("lora_by_peft")
    trained_lora.all_taken(result)
    assert result["changes"] > 0.1
    with torch.inference_mode():
        expected = called(trained_lora.adapted(_unet(_gaps())), tensors["x"], 1, _conditioning(1))
    difference = float((tensors["output"] - expected).abs().max())
    measured("lora by core and by PEFT, narrow SDXL", difference)
    assert difference <= rounding.bound(rounding.NETWORK, expected)


def test_lora_layers_without_a_block_are_said_once_with_their_number(checks: Checks) -> None:
    (line,) = checks["plans"]["said of the LoRA"]
    assert line.startswith("14 of 20 patches")


def test_a_plan_says_what_it_saves_and_what_not(checks: Checks) -> None:
    said = checks["plans"]["said"]
    assert "34 of 70 transformer blocks" in said
    assert "time" in said and "no memory" in said


def test_a_plan_that_wants_removed_blocks_back_is_refused(checks: Checks) -> None:
    name, message = checks["plans"]["back to coarse"]
    assert name == "PlanError"
    assert "does not have" in message and "\n" not in message


def test_saved_models_come_back_pruned(checks: Checks) -> None:
    result = checks["plans"]
    for name in ("live", "file"):
        assert result[f"saved {name}"]
        metadata = result[f"saved {name}: metadata"]
        plan = PrunePlan.from_json(json.loads(metadata["pgp.plan"]))
        assert plan.name == "gaps"
        assert plan.removed == 34
        assert {k: (s.depth, s.keep) for k, s in plan.stacks.items() if k in GAPS} == GAPS
        assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base"
        assert json.loads(metadata["workflow"]) == {"x": 1}
    assert result["saved live: keys"] == result["saved file: keys"]
    assert result["saved with LoRA"] <= 1e-3


def test_other_packs_attention_patches_see_original_block_numbers(checks: Checks) -> None:
    result = checks["attention_patches_see_original_blocks"]
    names = KeyMap()
    expected = []
    for stack, depth in SDXL_SHAPE.topology.depths.items():
        block = names.to_ldm(stack).split(".")
        # Core calls the bottleneck ("middle", 0).
        where = [block[0].partition("_")[0], 0 if block[0] == "middle_block" else int(block[1])]
        expected += [[*where, i] for i in (GAPS[stack][1] if stack in GAPS else range(depth))]
    assert sorted(result["file"]) == sorted(expected)
    assert sorted(result["live"]) == sorted(expected)


# -- the rest ------------------------------------------------------------------------------------------------


def test_every_weight_dtype_samples_finite(checks: Checks) -> None:
    stored = {
        "default": "float32",
        "fp16": "float16",
        "bf16": "bfloat16",
        "fp8_e4m3fn": "float8_e4m3fn",
        "fp8_e4m3fn_fast": "float8_e4m3fn",
        "fp8_e5m2": "float8_e5m2",
    }
    for name, dtype in stored.items():
        for picture in ("textured", "black"):
            assert checks["weight_dtypes"][f"{name}/{picture}"] == {"stored": f"torch.{dtype}", "finite": True}


def test_compiled_models_do_not_share_graphs(checks: Checks) -> None:
    result = dict(checks["compiled"])
    assert result.pop("graphs") >= 2
    assert {k: v for k, v in result.items() if v > rounding.LATENT} == {}


def test_a_controlnet_works_beside_guidance_on_a_pruned_model(checks: Checks) -> None:
    result = checks["controlnet"]
    assert result["finite"]
    assert result["control beside guidance"] > 1e-3
    assert result["guidance beside control"] > 1e-3
    assert result["again"] and result["without it again"]


def test_a_noise_mask_keeps_what_is_outside(checks: Checks) -> None:
    assert checks["inpainting_by_mask"]["outside"] <= rounding.LATENT
    assert checks["inpainting_by_mask"]["inside"] > 0.1


def test_core_s_own_loader_takes_the_converted_unet(checks: Checks) -> None:
    assert checks["core_reads_the_converted_file"] == {"config": "SDXL", "unexpected": []}


def test_an_interruption_in_the_encoder_leaves_nothing(checks: Checks) -> None:
    result = checks["interrupted_while_features_are_made"]
    assert result == {"raised": "InterruptProcessingException", "the next run": True}
