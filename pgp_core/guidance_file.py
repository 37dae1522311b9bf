"""Guidance out of a file: one of ours, or FaithDiff's own."""

from __future__ import annotations

import torch

from .faithdiff import is_faithdiff, load_extras
from .guidance import METADATA_KEY, GuidanceSpec
from .weights_file import WeightsFile


def read_guidance(file: WeightsFile) -> tuple[GuidanceSpec, dict[str, torch.Tensor]]:
    """The spec and the weights, for :meth:`pgp_core.guidance.Guidance.load`.

    Raises:
        GuidanceError: if it holds no guidance, or an incomplete one.
    """
    if METADATA_KEY not in file.metadata and is_faithdiff(file.shapes):
        return load_extras(file)
    spec = GuidanceSpec.from_metadata(file.metadata, file.name)
    # Copies: views would hold the whole file.
    return spec, {k: file.read(k).clone() for k in file.shapes}
