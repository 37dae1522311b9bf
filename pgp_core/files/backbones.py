"""ImageNet backbones that perceptual measures stand on: torchvision's files, where torchvision itself keeps them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import CheckpointError, name_some
from .boundary import first_line
from .torch_file import load_torch_file


@dataclass(frozen=True)
class Backbone:
    """One network.

    Attributes:
        name: as people say it.
        file: torchvision's name of its weights, which ends in the beginning of their SHA-256.
        size: of the file, for people.
    """

    name: str
    file: str
    size: str

    @property
    def url(self) -> str:
        return f"https://download.pytorch.org/models/{self.file}"

    def place(self) -> Path:
        """Where torchvision keeps it: ``$TORCH_HOME/hub/checkpoints``."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.file

    def fetch(self) -> Path:
        """Download it to its place, as torchvision does; only ever on the user's word.

        Raises:
            CheckpointError: if that fails; nothing is left behind.
        """
        place = self.place()
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            prefix = place.stem.rpartition("-")[2]
            torch.hub.download_url_to_file(self.url, str(place), prefix, progress=sys.stderr.isatty())
        # What urllib, ssl and the file system raise, and RuntimeError where the hash is another.
        except (OSError, RuntimeError, ValueError) as e:
            raise CheckpointError(
                f"{self.name} cannot be downloaded ({first_line(e)}): get {self.url} and put it at {place}"
            ) from None
        return place

    def read(self, path: Path) -> dict[str, torch.Tensor]:
        """Its convolutions by torchvision's names, ``features.0.weight`` and so on, from ``.pth`` or ``.safetensors``.

        Raises:
            CheckpointError: if the file is damaged or of another network.
        """
        try:
            if path.suffix == ".safetensors":
                from safetensors.torch import load_file

                weights = load_file(path)
            else:
                weights, _ = load_torch_file(path, f"place {self.file} again")
            found = {k: v for k, v in weights.items() if k.startswith("features.")}
        except CheckpointError:
            raise
        except Exception as e:
            raise CheckpointError(
                f"{path} is damaged or holds no weights ({first_line(e)}): place {self.file} again"
            ) from None
        if not found:
            raise CheckpointError(
                f"{path} is not {self.name} as torchvision has it: its names are {name_some(weights)}"
            )
        return found

    def fitting(self, weights: Mapping[str, torch.Tensor], shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
        """Those of the weights that a network has, in float32.

        Args:
            shapes: of its weights, by torchvision's names.

        Raises:
            CheckpointError: if one is missing or of another shape.
        """
        for key, shape in shapes.items():
            if not isinstance(weights.get(key), torch.Tensor) or weights[key].shape != shape:
                raise CheckpointError(f"these are not {self.name}'s weights: {key} is missing or of another shape")
        return {key: weights[key].float() for key in shapes}


ALEXNET = Backbone("AlexNet", "alexnet-owt-7be5be79.pth", "233 MB")
VGG16 = Backbone("VGG-16", "vgg16-397923af.pth", "528 MB")
