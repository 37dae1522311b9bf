"""What files are called that are no restorer, by names and shapes that diffusers' and transformers' own classes make;
ComfyUI's and spandrel's are asked in ``comfyui/test_foreign.py``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign_files
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    AutoencoderKLWan,
    AutoencoderTiny,
    ControlNetModel,
    FluxTransformer2DModel,
    MotionAdapter,
    PixArtTransformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    T2IAdapter,
    UNet2DConditionModel,
    UNetSpatioTemporalConditionModel,
    WanTransformer3DModel,
    ZImageTransformer2DModel,
)
from found_files import in_memory
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from pgp_core.errors import CheckpointError, GuidanceError, PGPError
from pgp_core.files.kinds import LENGTH, no_weights
from pgp_core.files.weights import open_weights
from pgp_core.files.what_it_is import described, kind_of
from pgp_core.guidance.file import read_guidance
from pgp_core.restorers.finding import find
from pgp_core.restorers.given import Given
from pgp_core.unet.inspect import inspect_unet
from pgp_core.unet.lora.reading import read

_ONE = {"num_layers": 1}
_FLUX = {**_ONE, "num_single_layers": 1, "guidance_embeds": True}
_SD3 = {**_ONE, "num_attention_heads": 24, "pooled_projection_dim": 2048, "caption_projection_dim": 1536}
_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
_SDXL = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (32, 64, 128),
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "attention_head_dim": 8,
    "use_linear_projection": True,
}
_KOLORS = {**_SDXL, "projection_class_embeddings_input_dim": 5632, "encoder_hid_dim": 4096}


def _clip(width: int, layers: int) -> CLIPTextConfig:
    return CLIPTextConfig(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers)


def _sight(width: int, layers: int) -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=16
    )


#: As diffusers and transformers build them: what is said, and whether it is a UNet.
MADE: dict[str, Callable[[], torch.nn.Module]] = {
    "a diffusion transformer (Flux.1 dev, Krea or Kontext)": lambda: FluxTransformer2DModel(**_FLUX),
    "a diffusion transformer (Flux.1 schnell)": lambda: FluxTransformer2DModel(**{**_FLUX, "guidance_embeds": False}),
    "a diffusion transformer (Flux.1 Fill)": lambda: FluxTransformer2DModel(**_FLUX, in_channels=384),
    "a diffusion transformer (Stable Diffusion 3 medium)": lambda: SD3Transformer2DModel(**{**_SD3, "num_layers": 2}),
    "a diffusion transformer (Stable Diffusion 3.5 medium)": lambda: SD3Transformer2DModel(
        **{**_SD3, "num_layers": 2}, dual_attention_layers=(0,)
    ),
    "a diffusion transformer (Stable Diffusion 3.5 large)": lambda: SD3Transformer2DModel(
        **{**_SD3, "num_layers": 2, "num_attention_heads": 38, "caption_projection_dim": 2432}
    ),
    "a diffusion transformer (PixArt-sigma)": lambda: PixArtTransformer2DModel(
        **_ONE, sample_size=128, use_additional_conditions=False
    ),
    "a diffusion transformer (PixArt-alpha)": lambda: PixArtTransformer2DModel(**_ONE, sample_size=128),
    "a diffusion transformer (Qwen-Image)": lambda: QwenImageTransformer2DModel(**_ONE),
    "a diffusion transformer (Wan)": lambda: WanTransformer3DModel(**_ONE),
    "a diffusion transformer (Z-Image)": lambda: ZImageTransformer2DModel(n_layers=1),
    "a UNet of Stable Diffusion 1.5": lambda: UNet2DConditionModel(cross_attention_dim=768),
    "a UNet of Stable Diffusion 1.5 for inpainting": lambda: UNet2DConditionModel(
        in_channels=9, cross_attention_dim=768
    ),
    "a UNet of Stable Diffusion 2": lambda: UNet2DConditionModel(cross_attention_dim=1024, use_linear_projection=True),
    "a UNet of SDXL": lambda: UNet2DConditionModel(**_SDXL),
    "a UNet of SDXL for inpainting": lambda: UNet2DConditionModel(**_SDXL, in_channels=9),
    "a UNet of Kolors": lambda: UNet2DConditionModel(**_KOLORS, encoder_hid_dim_type="text_proj"),
    "a UNet of Stable Video Diffusion": UNetSpatioTemporalConditionModel,
    "a VAE of Stable Diffusion 1, 2 or SDXL (4 channels)": lambda: AutoencoderKL(**_VAE),
    "a VAE of Flux.1 or Stable Diffusion 3 (16 channels)": lambda: AutoencoderKL(
        **_VAE, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False
    ),
    "a VAE of Stable Video Diffusion": AutoencoderKLTemporalDecoder,
    "a VAE of Wan or Qwen-Image": AutoencoderKLWan,
    "a small VAE for previews (TAESD)": AutoencoderTiny,
    "a ControlNet": lambda: ControlNetModel(block_out_channels=(32, 64, 64, 64)),
    "a T2I-Adapter": lambda: T2IAdapter(adapter_type="full_adapter_xl"),
    "a motion module of AnimateDiff": MotionAdapter,
    "a text encoder (CLIP-L)": lambda: CLIPTextModel(_clip(768, 12)),
    "a text encoder (CLIP-H)": lambda: CLIPTextModel(_clip(1024, 23)),
    "a text encoder (CLIP-G)": lambda: CLIPTextModel(_clip(1280, 32)),
    "a text encoder (T5-XXL)": lambda: T5EncoderModel(T5Config(d_model=4096, num_layers=2, num_heads=64)),
    "a text encoder (UMT5-XXL)": lambda: UMT5EncoderModel(UMT5Config(d_model=4096, num_layers=2, num_heads=64)),
    "a vision encoder (CLIP-L)": lambda: CLIPVisionModelWithProjection(_sight(1024, 24)),
    "a vision encoder (CLIP-H)": lambda: CLIPVisionModelWithProjection(_sight(1280, 32)),
}


@pytest.mark.parametrize("what", MADE)
def test_what_diffusers_and_transformers_build_is_called_by_name(what: str) -> None:
    shapes = foreign_files.of(MADE[what])
    for prefix in ("", "model.diffusion_model.", "module."):
        assert described({prefix + k: v for k, v in shapes.items()}) == what, prefix
    if not what.startswith("a UNet"):
        kind = kind_of(shapes)
        assert kind is not None and kind.what == what


@pytest.mark.parametrize("what", [w for w in MADE if w.startswith("a UNet") and w != "a UNet of SDXL"])
def test_a_unet_of_another_kind_is_refused_by_its_name(what: str) -> None:
    shapes = foreign_files.of(MADE[what])
    names = {
        k: torch.zeros(0).expand(v) if 0 in v else torch.zeros(1, device="meta").expand(v) for k, v in shapes.items()
    }
    words = "inpainting UNet" if "inpainting" in what else what.removeprefix("a UNet of ")
    with pytest.raises(CheckpointError, match=words):
        inspect_unet(in_memory(names))


@pytest.mark.parametrize(("base", "shapes"), [(b, s) for b, several in foreign_files.LORAS.items() for s in several])
def test_a_lora_is_said_to_be_for_its_model(base: str, shapes: foreign_files.Shapes) -> None:
    kind = kind_of(shapes)
    assert kind is not None and kind.what == f"a LoRA for {base}"
    assert ("--lora" in kind.goes) == (base in ("SDXL", "SDXL's text encoders"))


RESTORERS: dict[str, tuple[Callable[[], Any], str]] = {
    "s3diff.pkl": (foreign_files.s3diff, "S3Diff's adapter"),
    "osediff.pkl": (foreign_files.osediff, "OSEDiff's adapter"),
    "pisa_sr.pkl": (foreign_files.pisa, "PiSA-SR's adapter"),
    "HYPIR_sd2.pth": (foreign_files.hypir, "HYPIR's adapter"),
    "net_params_200.pkl": (foreign_files.adcsr, "AdcSR"),
}


@pytest.mark.parametrize("name", RESTORERS)
def test_a_restorer_that_does_not_run_here_is_known_by_sight(name: str, tmp_path: Path) -> None:
    make, words = RESTORERS[name]
    torch.save(make(), tmp_path / name)
    with pytest.raises(CheckpointError, match=rf"{name} holds {words}.*knows it by sight, but cannot run it"):
        find(Given(model=tmp_path / name))


def test_supir_is_no_faithdiff(tmp_path: Path) -> None:
    """Both have a ``denoise_encoder``."""
    file = in_memory(foreign_files.tensors(foreign_files.supir()))
    for reader in (inspect_unet, read_guidance):
        with pytest.raises(PGPError, match="SUPIR"):
            reader(file)


def test_a_model_given_as_a_lora_is_named() -> None:
    vae = foreign_files.tensors({"encoder.conv_in.weight": (8, 3, 3, 3), "decoder.conv_in.weight": (8, 4, 3, 3)})
    with pytest.raises(CheckpointError, match=r"mine holds a VAE of .*, no LoRA"):
        read(vae, "mine")


def test_a_lora_given_as_guidance_is_named() -> None:
    file = in_memory(foreign_files.tensors(foreign_files.LORAS["SDXL"][0]))
    with pytest.raises(GuidanceError, match="holds a LoRA for SDXL"):
        read_guidance(file)


_GGUF = b"GGUF\3\0\0\0" + bytes(8) + b"\1" + bytes(7) + b"\x14" + bytes(7) + b"general.architecture\x08\0\0\0"
#: Beginnings of files that hold no weights, and whether a model should have been there.
STARTS: dict[str, tuple[bytes, str, bool]] = {
    "flux.gguf": (_GGUF + b"\4" + bytes(7) + b"flux" + bytes(64), "quantised (GGUF of Flux)", False),
    "old.gguf": (b"GGUF\1\0\0\0" + bytes(64), "quantised (GGUF)", False),
    "a.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS's pointer", True),
    "b.safetensors": (b"\n<!DOCTYPE html><html>", "a web page", True),
    "c.safetensors": (b"Invalid username or password.", "text, not the model", True),
    "d.ckpt": (b'{"error": "gone"}', "text, not the model", True),
    "model.safetensors.part": (bytes(64), "an unfinished download", True),
    "e.ckpt": (b"\x89PNG\r\n\x1a\n", "a picture", False),
    "f.bin": (b"RIFF\0\0\0\0WEBPVP8 ", "a picture", False),
    "models.zip": (b"PK\3\4", "an archive", False),
    "models.7z": (b"7z\xbc\xaf\x27\x1c", "an archive", False),
    "notes.txt": ("Größe: 3\n".encode(), "text, no model", False),
    "model.onnx": (b"\x08\x07\x12\x07pytorch", "an ONNX model", False),
}


@pytest.mark.parametrize("name", STARTS)
def test_what_holds_no_weights_is_named_at_sight(name: str) -> None:
    start, words, failed = STARTS[name]
    found = no_weights(Path(name), start[:LENGTH])
    assert found is not None and found.what.startswith(words) and found.failed == failed


def test_a_file_of_weights_is_not_taken_for_another(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(3)}, tmp_path / "a.safetensors")
    torch.save({"x": torch.zeros(3)}, tmp_path / "a.bin")
    torch.save({"x": torch.zeros(3)}, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    for path in tmp_path.iterdir():
        assert no_weights(path, path.read_bytes()[:LENGTH]) is None
        with open_weights(path) as file:
            assert list(file.shapes) == ["x"]
