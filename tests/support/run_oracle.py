"""A whole run written out: diffusers' own UNet in any precision, Euler by hand, one step by its formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from pgp_core.sampling.options import SampleOptions

#: ``h`` after a module becomes ``change(h)``, by the module's name.
Changes = Mapping[str, Callable[[torch.Tensor], torch.Tensor]]


class UNet:
    """diffusers' UNet with CFG, something changed behind some of its modules.

    Args:
        build: makes diffusers' UNet.
        weights: in diffusers' names.
        contexts: ``positive.context``, ``positive.pooled``, and the same of "negative".
        loras: files whose product is added to the weights.
    """

    def __init__(
        self,
        build: Callable[[], Any],
        weights: Mapping[str, torch.Tensor],
        contexts: Mapping[str, torch.Tensor],
        dtype: torch.dtype,
        loras: Sequence[Path] = (),
    ):
        with torch.device("meta"):
            self.unet: Any = build()
        # Copies: LoRAs are added in place.
        self.unet.load_state_dict({k: v.to(dtype, copy=True) for k, v in weights.items()}, assign=True)
        self.unet.eval().requires_grad_(False)
        self.dtype, self.contexts = dtype, {k: v.to(dtype) for k, v in contexts.items()}
        for path in loras:
            self._add(load_file(path))

    def _add(self, lora: Mapping[str, torch.Tensor]) -> None:
        stems = {k.split(".")[0] for k in lora}
        modules = {"lora_unet_" + n.replace(".", "_"): m for n, m in self.unet.named_modules()}
        for stem in stems:
            down, up = (lora[f"{stem}.lora_{half}.weight"].to(self.dtype) for half in ("down", "up"))
            alpha = lora.get(f"{stem}.alpha", torch.tensor(float(len(down)))).to(self.dtype)
            modules[stem].weight += alpha / len(down) * torch.einsum("or,r...->o...", up.flatten(1), down)

    def __call__(self, x: torch.Tensor, t: int, cfg: float, sizes: Sequence[float], changes: Changes) -> torch.Tensor:
        kinds = ("positive",) if cfg == 1 else ("negative", "positive")
        n = len(kinds)
        handles = [
            self.unet.get_submodule(name).register_forward_hook(lambda _m, _i, h, change=change: change(h))
            for name, change in changes.items()
        ]
        out = self.unet(
            x.repeat(n, 1, 1, 1),
            torch.tensor([float(t)] * n, dtype=self.dtype),
            encoder_hidden_states=torch.cat([self.contexts[f"{k}.context"] for k in kinds]),
            added_cond_kwargs={
                "text_embeds": torch.cat([self.contexts[f"{k}.pooled"] for k in kinds]),
                "time_ids": torch.tensor([list(sizes)] * n, dtype=self.dtype),
            },
        ).sample
        for handle in handles:
            handle.remove()
        return out if n == 1 else out[:1] + cfg * (out[1:] - out[:1])


def schedule() -> tuple[np.ndarray, np.ndarray]:
    """Products of alphas and sigmas of SDXL's 1000 steps."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = np.cumprod(1 - betas)
    return alphas, ((1 - alphas) / alphas) ** 0.5


def sampled(
    predict: Callable[[torch.Tensor, int], torch.Tensor],
    z_l: torch.Tensor,
    options: SampleOptions,
    prediction: str = "epsilon",
    spread: float = 0.0,
) -> torch.Tensor:
    """Euler's steps over "leading" timesteps with an offset of 1, from any start.

    Args:
        spread: standard deviation of what is sampled; start noise has the variance of both where it is at least three
            times as much.
    """
    alphas, sigmas = schedule()
    part = options.denoise if options.start == "lq" else 1.0
    total = int(options.steps / part)
    times = [1000 // total * i + 1 for i in reversed(range(total))][-options.steps :]
    noise = torch.randn(tuple(z_l.shape), generator=torch.Generator().manual_seed(options.seed)).to(z_l)
    first = sigmas[times[0]]
    if options.start == "lr":
        x = alphas[999] ** 0.5 * z_l + (1 - alphas[999]) ** 0.5 * (first**2 + 1) ** 0.5 * noise
    else:
        more = spread if first >= 3 * spread else 0.0
        x = (first**2 + more**2) ** 0.5 * noise + (z_l if options.start == "lq" else 0)
    for i, t in enumerate(times):
        sigma, following = sigmas[t], sigmas[times[i + 1]] if i + 1 < len(times) else 0.0
        out = predict(x / (sigma**2 + 1) ** 0.5, t)
        if prediction == "v_prediction":
            out = (x - (x / (sigma**2 + 1) - out * sigma / (sigma**2 + 1) ** 0.5)) / sigma
        x = x + (following - sigma) * out
    return x
