"""What several processes of one run must do together: be set up, agree, and end together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import PGPError, TrainingError


def make_accelerator(device: str = "auto") -> Any:
    """Accelerate's view of devices and processes. Precision is ours (:mod:`.precision`), so its own is off.

    Raises:
        TrainingError: if its configuration shards the model.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, DistributedType

    # One set of gradients, not two.
    kwargs = DistributedDataParallelKwargs(gradient_as_bucket_view=True, broadcast_buffers=False)
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no", kwargs_handlers=[kwargs])
    kind = accelerator.distributed_type
    if kind not in (DistributedType.NO, *(k for k in DistributedType if k.value.startswith("MULTI_"))):
        raise TrainingError(
            f"accelerate is configured for {kind.value}; runs work with whole copies of the model on each device: "
            "choose plain multi-GPU with `accelerate config`"
        )
    return accelerator


def agree(accelerator: Any, loss: torch.Tensor, stop: bool) -> tuple[float, bool]:
    """The mean loss of all processes, and whether one of them was asked to stop."""
    if accelerator.num_processes == 1:
        return float(loss), stop
    both = torch.stack((loss, torch.tensor(float(stop), device=loss.device)))
    mean, asked = accelerator.reduce(both, "mean").tolist()
    return mean, asked > 0


@contextmanager
def as_one(accelerator: Any) -> Iterator[None]:
    """What only the main process does in a ``with`` block that all enter: where it fails, all end.

    Raises:
        TrainingError: the main process's own, and one that refers to it in the others.
    """
    failed: PGPError | None = None
    try:
        yield
    except PGPError as e:
        failed = e
    if accelerator.num_processes > 1:
        told = torch.tensor(float(failed is not None), device=accelerator.device)
        if accelerator.reduce(told, "sum").item() and failed is None:
            raise TrainingError("the main process cannot write: what it says holds for this one too")
    if failed is not None:
        raise failed
