"""What other models are called: by core and spandrel, and by us. Core's own classes make their names and shapes."""

from __future__ import annotations

import pytest

from .in_process import Checks, Driver

SECONDS = 240
#: By names of ``checks/foreign.py``: core's class, and words of ours.
MODELS = {
    "Flux dev": ("Flux", "diffusion transformer (Flux.1 dev, Krea or Kontext)"),
    "Flux schnell": ("FluxSchnell", "diffusion transformer (Flux.1 schnell)"),
    "Flux Fill": ("FluxInpaint", "diffusion transformer (Flux.1 Fill)"),
    "Flux.2": ("Flux2", "diffusion transformer (Flux.2)"),
    "Chroma": ("Chroma", "diffusion transformer (Chroma)"),
    "SD3 medium": ("SD3", "diffusion transformer (Stable Diffusion 3 medium)"),
    "SD3.5 medium": ("SD3", "diffusion transformer (Stable Diffusion 3.5 medium)"),
    "SD3.5 large": ("SD3", "diffusion transformer (Stable Diffusion 3.5 large)"),
    "HunyuanVideo": ("HunyuanVideo", "diffusion transformer (HunyuanVideo)"),
    "HunyuanImage": ("HunyuanImage21", "diffusion transformer (HunyuanImage)"),
    "HunyuanDiT": ("HunyuanDiT", "diffusion transformer (HunyuanDiT)"),
    "PixArt sigma": ("PixArtSigma", "diffusion transformer (PixArt-sigma)"),
    "PixArt alpha": ("PixArtAlpha", "diffusion transformer (PixArt-alpha)"),
    "Wan": ("WAN21_T2V", "diffusion transformer (Wan)"),
    "Wan I2V": ("WAN21_I2V", "diffusion transformer (Wan)"),
    "Qwen-Image": ("QwenImage", "diffusion transformer (Qwen-Image)"),
    "Lumina 2": ("Lumina2", "diffusion transformer (Lumina Image 2)"),
    "Z-Image": ("ZImage", "diffusion transformer (Z-Image)"),
    "Cascade C": ("Stable_Cascade_C", "Stable Cascade, stage C"),
    "Cascade B": ("Stable_Cascade_B", "Stable Cascade, stage B"),
    "AuraFlow": ("AuraFlow", "diffusion transformer (AuraFlow)"),
    "Mochi": ("GenmoMochi", "diffusion transformer (Mochi)"),
    "LTX-Video": ("LTXV", "diffusion transformer (LTX-Video)"),
    "SeedVR2": ("SeedVR2", "SeedVR2"),
    "CogVideoX": ("CogVideoX_T2V", "diffusion transformer (CogVideoX)"),
    "HiDream": ("HiDream", "diffusion transformer (HiDream)"),
    "OmniGen2": ("Omnigen2", "diffusion transformer (OmniGen2)"),
    "SD 1.5": ("SD15", "UNet of Stable Diffusion 1.5"),
    "SD 1.5 inpainting": ("SD15", "UNet of Stable Diffusion 1.5 for inpainting"),
    "SD 2": ("SD20", "UNet of Stable Diffusion 2"),
    "SD 2 unCLIP": ("SD21UnclipH", "UNet of Stable Diffusion 2 unCLIP"),
    "SD x4-upscaler": ("SD_X4Upscaler", "UNet of Stable Diffusion 2 for enlarging (x4-upscaler)"),
    "SDXL": ("SDXL", "UNet of SDXL"),
    "SDXL inpainting": ("SDXL", "UNet of SDXL for inpainting"),
    "SDXL ip2p": ("SDXL_instructpix2pix", "UNet of SDXL for editing or variations"),
    "SDXL refiner": ("SDXLRefiner", "UNet of SDXL's refiner"),
}
ENCODERS = {
    "CLIP-L": "CLIP_L",
    "CLIP-H": "CLIP_H",
    "CLIP-G": "CLIP_G",
    "T5-XXL": "T5_XXL",
    "Qwen2.5": "QWEN25_7B",
    "Qwen3": "QWEN3_4B",
    "Gemma": "GEMMA_2_2B",
}


@pytest.fixture(scope="module")
def foreign(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Checks:
    return driver.run(tmp_path_factory.mktemp("foreign"), SECONDS, "foreign")


def test_core_and_we_name_the_same_model(foreign: Checks) -> None:
    found = foreign["foreign"]
    assert found.keys() == MODELS.keys()
    for name, (core, words) in MODELS.items():
        whose, what = found[name]
        assert (whose, what.removeprefix("a ")) == (core, words), name


def test_spandrel_and_we_name_the_same_upscaler(foreign: Checks) -> None:
    found = foreign["upscalers"]
    assert len(found) >= 12
    for name, (whose, what) in found.items():
        assert (whose, what) == (name, f"an upscaler ({name})")


def test_core_and_we_name_the_same_text_encoder(foreign: Checks) -> None:
    for name, (whose, what) in foreign["text_encoders"].items():
        assert (whose, what) == (ENCODERS[name], f"a text encoder ({name})")
