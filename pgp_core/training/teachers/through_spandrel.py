"""Every upscaler that ComfyUI's own node takes, by the library that it takes them with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...errors import TrainingError
from ...files.boundary import first_line
from ...files.checkpoints import sha256
from . import SCALE


class Upscaler:
    """An upscaler's file.

    Args:
        path: safetensors, or what PyTorch saved; nothing in it is executed.
        licence: of its weights.

    Raises:
        TrainingError: if the library is missing, naming the command that installs it; if the file is damaged, is no
            upscaler of RGB pictures, or enlarges by another factor than 4.
    """

    def __init__(self, path: Path, licence: str, device: torch.device):
        try:
            import spandrel
        except (ImportError, OSError) as e:
            raise TrainingError(f"a teacher from a file needs spandrel ({e}): pip install spandrel") from None
        self.name, self.licence, self.device = path.stem, licence, device
        try:
            self._model: Any = spandrel.ModelLoader(device).load_from_state_dict(_weights(path)).eval()
        # Whatever a stranger's file makes of it.
        except Exception as e:
            raise TrainingError(
                f"{path.name} is no upscaler that spandrel knows, or damaged: {first_line(e)}"
            ) from None
        model = self._model
        if not isinstance(model, spandrel.ImageModelDescriptor) or (model.input_channels, model.output_channels) != (
            3,
            3,
        ):
            raise TrainingError(f"{path.name} does not make RGB pictures of RGB pictures: choose another upscaler")
        if model.scale != SCALE:
            raise TrainingError(f"{path.name} enlarges by {model.scale}: a teacher enlarges by {SCALE}")
        self.sha256 = sha256(path)

    @torch.inference_mode()
    def __call__(self, lq: torch.Tensor) -> torch.Tensor:
        """See :class:`pgp_core.training.teachers.Teacher`."""
        out: torch.Tensor = self._model(lq.to(self.device)).float().cpu()
        if not bool(out.isfinite().all()):
            raise TrainingError(f"{self.name} gave numbers that are not finite: choose another upscaler")
        return out.clamp(0, 1).clone()


def _weights(path: Path) -> dict[str, Any]:
    if path.suffix.lower() in (".safetensors", ".sft"):
        from safetensors.torch import load_file

        return load_file(path)
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return found
