"""LPIPS with VGG-16 (Zhang et al., 2018) from its authors' library, its weights from files on this machine.

The library, ``lpips``, has had no release since 2021, but is the one that papers mean, and its network builds with
today's torchvision. Two things are done here instead of there: it would download VGG's weights, and its
normalisation has no gradient where all features are zero, as they are on some flat pictures.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch

from ...errors import CheckpointError
from ...extras import library
from ...files.backbones import VGG16

#: torchvision's name for VGG-16's ImageNet weights.
VGG_FILE = VGG16.file
_EPS = 1e-10


class LPIPS(torch.nn.Module):
    """LPIPS of pictures, version 0.1, frozen.

    Args:
        vgg: file of torchvision's VGG-16 weights (``.pth`` or ``.safetensors``); empty for the place where
            torchvision itself keeps them.

    Raises:
        PGPError: if the library is not installed.
        CheckpointError: if the weights are missing or of another network.
    """

    def __init__(self, vgg: str = ""):
        super().__init__()
        # torchvision warns of the library's older spelling.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lpips = library("lpips", "the measure lpips", "its library", "train")
            # On the meta device, and so without drawing weights that are replaced anyway.
            with torch.device("meta"):
                network: Any = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False)
            network.scaling_layer = lpips.ScalingLayer()
        heads = torch.load(
            Path(lpips.__file__).parent / "weights" / "v0.1" / "vgg.pth", map_location="cpu", weights_only=True
        )
        network.load_state_dict(heads, strict=False, assign=True)
        network.net.load_state_dict(_slices(network.net, read_vgg(vgg)), assign=True)
        self.network = network.float().eval().requires_grad_(False)

    def train(self, mode: bool = True) -> LPIPS:
        """Stays in evaluation: its linear layers have a dropout."""
        return super().train(False)

    def forward(self, result: torch.Tensor, hq: torch.Tensor) -> torch.Tensor:
        """``(B, 3, H, W)`` in [0, 1], at least 16 pixels a side, to ``(B,)``."""
        self.network.to(result.device)
        # The network takes [-1, 1].
        a, b = (self.network.net(self.network.scaling_layer(2 * x - 1)) for x in (result, hq))
        total = result.new_zeros(len(result))
        for head, x, y in zip(self.network.lins, a, b, strict=True):
            total = total + head((_unit(x) - _unit(y)) ** 2).mean((1, 2, 3))
        return total


def default_vgg() -> Path:
    """Where torchvision keeps VGG-16's weights: ``$TORCH_HOME/hub/checkpoints``."""
    return VGG16.place()


def find_vgg(file: str = "") -> Path:
    """Where the weights are: the file that is given, or :func:`default_vgg`.

    Raises:
        CheckpointError: if they are not there. Nothing is downloaded.
    """
    path = Path(os.path.expanduser(file)) if file else default_vgg()
    if not path.is_file():
        raise CheckpointError(
            f"the measure lpips needs VGG-16's weights and nothing is downloaded: put torchvision's {VGG_FILE} "
            f"({VGG16.url}) at {path}, or its path into the setting vgg; the measure haarpsi+ms-ssim needs no file"
        )
    return path


def read_vgg(file: str = "") -> dict[str, torch.Tensor]:
    """VGG-16's convolutions by torchvision's names, ``features.0.weight`` and so on.

    Raises:
        CheckpointError: if the file is missing, damaged, or of another network.
    """
    return VGG16.read(find_vgg(file))


def _slices(network: torch.nn.Module, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under the library's names, which cuts the network into slices and keeps the numbers."""
    names = {key: f"features.{key.partition('.')[2]}" for key in network.state_dict()}
    fitting = VGG16.fitting(weights, {names[key]: value.shape for key, value in network.state_dict().items()})
    return {key: fitting[name] for key, name in names.items()}


def _unit(features: torch.Tensor) -> torch.Tensor:
    """Features scaled to length 1 along the channels; zeros stay zeros, with a gradient of zero."""
    return features / torch.sqrt((features**2).sum(1, keepdim=True) + _EPS)
