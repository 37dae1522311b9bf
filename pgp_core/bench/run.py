"""The measurement: all rows in one process, in turn, so that a machine's drift hits them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..errors import PGPError
from ..number import number
from ..progress import Progress
from ..unet.count import count as counted
from ..unet.known import SDXL_SHAPE
from ..unet.shape import UNetShape
from .injection import injection_seconds
from .memory import available_memory, held_memory, peak_memory
from .rows import Net, make_inputs, make_weights, rows_of


@dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Attributes:
        latent: side of the square latent, 8 to 1024.
        batch: pictures in one UNet call.
        cfg: classifier-free guidance: the call holds every picture twice.
        repeats: rounds over all rows that are timed, after one that warms up.
        compiled: through ``torch.compile``.
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    latent: int = 128
    batch: int = 1
    cfg: bool = False
    repeats: int = 3
    compiled: bool = False
    shape: UNetShape = SDXL_SHAPE

    def __post_init__(self) -> None:
        number(self.latent, "a latent's side is", 8, 1024, whole=True)
        for name in ("batch", "repeats"):
            number(getattr(self, name), f"{name}:", 1, whole=True)


@dataclass(frozen=True)
class RowFigures:
    """What was measured of one row, plain numbers.

    Attributes:
        seconds_per_step: median of one UNet call; with CFG that is one step too, of twice the batch.
        ratio_to_full: of the medians.
        peak_memory_bytes: see :func:`pgp_core.bench.memory.peak_memory`; 0 where it cannot be had.
        params: of the UNet and of the part of its guidance that runs in every call.
        seconds_min, seconds_max: of the rounds.
        weights_bytes: of ``params``.
    """

    name: str
    seconds_per_step: float
    ratio_to_full: float
    peak_memory_bytes: int
    params: int
    seconds_min: float
    seconds_max: float
    weights_bytes: int


@dataclass(frozen=True)
class BenchFigures:
    """All rows, and what else was measured.

    Attributes:
        peam_seconds: one PEAM by itself, per UNet call.
        injection_seconds: what hook and fusion add to that.
        baseline_memory_bytes: what the process held before any weights, which every row's peak contains.
        injection_overhead_ratio: the same as a share of a full step.
    """

    options: BenchOptions
    rows: tuple[RowFigures, ...]
    peam_seconds: float
    injection_seconds: float
    baseline_memory_bytes: int

    @property
    def injection_overhead_ratio(self) -> float:
        """``injection_seconds`` over the seconds of a full step."""
        return self.injection_seconds / self.rows[0].seconds_per_step

    def to_json(self) -> dict[str, Any]:
        """JSON data; the first four are the command line's contract."""
        o = self.options
        return {
            "device": o.device,
            "dtype": str(o.dtype).removeprefix("torch."),
            "latent": o.latent,
            "rows": [asdict(row) for row in self.rows],
            "shape": o.shape.topology.name,
            "batch": o.batch,
            "cfg": o.cfg,
            "repeats": o.repeats,
            "compiled": o.compiled,
            "peam_seconds": self.peam_seconds,
            "injection_seconds": self.injection_seconds,
            "injection_overhead_ratio": self.injection_overhead_ratio,
            "baseline_memory_bytes": self.baseline_memory_bytes,
            "torch": torch.__version__,
            "threads": torch.get_num_threads() if torch.device(o.device).type == "cpu" else None,
            "device_name": torch.cuda.get_device_name(o.device) if torch.device(o.device).type == "cuda" else None,
        }


def bench_unet(options: BenchOptions, progress: Progress | None = None) -> BenchFigures:
    """Measure one step of every row.

    The rows' UNets share one set of random weights. After a round that warms up, ``repeats`` rounds each time
    every row once. Memory comes last, from the largest row to the smallest, and what the next row does not need
    is given up before it.

    Raises:
        PGPError: if memory runs out, or device and dtype do not go together.
    """
    with _explained(options):
        _check_memory(options)
        return _measure(options, progress or (lambda done, total: None))


