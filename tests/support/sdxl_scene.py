"""Narrow full-size files, the authors' whole run on them in float64, and pictures: for tests of the SDXL pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import faithdiff_file
import numpy as np
import rounding
import sdxl_files
import torch
from safetensors.torch import save_file

from pgp_core.conditioning import entries as conditioning
from pgp_core.conditioning import prompts
from pgp_core.guidance.faithdiff import GROUPS
from pgp_core.guidance.module import KEY_PREFIX, METADATA_KEY, Guidance, GuidanceSpec, Site
from pgp_core.sampling.options import SampleOptions
from pgp_core.unet.on_diffusers import build_unet


class Everything:
    """Files made once for all tests."""

    def __init__(self, root: Path):
        self.root = root
        self.weights = faithdiff_file.state_dict()
        self.unet = {k: v for k, v in self.weights.items() if not k.startswith(GROUPS)}
        self.faithdiff = root / "FaithDiff.bin"
        torch.save(self.weights, self.faithdiff)
        self.sdxl = sdxl_files.folder(root / "sdxl", self.unet)
        self.checkpoint = sdxl_files.checkpoint(root / "checkpoint.safetensors", self.unet)
        self.positive, self.negative = root / "positive.safetensors", root / "negative.safetensors"
        for path, entries in zip(
            (self.positive, self.negative), prompts.encode(self.sdxl, ["a red house", ""]), strict=True
        ):
            conditioning.save(path, entries)

    @property
    def saved(self) -> dict[str, Path]:
        """Both prompts as files."""
        return {"conditioning": self.positive, "negative_conditioning": self.negative}


def picture(batch: int = 1, height: int = 64, width: int = 64, seed: int = 5) -> torch.Tensor:
    small = torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(small, size=(height, width), mode="bicubic").clamp(0, 1)


SHORT = SampleOptions(steps=2, start="lr", seed=3)


def schedule() -> tuple[np.ndarray, np.ndarray]:
    """Products of alphas and sigmas of SDXL's 1000 steps."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = np.cumprod(1 - betas)
    return alphas, ((1 - alphas) / alphas) ** 0.5


class Oracle:
    """FaithDiff's inference from the facts: authors' modules, diffusers' UNet and VAE, Euler by hand."""

    def __init__(self, files: Everything, aligned: bool = True, dtype: torch.dtype = torch.float64):
        self.dtype = dtype
        self.unet: Any = build_unet(faithdiff_file.NARROW)
        self.unet.load_state_dict(files.unet)
        self.unet.to(dtype).eval()
        self.authors, self.vae = faithdiff_file.authors().to(dtype), sdxl_files.vae().to(dtype)
        self.aligned = aligned
        entries = [conditioning.load(p).entries[0] for p in (files.negative, files.positive)]
        self.context = torch.cat([c for c, _ in entries]).to(dtype)
        self.pooled = torch.cat([o["pooled_output"] for _, o in entries]).to(dtype)

    def latent(self, lq: torch.Tensor) -> torch.Tensor:
        return self.vae.encode(lq.to(self.dtype) * 2 - 1).latent_dist.mode() * 0.13025

    def predict(self, x: torch.Tensor, t: int, lq: torch.Tensor, cfg: float | None) -> torch.Tensor:
        """Of [uncond, cond], or of cond alone."""
        n = 1 if cfg is None else 2
        height, width = lq.shape[-2:]
        ids = torch.tensor([[height, width, 0, 0, height, width]] * n, dtype=self.dtype)
        c = self.authors.encode(lq.to(self.dtype) * 2 - 1).repeat(n, 1, 1, 1)
        handles = []
        if self.aligned:
            conv_in = self.unet.get_submodule("conv_in")
            handles = [conv_in.register_forward_hook(lambda _m, _i, h: self.authors.align(h, c))]
        out = self.unet(
            x.repeat(n, 1, 1, 1),
            torch.tensor([float(t)] * n, dtype=self.dtype),
            encoder_hidden_states=self.context[-n:],
            added_cond_kwargs={"text_embeds": self.pooled[-n:], "time_ids": ids},
        ).sample
        for handle in handles:
            handle.remove()
        return out if cfg is None else out[:1] + cfg * (out[1:] - out[:1])

    @torch.no_grad()
    def run(self, lq: torch.Tensor, steps: int, cfg: float | None, seed: int, prediction: str, start: str) -> Any:
        alphas, sigmas = schedule()
        times = [1000 // steps * i + 1 for i in reversed(range(steps))]
        z_l = self.latent(lq)
        noise = torch.randn(tuple(z_l.shape), generator=torch.Generator().manual_seed(seed)).to(self.dtype)
        if start == "lr":
            scale = (sigmas[times[0]] ** 2 + 1) ** 0.5
            x = alphas[999] ** 0.5 * z_l + (1 - alphas[999]) ** 0.5 * scale * noise
        else:
            x = sigmas[times[0]] * noise
        for i, t in enumerate(times):
            sigma, following = sigmas[t], sigmas[times[i + 1]] if i + 1 < steps else 0.0
            out = self.predict(x / (sigma**2 + 1) ** 0.5, t, lq, cfg)
            if prediction == "v_prediction":
                x0 = x / (sigma**2 + 1) - out * sigma / (sigma**2 + 1) ** 0.5
                out = (x - x0) / sigma
            x = x + (following - sigma) * out
        return x, (self.vae.decode(x / 0.13025).sample / 2 + 0.5).clamp(0, 1)


def exact(files: Everything, *run: Any, aligned: bool = True) -> tuple[torch.Tensor, torch.Tensor, float]:
    """:meth:`Oracle.run`: latent and picture in float64, and how far from the picture float32 may end."""
    latent, expected = Oracle(files, aligned).run(*run)
    _, rounded = Oracle(files, aligned, torch.float32).run(*run)
    return latent, expected, rounding.allowed(rounded, expected)


def peam_file(path: Path, loud: bool = False, aligned: bool = False) -> Path:
    """A guidance file for the narrow UNet; a loud one holds numbers in between that float16 does not have."""
    sites = (Site(channels=64),)
    if aligned:
        sites = (Site("conv_in", 64, 0, 8, "alignment"), *sites)
    spec = GuidanceSpec(sites=sites, channels=(64,), encoder_channels=faithdiff_file.ENCODER_WIDTHS, residual=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        guidance = Guidance(spec)
    if loud:
        convolutions = [m for m in guidance.peam.modules() if isinstance(m, torch.nn.Conv2d)]
        with torch.no_grad():
            convolutions[0].weight.mul_(1e6)
            convolutions[0].bias.mul_(1e6)
            for layer in convolutions[1:-1]:
                layer.bias.mul_(1e6)
            convolutions[-1].weight.mul_(1e-6)
    weights = {KEY_PREFIX + k: v.contiguous() for k, v in guidance.state_dict().items()}
    save_file(weights, path, {METADATA_KEY: json.dumps(spec.to_json())})
    return path
