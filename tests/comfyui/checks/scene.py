"""What the checks share: nano with a PEAM that matters, pictures, and core's samplers."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.sd
import comfy.utils
import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.pgp_core.codecs.decoder import DecoderShape, PixelDecoder
from safetensors.torch import save_file

#: An odd latent: the UNet's three levels have 17 x 13, 9 x 7 and 5 x 4 positions.
HEIGHT, WIDTH = 17, 13
CHANNELS, FACTOR = 48, 4
SEED, STEPS, CFG = 5, 4, 1.5


class Nano:
    """The bundled model, its PEAMs' last convolutions redrawn so that they change the result."""

    def __init__(self) -> None:
        self.model, self.patch, self.vae, self.positive, self.negative = comfy_backbone.load_nano()
        generator = torch.Generator().manual_seed(0)
        for peam in self.patch.model.peam.values():
            last = peam.convs[-1]
            last.weight.copy_(torch.randn(last.weight.shape, generator=generator) * 0.02)
            last.bias.copy_(torch.randn(last.bias.shape, generator=generator) * 0.02)

    def guided(self, picture: torch.Tensor, strength: float = 1.0, start: float = 0.0, end: float = 1.0) -> Any:
        """The MODEL with guidance."""
        return comfy_backbone.apply_guidance(self.model, self.patch, picture, strength, start, end)

    def sample(
        self,
        model: Any,
        noise: torch.Tensor,
        steps: int = STEPS,
        cfg: float = CFG,
        callback: Callable[..., None] | None = None,
    ) -> torch.Tensor:
        """As the KSampler node: Euler, ``ddim_uniform``, from an empty latent."""
        # fmt: off
        result: torch.Tensor = comfy.sample.sample(
            model, noise, steps, cfg, "euler", "ddim_uniform", self.positive, self.negative, torch.zeros_like(noise),
            denoise=1.0, seed=SEED, callback=callback, disable_pbar=True,
        )
        # fmt: on
        return result

    def peam_weights(self) -> dict[str, torch.Tensor]:
        """The redrawn PEAMs, for the other backbone."""
        return {f"peam.{k}": v.clone() for k, v in self.patch.model.peam.state_dict().items()}


def pictures(seed: int, batch: int = 1, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    """Different smooth pictures, ``(B, 4 * height, 4 * width, 3)`` in [0, 1], sizes in latent positions."""
    generator = torch.Generator().manual_seed(seed)
    size = (height * FACTOR, width * FACTOR)
    coarse = torch.rand(batch, 3, 6, 6, generator=generator)
    fine = torch.rand(batch, 3, *size, generator=generator)
    x = torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=False)
    return (0.9 * x + 0.1 * fine).clamp(0, 1).movedim(1, -1).contiguous()


def drawn_decoder() -> PixelDecoder:
    """A learned decoder that changes a picture by about a tenth of its range."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = PixelDecoder.fresh(DecoderShape(8, 3))
        torch.nn.init.normal_(decoder.convs[-1].weight, std=0.02)
        torch.nn.init.normal_(decoder.convs[-1].bias, std=0.02)
    return decoder


def noise(batch: int = 1, height: int = HEIGHT, width: int = WIDTH) -> torch.Tensor:
    """What the KSampler node draws for :data:`SEED`."""
    result: torch.Tensor = comfy.sample.prepare_noise(torch.zeros(batch, CHANNELS, height, width), SEED)
    return result


def with_lora(model: Any, file: Path) -> tuple[Any, dict[str, Any]]:
    """A MODEL with a LoRA as the node LoraLoaderModelOnly puts it there, and what came of it."""
    lora = comfy.utils.load_torch_file(str(file), safe_load=True)
    with Messages() as messages:
        patched, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)
    return patched, {
        "layers in the file": sum(k.endswith(".lora_up.weight") for k in lora),
        "layers patched": len(patched.patches) - len(model.patches),
        "not loaded": [m for m in messages.lines if "not loaded" in m.lower()],
    }


def raw(model: Any, positive: list[Any], x: torch.Tensor, timestep: int, **options: Any) -> torch.Tensor:
    """The UNet's own output, without sampler and schedule."""
    comfy.model_management.load_models_gpu([model])
    context, extra = positive[0]
    batch = x.shape[0]
    sizes = {k: v for k, v in extra.items() if k != "pooled_output"}
    y = model.model.encode_adm(pooled_output=extra["pooled_output"], device=x.device, **sizes)
    result: torch.Tensor = model.model.diffusion_model(
        x,
        timesteps=torch.full((batch,), float(timestep)),
        context=context.expand(batch, -1, -1),
        y=y.expand(batch, -1),
        transformer_options={"cond_or_uncond": [0], "sigmas": torch.ones(batch), **options},
    )
    return result


class Messages(logging.Handler):
    """What is logged meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def __enter__(self) -> Messages:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: Any) -> None:
        logging.getLogger().removeHandler(self)


def patch_of(model: Any) -> Any:
    """The guidance on a MODEL."""
    (patch,) = model.model_options["transformer_options"]["patches"]["input_block_patch"]
    return patch


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest absolute difference."""
    return float((a - b).abs().max())


def save(file: Path, **tensors: torch.Tensor) -> None:
    """Hand tensors to the tests."""
    save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()}, file)


def support(name: str) -> ModuleType:
    """A module or package of ``tests/support``, which is not on ``sys.path`` here."""
    folder = Path(__file__).parents[2] / "support"
    package = folder / name / "__init__.py"
    path = package if package.is_file() else folder / f"{name}.py"
    # A package's folder is found by its file.
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
