"""Models in the layouts that trainers, hubs and ComfyUI make; the same weights in the plain layout are the oracle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faithdiff_file
import found_files
import pytest
import sdxl_files
import torch
from found_files import Weights, compiled, in_memory, ldm, prefixed, unet
from safetensors.torch import load_file, save_file

from pgp_core.codecs.vae import load_vae
from pgp_core.errors import CheckpointError, GuidanceError, PGPError
from pgp_core.files.diffusers_folder import find_weights
from pgp_core.files.weights import WeightsFile, open_weights
from pgp_core.guidance.convert import convert
from pgp_core.guidance.faithdiff import load_extras
from pgp_core.guidance.file import read_guidance
from pgp_core.guidance.fresh import write_fresh_guidance
from pgp_core.redundancy.identity import fingerprint_file
from pgp_core.unet.inspect import inspect_unet
from pgp_core.unet.plan import load_plan
from pgp_core.unet.prune_file import prune_file

PREFIXES = (
    *(
        "",
        "module.",
        "_orig_mod.",
        "model.diffusion_model.",
        "diffusion_model.",
        "unet.",
        "model.",
        "net.",
        "ema_model.",
    ),
    *("module._orig_mod.", "_orig_mod.module.", "module.module.", "unet.module.", "ema_model.module.unet."),
    *("state_dict.module.model.diffusion_model.", "_forward_module.unet._orig_mod.", "_fsdp_wrapped_module."),
)


def read(file: WeightsFile) -> Weights:
    """A file's UNet in diffusers' names."""
    info = inspect_unet(file)
    return {info.diffusers(k): file.read(k) for k in info.keys}


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# -- prefixes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("scheme", [unet, ldm], ids=["diffusers", "ldm"])
def test_a_unet_under_every_prefix_is_the_same(prefix: str, scheme: Callable[[], Weights]) -> None:
    vae = prefixed("first_stage_model.", {"decoder.conv_in.weight": torch.zeros(4, 4, 3, 3)})
    assert same(read(in_memory(prefixed(prefix, scheme()) | vae)), unet())


def test_blocks_that_were_compiled_one_by_one_are_the_same() -> None:
    assert same(read(in_memory(prefixed("module.", compiled(ldm())))), unet())


@pytest.mark.parametrize("wrappers", [("state_dict",), ("model", "module"), ("ema",), ("state_dict", "module", "unet")])
def test_state_dicts_in_each_other_are_unpacked(wrappers: tuple[str, ...], tmp_path: Path) -> None:
    data: Any = unet()
    for wrapper in reversed(wrappers):
        data = {wrapper: data, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}}
    torch.save(data, tmp_path / "trained.ckpt")
    with open_weights(tmp_path / "trained.ckpt") as file:
        assert same(read(file), unet())


@pytest.mark.parametrize("average", ["ema_model.", "ema.", "unet_ema."])
@pytest.mark.parametrize("plain", ["", "model.", "model.diffusion_model.", "online_model."])
def test_the_last_weights_are_taken_before_their_average_and_it_is_said(plain: str, average: str) -> None:
    halved = {k: v / 2 for k, v in unet().items()}
    file = in_memory(prefixed(average, halved) | prefixed(plain, unet()))
    assert same(read(file), unet())
    assert "averaged (EMA) weights too" in inspect_unet(file).notes[0]
    alone = in_memory(prefixed(average, halved))
    assert same(read(alone), halved) and inspect_unet(alone).notes == ()


def test_averages_without_dots_are_passed_over() -> None:
    squashed = {"model_ema." + ("diffusion_model." + k).replace(".", ""): v for k, v in ldm().items()}
    squashed = {"model_ema.diffusion_model" + k.replace(".", ""): v for k, v in ldm().items()} | squashed
    file = in_memory(prefixed("model.diffusion_model.", ldm()) | squashed)
    assert same(read(file), unet()) and "EMA" in inspect_unet(file).notes[0]


def test_one_tensor_under_two_wrappers_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"holds conv_in\.weight twice, as conv_in.weight and as module"):
        in_memory(unet() | {"module.conv_in.weight": unet()["conv_in.weight"]})


def test_two_unets_are_told_apart() -> None:
    file = in_memory(
        prefixed("unet.", unet()) | prefixed("model.", {k: v for k, v in unet().items() if "up_" not in k})
    )
    assert same(read(file), unet()) and "several models" in inspect_unet(file).notes[0]


@pytest.mark.parametrize("prefix", ["", "module.", "unet.", "state_dict.model._orig_mod.", "ema_model."])
def test_faithdiff_s_file_under_every_prefix(prefix: str, tmp_path: Path) -> None:
    weights = {k: v.half() for k, v in faithdiff_file.state_dict().items()}
    torch.save(weights, tmp_path / "FaithDiff.bin")
    spec, expected = load_extras(in_memory(weights))
    for loaded in (load_extras, read_guidance):
        found, tensors = loaded(in_memory(prefixed(prefix, weights)))
        assert found == spec and same(tensors, expected)
    if prefix in ("", "state_dict.model._orig_mod."):
        torch.save(prefixed(prefix, weights), tmp_path / "other.bin")
        plain = convert(tmp_path / "FaithDiff.bin", tmp_path)
        other = convert(tmp_path / "other.bin", tmp_path)
        assert all(same(load_file(a), load_file(b)) for a, b in zip(plain, other, strict=True))


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod."])
def test_a_guidance_file_under_a_prefix(prefix: str, tmp_path: Path) -> None:
    write_fresh_guidance(tmp_path / "plain.safetensors")
    with open_weights(tmp_path / "plain.safetensors") as file:
        spec, expected = read_guidance(file)
        metadata = dict(file.metadata)
    found, tensors = read_guidance(in_memory(prefixed(prefix, expected), metadata))
    assert found == spec and same(tensors, expected)


@pytest.mark.parametrize("prefix", ["first_stage_model.", "vae.", "module.", "_orig_mod.", "model.", "module.vae."])
@pytest.mark.parametrize("scheme", [dict, sdxl_files.ldm_vae], ids=["diffusers", "ldm"])
def test_a_vae_under_every_prefix(prefix: str, scheme: Callable[[Weights], Weights], tmp_path: Path) -> None:
    own = sdxl_files.vae().state_dict()
    save_file({prefix + k: v.contiguous() for k, v in scheme(own).items()}, tmp_path / "vae.safetensors")
    assert same(load_vae(tmp_path / "vae.safetensors").module.state_dict(), own)


def test_reports_know_a_model_under_a_prefix_again() -> None:
    plain, other = (fingerprint_file(in_memory(w)) for w in (unet(), prefixed("module.unet.", ldm())))
    assert plain == other and plain


# -- folders and shards --------------------------------------------------------------------------------------


def test_every_path_to_a_model_in_shards_is_the_model(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".bin"):
        index = found_files.write_shards(tmp_path / suffix / "unet", "diffusion_pytorch_model", unet(), suffix=suffix)
        shard = index.with_name(f"diffusion_pytorch_model-00002-of-00003{suffix}")
        for path in (index, shard, index.parent, index.parent.parent):
            with open_weights(path) as file:
                assert same(read(file), unet())
                assert ("one of 3 files" in " ".join(file.notes)) == (path == shard)
        index.write_bytes(b"\xef\xbb\xbf" + index.read_bytes())
        with open_weights(index) as file:
            assert same(read(file), unet())
        shard.unlink()
        for path in (index, index.with_name(f"diffusion_pytorch_model-00001-of-00003{suffix}")):
            with pytest.raises(CheckpointError, match=r"00002-of-00003.* missing: put them beside it"):
                find_weights(path)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", 3, "a/b.safetensors"])
def test_an_index_names_files_beside_it_only(name: Any, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(CheckpointError, match="no file beside it"):
        find_weights(index)


def test_one_model_in_a_folder_is_taken_and_of_several_none(tmp_path: Path) -> None:
    save_file(ldm(), tmp_path / "mine.safetensors")
    with open_weights(tmp_path) as file:
        assert same(read(file), unet())
    shutil.copy(tmp_path / "mine.safetensors", tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"several models .*mine.*other.*: give one"):
        find_weights(tmp_path)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors", ".ckpt"])
def test_what_a_file_is_is_told_by_its_beginning(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"named{suffix}"
    save_file(unet(), path)
    with open_weights(path) as file:
        assert same(read(file), unet())
    torch.save(unet(), path)
    if suffix == ".safetensors":
        with pytest.raises(CheckpointError, match=r"rename it to named\.bin"), open_weights(path):
            pass
    else:
        with open_weights(path) as file:
            assert same(read(file), unet())


# -- fp8 and other quantised files ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_plain_fp8_is_read_as_it_is(dtype: torch.dtype, tmp_path: Path) -> None:
    small = {k: v.to(dtype) for k, v in unet().items()}
    save_file(small, tmp_path / "fp8.safetensors")
    with open_weights(tmp_path / "fp8.safetensors") as file:
        assert all(torch.equal(v.float(), small[k].float()) for k, v in read(file).items())
    prune_file(tmp_path / "fp8.safetensors", load_plan("pgp-sdxl"), tmp_path / "pruned.safetensors")
    kept = load_file(tmp_path / "pruned.safetensors")
    assert {v.dtype for v in kept.values()} == {dtype}


@pytest.mark.parametrize("per_output", [False, True])
@pytest.mark.parametrize("style", ["old", "new", "plain"])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_fp8_with_factors_is_what_it_stands_for(prefix: str, style: str, per_output: bool, tmp_path: Path) -> None:
    quantised = found_files.scaled(ldm(), style, per_output)
    save_file(prefixed(prefix, quantised), tmp_path / "scaled.safetensors")
    with open_weights(tmp_path / "scaled.safetensors") as file:
        info = inspect_unet(file)
        found = {info.ldm(k): file.read(k) for k in info.keys}
        dtypes = {info.ldm(k): file.dtypes[k] for k in info.keys}
    assert found.keys() == ldm().keys()
    scale_name = "scale_weight" if style == "old" else "weight_scale"
    for key, value in ldm().items():
        scale = quantised.get(f"{key.removesuffix('weight')}{scale_name}")
        exact = quantised[key].double()
        if scale is not None:
            exact = exact * (scale.double()[:, None] if per_output else scale.double())
            # fp8 has three bits behind the first one.
            assert (exact - value.double()).abs().max() <= value.abs().max() / 16
        # One rounding to float16.
        assert ((found[key].double() - exact).abs() <= exact.abs() * 2**-11 + 2**-25).all(), key
        assert found[key].dtype == dtypes[key] == torch.float16


def test_fp8_with_factors_said_in_metadata(tmp_path: Path) -> None:
    quantised = found_files.scaled(ldm(), "plain")
    layers = {k.removesuffix(".weight_scale"): {"format": "float8_e4m3fn"} for k in quantised if "weight_scale" in k}
    assert same(
        read(in_memory(quantised, {"_quantization_metadata": json.dumps({"layers": layers})})),
        read(in_memory(quantised)),
    )


_LAYER = "input_blocks.4.1.transformer_blocks.0.attn1.to_q"


def _said(text: str) -> torch.Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({f"{_LAYER}.weight.absmax": torch.ones(8)}, "bitsandbytes, 4 bits"),
        ({f"{_LAYER}.weight.quant_state.bitsandbytes__nf4": _said("{}")}, "bitsandbytes, 4 bits"),
        ({f"{_LAYER}.SCB": torch.ones(8)}, "bitsandbytes, 8 bits"),
        ({f"{_LAYER}.qweight": torch.ones(8)}, "GPTQ"),
        ({f"{_LAYER}.weight._data": torch.ones(8)}, "quanto"),
        (
            {f"{_LAYER}.weight_scale_2": torch.ones(1), f"{_LAYER}.comfy_quant": _said('{"format": "nvfp4"}')},
            "own loader",
        ),
        ({f"{_LAYER}.weight_scale": torch.ones(4, 8)}, "ComfyUI's own loader"),
        # A factor beside a weight that is not fp8 says nothing that could be relied upon.
        ({f"{_LAYER}.scale_weight": torch.ones(1)}, "quantised"),
    ],
)
def test_other_quantised_files_are_named(more: Weights, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as error:
        read(in_memory(ldm() | more))
    assert "found.bin" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[1]", '{"format": 3}', "\xff"])
def test_what_a_layer_says_may_be_damaged(text: str) -> None:
    quantised = found_files.scaled(ldm(), "new")
    with pytest.raises(CheckpointError, match=r"found\.bin"):
        read(in_memory(quantised | {f"{_LAYER}.comfy_quant": _said(text)}))


def test_a_factor_that_is_no_number_is_named() -> None:
    quantised = found_files.scaled(ldm(), "old")
    quantised[f"{_LAYER}.scale_weight"] = torch.tensor(float("nan"))
    with pytest.raises(CheckpointError, match=r"to_q\.scale_weight is not finite"):
        read(in_memory(quantised))


# -- weights that are none -----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    weights = ldm()
    key = "middle_block.1.proj_in.weight"
    weights[key] = weights[key].clone()
    weights[key].view(-1)[-1] = value
    save_file(weights, tmp_path / "broken.safetensors")
    with pytest.raises(CheckpointError, match=rf"broken\.safetensors.*not finite \({key}"):
        prune_file(tmp_path / "broken.safetensors", load_plan("pgp-sdxl"), tmp_path / "out.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["broken.safetensors"]


def test_numbers_too_large_for_a_type_are_named(tmp_path: Path) -> None:
    weights = faithdiff_file.state_dict()
    weights["conv_in.weight"] = weights["conv_in.weight"] + 1e5
    torch.save(weights, tmp_path / "FaithDiff.bin")
    with pytest.raises(PGPError, match=r"FaithDiff\.bin: .* too large for float16: choose another type"):
        convert(tmp_path / "FaithDiff.bin", tmp_path / "out")
    convert(tmp_path / "FaithDiff.bin", tmp_path / "out", torch.bfloat16)


# -- wrong files, as a user reads of them --------------------------------------------------------------------


def _only(*names: str) -> Weights:
    return {name: torch.zeros(4) for name in names}


_DIFFUSERS_CONTROLNET = {
    **{k: v for k, v in unet().items() if not k.startswith(("up_blocks", "conv_out", "conv_norm"))},
    **_only("controlnet_cond_embedding.conv_in.weight"),
}
WRONG: dict[str, tuple[Weights, str]] = {
    "kohya's LoRA": (_only("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"), "a LoRA"),
    "LyCORIS": (_only("lycoris_mid.hada_w1_a"), "a LoRA"),
    "old diffusers": (_only("unet.down.attn1.processor.to_q_lora.down.weight"), "a LoRA"),
    "ControlNet": (
        _only("control_model.input_blocks.0.0.weight", "control_model.zero_convs.0.0.weight"),
        "a ControlNet",
    ),
    "ControlNet of diffusers": (_DIFFUSERS_CONTROLNET, "a ControlNet"),
    "IP-Adapter": (_only("ip_adapter.1.to_k_ip.weight", "image_proj.proj.weight"), "an IP-Adapter"),
    "T2I-Adapter": (_only("body.0.block1.weight"), "a T2I-Adapter"),
    "ESRGAN": (_only("conv_first.weight", "body.0.rdb1.conv1.weight"), "an upscaler"),
    "old ESRGAN": (_only("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"), "an upscaler"),
    "RealESRGAN": (_only("params_ema.conv_first.weight"), "an upscaler"),
    "VAE": (dict(sdxl_files.vae().state_dict()), "a VAE"),
    "text encoder": (_only("text_model.embeddings.token_embedding.weight"), "a text encoder"),
    "vision": (_only("vision_model.embeddings.class_embedding"), "a vision encoder"),
    "Flux": (_only("double_blocks.0.img_attn.qkv.weight"), "a diffusion transformer"),
    "Wan": (_only("blocks.0.self_attn.q.weight"), "a diffusion transformer"),
    "motion": (_only("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"), "a motion module"),
    "embedding": (_only("clip_g", "clip_l"), "an embedding"),
}


@pytest.mark.parametrize("name", WRONG)
def test_every_loader_says_what_a_wrong_file_is(name: str, tmp_path: Path) -> None:
    weights, what = WRONG[name]
    file = in_memory(weights)
    with pytest.raises(CheckpointError, match=what) as error:
        inspect_unet(file)
    assert "found.bin" in str(error.value) and "\n" not in str(error.value)
    for reader in (read_guidance, load_extras):
        with pytest.raises(GuidanceError, match=f"{what}.*FaithDiff") as other:
            reader(file)
        assert "found.bin" in str(other.value)
    if name != "VAE":
        save_file({k: v.clone() for k, v in weights.items()}, tmp_path / "wrong.safetensors")
        with pytest.raises(CheckpointError, match=rf"wrong\.safetensors holds {what}.*no VAE: give SDXL's VAE"):
            load_vae(tmp_path / "wrong.safetensors")


BYTES = {
    "m.gguf": (b"GGUF\3\0\0\0", "GGUF"),
    "m.onnx": (b"\x08\x07\x12\x07pytorch", "ONNX"),
    "m.mlmodel": (b"\x08\x01", "Core ML"),
    "m.engine": (b"ftrt", "TensorRT"),
    "m.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "page.safetensors": (b"<!DOCTYPE html><html>", "web page"),
    "config.json": (b"{}", "settings, no weights: give its folder"),
    "model.safetensors.part": (b"\x10" * 90, "unfinished download"),
    "m.png": (b"\x89PNG\r\n\x1a\n", "picture"),
}


@pytest.mark.parametrize("name", BYTES)
def test_files_that_hold_no_weights_are_named_at_sight(name: str, tmp_path: Path) -> None:
    data, words = BYTES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=words) as error, open_weights(tmp_path / name):
        pass
    assert name in str(error.value)


def test_a_core_ml_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "Unet.mlpackage").mkdir()
    with pytest.raises(CheckpointError, match="Core ML"), open_weights(tmp_path / "Unet.mlpackage"):
        pass
