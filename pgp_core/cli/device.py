"""``--device``: which devices a person may name."""

from __future__ import annotations

from ..errors import PGPError


def choose_device(name: str) -> str:
    """The device itself, or for ``auto`` the best that is there.

    Raises:
        PGPError: if it cannot be used here.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        kind = torch.empty(1, device=name).device.type
    except (RuntimeError, AssertionError) as e:
        raise PGPError(f"device {name} cannot be used here: {str(e).splitlines()[0]}") from None
    if kind == "meta":
        raise PGPError("device meta computes nothing: take cpu, cuda or mps")
    return name