def _measure(o: BenchOptions, progress: Progress) -> BenchFigures:
    device = torch.device(o.device)
    batch = o.batch * (2 if o.cfg else 1)
    rows = rows_of(o.shape)
    total, done = len(rows) * (o.repeats + 2), 0

    def timed(call: Callable[[], object]) -> float:
        wait_for(device)
        started = time.perf_counter()
        call()
        wait_for(device)
        return time.perf_counter() - started

    def count(value: Any) -> Any:
        nonlocal done
        done += 1
        progress(done, total)
        return value

    progress(0, total)
    baseline = held_memory(device)
    weights = make_weights(o.shape, device, o.dtype)
    inputs = make_inputs(o.shape, o.latent, batch, device, o.dtype)
    nets = {row.name: Net(row, o.shape, weights, inputs, o.latent, o.compiled) for row in rows}
    del weights  # The nets hold what they need of it, which is how a block's memory goes with its last net.
    for net in nets.values():
        if not count(net.step()).isfinite().all():
            raise PGPError(f"the {net.row.name} UNet overflows with random weights: take --dtype bf16 or fp32")
    seconds: dict[str, list[float]] = {row.name: [] for row in rows}
    for _ in range(o.repeats):
        for name, net in nets.items():
            seconds[name].append(count(timed(net.step)))
    guide = nets["fine+peam"].guide
    assert guide is not None
    more, alone = injection_seconds(guide, batch, -(-o.latent // 2), device, timed)
    del guide

    params, bytes_of, peak = {}, {}, {}
    for row in sorted(rows, key=lambda r: (nets[r.name].unet_params, r.guidance is not None), reverse=True):
        net = nets.pop(row.name)
        params[row.name], bytes_of[row.name] = net.params, net.weights_bytes
        peak[row.name] = count(peak_memory(device, net.step))
        del net
    median = {name: statistics.median(s) for name, s in seconds.items()}
    measured = tuple(
        RowFigures(
            row.name,
            median[row.name],
            median[row.name] / median["full"],
            peak[row.name],
            params[row.name],
            min(seconds[row.name]),
            max(seconds[row.name]),
            bytes_of[row.name],
        )
        for row in rows
    )
    return BenchFigures(o, measured, alone, more, baseline)


def wait_for(device: torch.device) -> None:
    """GPUs work on after a call returned."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _check_memory(o: BenchOptions) -> None:
    """A CPU that lacks memory for the weights would swap, or the system would end the process without a word."""
    have = available_memory()
    if torch.device(o.device).type != "cpu" or have is None:
        return
    need = counted(o.shape).params * o.dtype.itemsize
    if need > have:
        raise PGPError(
            f"the full UNet's weights take {need / 1e9:.1f} GB and {have / 1e9:.1f} GB of memory are free: "
            "close other programs, or take --dtype bf16"
        )


@contextmanager
def _explained(o: BenchOptions) -> Iterator[None]:
    """PyTorch's errors as one line that says what to do."""
    dtype = str(o.dtype).removeprefix("torch.")
    try:
        yield
    except PGPError:
        raise
    except (RuntimeError, MemoryError) as e:
        text = str(e)
        first = (text.splitlines() or [""])[0]
        if _is_out_of_memory(e):
            raise PGPError(
                f"out of memory on {o.device} with a {o.latent} x {o.latent} latent in {dtype}: "
                "take a smaller --latent, or --dtype bf16"
            ) from e
        if isinstance(e, NotImplementedError) or "not implemented for" in text:
            raise PGPError(f"{o.device} cannot run this UNet in {dtype}: take --dtype fp32 ({first})") from e
        if o.compiled:
            raise PGPError(f"torch.compile failed: run without --compile ({first})") from e
        raise


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error)
    # The CPU's allocator on Linux and Windows, and MPS's, raise a plain RuntimeError.
    return "can't allocate memory" in text or "not enough memory" in text or "out of memory" in text
