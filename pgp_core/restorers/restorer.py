"""A model with everything around it, as everybody uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from ..images.frames import Frame
from ..progress import Progress
from ..sampling.options import SampleOptions
from .recipe import Recipe

#: What a model's parts are called, in the order of tables: what every family calls them, whatever its authors do.
PARTS = ("unet", "vae", "text_encoder", "guidance")


class Restorer(Protocol):
    """A model with everything around it that turns an LQ canvas into an HQ picture."""

    #: What it is called where results are listed.
    name: str

    @property
    def frame(self) -> Frame:
        """What canvases it takes."""

    @property
    def recipe(self) -> Recipe:
        """How it is meant to be used: its family's, and what its files say."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def restore(
        self, canvas: torch.Tensor, options: SampleOptions | None = None, progress: Progress | None = None
    ) -> torch.Tensor:
        """Restore canvases.

        Args:
            canvas: ``(B, 3, H, W)`` RGB in [0, 1]; any size, memory permitting.
            options: by default what :attr:`recipe` says.
            progress: see :data:`pgp_core.progress.Progress`.

        Returns:
            ``(B, 3, H * enlarges, W * enlarges)`` float32 on the CPU, in [0, 1].

        Raises:
            PGPError: if numbers overflow, in float32 too.
            Cancelled: when ``progress`` returned False.
        """

    def parts(self) -> Mapping[str, torch.nn.Module]:
        """The modules that it is made of, by the words of :data:`PARTS`; what it has not, or no longer, is not there.

        Each parameter is in one part. A part's direct children say what is what in it: ``encoder`` and ``decoder`` of a
        VAE, ``lq_encoder`` of guidance. A codec or prompts that were encoded once are no modules.
        """
