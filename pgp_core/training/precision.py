"""bfloat16 training on CPUs: convolutions and matrix products in bfloat16, the rest in float32.

Plain autocast is no faster than float32 there, because attention's and GroupNorm's backward passes have
slow bfloat16 kernels. Measured on 2 cores with AMX, nano at 16 x 128 x 128 pixels, seconds a step:
float32 0.93, autocast 0.61, autocast with these two in float32 0.47. A CPU without bfloat16 units emulates
them: one core of such a machine, 8 x 128 x 128, needed 0.8 in float32 and 2.5 so.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange


class Float32GroupNorm(torch.nn.GroupNorm):
    """GroupNorm that computes in float32 under autocast."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class Float32Attention:
    """A diffusers attention processor whose attention product runs in float32 under autocast."""

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None, **_: Any
    ) -> torch.Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            rearrange(x, "b n (h d) -> b h n d", h=attn.heads).float()
            for x in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        with torch.autocast(hidden_states.device.type, enabled=False):
            out = F.scaled_dot_product_attention(q, k, v)
        return attn.to_out[1](attn.to_out[0](rearrange(out, "b h n d -> b n (h d)")))


def fastest(device: torch.device) -> str:
    """The precision that trains fastest here: ``bf16`` where the hardware has units for it, else ``float32``."""
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        units = any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16"))
    else:
        units = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16" if units else "float32"


def prepare(unet: torch.nn.Module, precision: str) -> None:
    """Set a diffusers UNet up for a precision, in place; its state dict stays as it is."""
    if precision == "bf16":
        unet.set_attn_processor(Float32Attention())  # type: ignore[operator]
        for module in unet.modules():
            if type(module) is torch.nn.GroupNorm:
                module.__class__ = Float32GroupNorm


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The autocast context of a precision: ``float32`` or ``bf16``."""
    # Autocast would keep a copy of every weight until the forward pass is over; each is used once in it.
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)
