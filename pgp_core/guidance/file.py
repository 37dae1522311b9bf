"""Guidance out of a file: one of ours, or FaithDiff's own."""

from __future__ import annotations

import torch

from ..errors import GuidanceError
from ..files.prefixes import Home, beneath, find_home
from ..files.weights import WeightsFile
from ..files.what_it_is import described
from .faithdiff import find_extras, is_faithdiff, load_extras
from .module import KEY_PREFIX, METADATA_KEY, GuidanceSpec


def spec_of(file: WeightsFile) -> GuidanceSpec:
    """What guidance a file holds, from names, shapes and metadata alone.

    Raises:
        GuidanceError: if it holds none.
    """
    if METADATA_KEY not in file.metadata and is_faithdiff(file.shapes):
        return find_extras(file).spec
    return GuidanceSpec.from_metadata(file.metadata, file.name)


def read_guidance(file: WeightsFile) -> tuple[GuidanceSpec, dict[str, torch.Tensor]]:
    """The spec and the weights, for :meth:`pgp_core.guidance.module.Guidance.load`.

    Raises:
        GuidanceError: if it holds no guidance, or an incomplete one.
    """
    if METADATA_KEY not in file.metadata and is_faithdiff(file.shapes):
        return load_extras(file)
    if METADATA_KEY not in file.metadata and (what := described(file.shapes)):
        raise GuidanceError(
            f'{file.name} holds {what}, no PGP-DiffSR guidance (its metadata has no "{METADATA_KEY}"): choose a '
            "guidance file or FaithDiff.bin"
        )
    spec = GuidanceSpec.from_metadata(file.metadata, file.name)
    home = find_home(file.shapes, (KEY_PREFIX,))
    file = beneath(file, home or Home())
    # Copies: views would hold the whole file.
    return spec, {k: file.read(k).clone() for k in file.shapes}
