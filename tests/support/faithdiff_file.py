"""Files laid out as FaithDiff's, built from the facts about the authors' code, not from ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pgp_core.unet.known import SDXL_SHAPE
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.shape import UNetShape

#: SDXL's blocks at the least width that 64 channels a head allow.
NARROW = replace(SDXL_SHAPE, channels=(64, 64, 64), context_dim=32, pooled_dim=32)
#: Of some 400 MB in float32, for memory: blocks of 5 MB, beside which pages and their fault-around are small.
WIDE = replace(NARROW, channels=(128, 256, 256), context_dim=128, pooled_dim=128)
ENCODER_WIDTHS = (32, 64, 96, 96)


class AuthorsBlock(torch.nn.Module):
    """CLIP's residual attention block as FaithDiff builds it: batch second, and fed batch first."""

    def __init__(self, width: int, heads: int = 8):
        super().__init__()
        self.attn = torch.nn.MultiheadAttention(width, heads)
        self.ln_1 = torch.nn.LayerNorm(width)
        self.mlp = torch.nn.ModuleDict(
            {"c_fc": torch.nn.Linear(width, 2 * width), "c_proj": torch.nn.Linear(2 * width, width)}
        )
        self.ln_2 = torch.nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        y = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](y * torch.sigmoid(1.702 * y))


class AuthorsCondition(torch.nn.Module):
    """FaithDiff's condition embedding."""

    def __init__(self, inputs: int, channels: int):
        super().__init__()
        self.conv_in = torch.nn.Conv2d(inputs, inputs, 3, padding=1)
        self.norm_in = torch.nn.GroupNorm(32, inputs, eps=1e-6)
        self.conv_out = torch.nn.Conv2d(inputs, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv_out(torch.nn.functional.silu(self.conv_in(self.norm_in(x))))


class Authors(torch.nn.Module):
    """What FaithDiff adds to SDXL's UNet, under the names of its file."""

    def __init__(self, widths: tuple[int, ...] = ENCODER_WIDTHS, channels: int = 64):
        super().__init__()
        from diffusers.models.autoencoders.vae import Encoder

        # SDXL's VAE encoder; its last three layers are not in FaithDiff's file.
        self.denoise_encoder: Any = Encoder(
            3, 4, ("DownEncoderBlock2D",) * len(widths), widths, layers_per_block=2, double_z=True
        )
        del self.denoise_encoder.conv_norm_out, self.denoise_encoder.conv_act, self.denoise_encoder.conv_out
        self.condition_embedding = AuthorsCondition(widths[-1], channels)
        self.information_transformer_layes = torch.nn.Sequential(*(AuthorsBlock(2 * channels) for _ in range(2)))
        self.spatial_ch_projs = torch.nn.Linear(2 * channels, channels)

    def encode(self, lq: torch.Tensor) -> torch.Tensor:
        """``(B, 3, H, W)`` in [-1, 1] to the condition embedding."""
        x = self.denoise_encoder.conv_in(lq)
        for block in self.denoise_encoder.down_blocks:
            x = block(x)
        return self.condition_embedding(self.denoise_encoder.mid_block(x))

    def align(self, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """UNet features after ``conv_in`` to what replaces them, as the authors' UNet does it."""
        batch, channels, height, width = h.shape
        z = torch.cat([h, c], dim=1).view(batch, -1, height * width).transpose(1, 2)
        d = self.spatial_ch_projs(self.information_transformer_layes(z))
        return h + d.transpose(1, 2).reshape(batch, channels, height, width)


def authors(seed: int = 0, **sizes: Any) -> Authors:
    """With weights of some size everywhere: zero-initialised layers would hide mistakes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = Authors(**sizes)
        for p in module.parameters():
            if p.dim() == 1:
                torch.nn.init.normal_(p, 0.5 if p.mean() > 0.5 else 0.0, 0.2)
    return module.double().eval()


def state_dict(shape: UNetShape = NARROW, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A whole file: the UNet's 1680 keys in diffusers' names, and the four groups."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = build_unet(shape).state_dict()
    extras = authors(seed, channels=shape.channels[0]).state_dict()
    return {k: v.to(dtype) for k, v in (unet | extras).items()}


def write_bases(folder: Path) -> None:
    """The good files that :mod:`mutations` damages, float16: FaithDiff's, its twin, the converted pair, nano's."""
    import shutil

    import mutations
    from safetensors.torch import save_file

    from pgp_core.guidance.convert import convert
    from pgp_core.restorers.nano import model as nano

    folder.mkdir(parents=True)
    weights = state_dict(dtype=torch.float16)
    torch.save(weights, folder / mutations.BIN)
    save_file(weights, folder / mutations.TWIN)
    for made, name in zip(convert(folder / mutations.BIN, folder), (mutations.UNET, mutations.GUIDANCE), strict=True):
        made.rename(folder / name)
    shutil.copy(nano.FOLDER / nano.UNET_FILE, folder / mutations.NANO)


def write_constant(path: Path, shape: UNetShape) -> None:
    """A whole file of 0.5 in float32, fast; in ``torch.save``'s older format where its name begins with "old"."""
    from pgp_core.files.safetensors_stream import write_streaming

    with torch.device("meta"):
        modules = build_unet(shape), Authors(channels=shape.channels[0])
    shapes = {k: tuple(v.shape) for m in modules for k, v in m.state_dict().items()}
    if path.suffix == ".safetensors":
        write_streaming(path, shapes, torch.float32, lambda k: torch.full(shapes[k], 0.5), {})
    else:
        weights = {k: torch.full(s, 0.5) for k, s in shapes.items()}
        torch.save(weights, path, _use_new_zipfile_serialization=not path.name.startswith("old"))
