"""SDXL's VAE on diffusers: read from any of the files that hold one, run so that it cannot overflow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, PGPError
from ..files import diffusers_folder
from ..files.checkpoints import check_finite, check_same
from ..files.prefixes import find_home
from ..files.scaled_fp8 import name_quantised
from ..files.weights import WeightsFile, count_numbered, open_weights
from ..files.what_it_is import VAE_HEADS, described

#: SDXL's, where no configuration says another.
SCALING_FACTOR = 0.13025
#: Pixels along a side beyond which the VAE works tile by tile; its memory then grows no more.
TILE = 1024

#: What diffusers called the attention's layers before 0.18.
_OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


class VAE:
    """Encoder and decoder between RGB and scaled latents.

    They run in float32 on every device: SDXL's own VAE overflows float16 (the "fp16-fix" one does not, but no file
    says which it is), bfloat16 is off by whole grey levels, and both halves run once a picture.

    Attributes:
        module: a diffusers ``AutoencoderKL``.
        factor: pixels per latent position.
        channels: of a latent.
    """

    def __init__(self, module: Any, scaling_factor: float = SCALING_FACTOR, shift_factor: float = 0.0):
        self.module = module.float().eval().requires_grad_(False)
        self.scaling_factor, self.shift_factor = scaling_factor, shift_factor
        self.factor = 2 ** (len(module.config.block_out_channels) - 1)
        self.channels = int(module.config.latent_channels)
        self.module.tile_sample_min_size = TILE
        self.module.tile_latent_min_size = TILE // self.factor
        self.module.enable_tiling()

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.module.parameters()).device

    def encode(self, rgb: torch.Tensor) -> torch.Tensor:
        """Latents as the UNet wants them.

        The distribution's mode, as ComfyUI's VAE Encode has it; FaithDiff's authors draw from the distribution, whose
        deviation is small beside the noise that follows.

        Args:
            rgb: ``(B, 3, H, W)`` in [0, 1], H and W multiples of :attr:`factor`.

        Returns:
            ``(B, channels, H / factor, W / factor)`` float32.
        """
        z = self.module.encode(rgb.to(self.device, torch.float32) * 2 - 1).latent_dist.mode()
        return _finite((z - self.shift_factor) * self.scaling_factor, "encodes")

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Scaled latents ``(B, channels, h, w)`` to RGB ``(B, 3, h * factor, w * factor)``, float32, not clamped.

        Raises:
            PGPError: if a value is not finite.
        """
        z = z.to(self.device, torch.float32) / self.scaling_factor + self.shift_factor
        return _finite(self.module.decode(z).sample, "decodes") / 2 + 0.5


def _finite(x: torch.Tensor, does: str) -> torch.Tensor:
    if not bool(torch.isfinite(x).all()):
        raise PGPError(f"the VAE {does} to numbers that are not finite: its file is damaged, or no VAE of SDXL's")
    return x


def load_vae(
    path: Path, device: torch.device | str = "cpu", instead: str = "give SDXL's VAE, or a whole checkpoint"
) -> VAE:
    """A VAE from one file (its own, or a whole checkpoint) or from a folder (diffusers' ``vae``).

    Its sizes are read from the weights. A folder's ``config.json`` says how latents are scaled; a file is taken to be
    SDXL's.

    Args:
        instead: what to do where there is none, for the error.

    Raises:
        CheckpointError: if there is no VAE of SDXL's kind in it.
    """
    folder = path / "vae" if (path / "vae").is_dir() else path if path.is_dir() else path.parent
    # A file's configuration lies beside it in a diffusers folder, and nowhere else.
    settings = diffusers_folder.config(folder) if path.is_dir() or folder.name == "vae" else {}
    with open_weights(path, "vae") as file:
        weights = _diffusers_names(_read(file, instead), file.name)
        module = _build(weights, file.name)
        check_same({k: tuple(v.shape) for k, v in module.state_dict().items()}, weights, file.name)
    module.load_state_dict(weights, assign=True)
    try:
        scaling = float(settings.get("scaling_factor") or SCALING_FACTOR)
        shift = float(settings.get("shift_factor") or 0)
        if not (math.isfinite(scaling) and math.isfinite(shift)):
            raise ValueError("not finite")
    except Exception:
        raise CheckpointError(f"{path}: its config.json has no number as scaling_factor or shift_factor") from None
    return VAE(module.to(device), scaling, shift)


def _read(file: WeightsFile, instead: str) -> dict[str, torch.Tensor]:
    """The VAE's tensors without prefix, float32."""
    home = find_home(file.shapes, VAE_HEADS)
    if home is None:
        what = described(file.shapes)
        raise CheckpointError(f"{file.name} holds {f'{what}, ' if what else ''}no VAE: {instead}")
    parts = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
    keys = [k for k in file.shapes if k.startswith(tuple(home.prefix + p for p in parts))]
    if quantised := name_quantised(keys):
        raise CheckpointError(f"{file.name} {quantised}")
    broken = [k for k in keys if k not in file.floating]
    if broken:
        raise CheckpointError(f"{file.name}: {broken[0]} holds no floating-point numbers")
    weights = {k[len(home.prefix) :]: file.read(k).to(torch.float32, copy=True) for k in keys}
    check_finite(weights, file.name)
    return weights


def _diffusers_names(weights: dict[str, torch.Tensor], source: str) -> dict[str, torch.Tensor]:
    levels = count_numbered(weights, r"encoder\.down\.(\d+)\.")
    if not levels:
        for old, new in _OLD_NAMES.items():
            weights = {k.replace(old, new) if ".attentions." in k else k: v for k, v in weights.items()}
        return weights
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    types = {"down_block_types": [""] * levels, "up_block_types": [""] * levels}
    try:
        converted: dict[str, torch.Tensor] = convert_ldm_vae_checkpoint(weights, types)
    # A converter of others: whatever it raises, it missed something.
    except Exception as e:
        raise CheckpointError(f"{source} holds no whole VAE: {e} is missing") from None
    return converted


def _build(weights: Mapping[str, torch.Tensor], source: str) -> Any:
    """An ``AutoencoderKL`` without weights, of the sizes that they have."""
    from diffusers import AutoencoderKL

    def size(key: str, axis: int) -> int:
        found = weights.get(key)
        if found is None or found.dim() <= axis:
            raise CheckpointError(f"{source} holds no whole VAE: it lacks {key}")
        return int(found.shape[axis])

    levels = count_numbered(weights, r"encoder\.down_blocks\.(\d+)\.")
    layers = count_numbered(weights, r"encoder\.down_blocks\.0\.resnets\.(\d+)\.")
    latent = size("decoder.conv_in.weight", 1)
    if latent != 4:
        raise CheckpointError(f"{source} holds a VAE of {latent} latent channels; SDXL's has 4: give SDXL's")
    widths = tuple(size(f"encoder.down_blocks.{i}.resnets.0.conv2.weight", 0) for i in range(levels))
    if not 2 <= levels <= 8 or not 1 <= layers <= 8 or any(w % 32 or not 32 <= w <= 4096 for w in widths):
        raise CheckpointError(f"{source} holds no VAE of SDXL's kind: its levels have {widths} channels")
    with torch.device("meta"):
        return AutoencoderKL(
            in_channels=size("encoder.conv_in.weight", 1),
            out_channels=size("decoder.conv_out.weight", 0),
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=widths,
            layers_per_block=layers,
            latent_channels=latent,
            sample_size=TILE,
            use_quant_conv="quant_conv.weight" in weights,
            use_post_quant_conv="post_quant_conv.weight" in weights,
        )
