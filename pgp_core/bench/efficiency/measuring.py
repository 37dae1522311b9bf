"""The measurement: a process a model, all models in turn, so that a clock that drifts harms all alike."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import Cancelled
from ...progress import Progress, Say
from ..macs import Macs
from ..memory import available_memory
from .figures import Efficiency, RowFigures, SizeFigures
from .task import Task
from .worker import Failed, Worker

#: Memory of a model over the bytes of its files: half-precision files are read into float32 on the CPU, and a run takes
#: its own.
_OVER_FILES = 2.5


def measure(
    tasks: Sequence[Task], sizes: Sequence[int], runs: int, device: str, say: Say, progress: Progress | None = None
) -> Efficiency:
    """Measure models.

    Each has a process of its own, so that memory is its own. A run that warms up is counted, one is looked at for its
    memory, then ``runs`` are timed, of one model after another in each round. A model for which there is no room beside
    the others is measured after them, alone; one that does not fit at all says so, and the rest goes on.

    Args:
        sizes: sides of the square results, in pixels; pictures have a quarter of that.
        runs: timed ones.
        device: of PyTorch.
        say: told in one line what is worth knowing.
        progress: called after each run.

    Raises:
        Cancelled: when ``progress`` returned False.
    """
    rows = [RowFigures(task.name) for task in tasks]
    steps = _Steps(len(tasks) * len(sizes) * (runs + 2), progress)
    left: list[int] = []
    with ExitStack() as together:
        workers: dict[int, Worker] = {}
        for number, task in enumerate(tasks):
            if workers and not _has_room(task, device):
                left.append(number)
                continue
            worker = together.enter_context(Worker(task, device, _named(task.name, say)))
            if _load(worker, rows[number]):
                workers[number] = worker
            else:
                worker.close()
        _all_sizes(workers, rows, sizes, runs, steps)
        if len(workers) > 1:
            left += [n for n in workers if any(s.lacks_memory for s in rows[n].sizes.values())]
    for number in sorted(left):
        rows[number] = RowFigures(tasks[number].name, alone=len(tasks) > 1)
        say(f"{tasks[number].name}: it is measured alone, as there was no room for it beside the others")
        with Worker(tasks[number], device, lambda text: None) as worker:
            if _load(worker, rows[number]):
                _all_sizes({number: worker}, rows, sizes, runs, steps)
    return Efficiency(rows, sizes, runs, _machine(device))


class _Steps:
    """Progress in runs."""

    def __init__(self, total: int, progress: Progress | None):
        self.done, self.total, self.progress = 0, total, progress

    def __call__(self) -> None:
        self.done = min(self.total, self.done + 1)
        if self.progress is not None and self.progress(self.done, self.total) is False:
            raise Cancelled


def _named(name: str, say: Say) -> Say:
    return lambda text: say(f"{name}: {text}")


def _load(worker: Worker, row: RowFigures) -> bool:
    try:
        about = worker.ask("load")
    except Failed as e:
        row.error = str(e)
        return False
    row.what, row.settings = about["what"], about["settings"]
    row.parameters, row.dtypes, row.prompts = about["parameters"], about["dtypes"], about["prompts"]
    if about["text"] is not None:
        row.prompt_macs = Macs(*about["text"])
    return True


def _all_sizes(
    workers: dict[int, Worker], rows: Sequence[RowFigures], sizes: Sequence[int], runs: int, steps: _Steps
) -> None:
    for size in sizes:
        going = dict(workers)

        def ask(number: int, what: str, size: int = size, going: dict[int, Worker] = going) -> Any:
            """Of one that has not failed at this size."""
            if number not in going:
                steps()
                return None
            try:
                answer = going[number].ask(what, size)
            except Failed as e:
                del going[number]
                rows[number].sizes[size] = SizeFigures(error=str(e), lacks_memory=e.memory)
                return None
            finally:
                steps()
            return answer

        for number in workers:
            if (answer := ask(number, "count")) is not None:
                counted, canvas = answer
                rows[number].sizes[size] = SizeFigures(tuple(canvas), counted)
        for number in workers:
            if (peak := ask(number, "memory")) is not None:
                rows[number].sizes[size].peak_memory_bytes = peak
        for _ in range(runs):
            for number in workers:
                if (seconds := ask(number, "seconds")) is not None:
                    rows[number].sizes[size].seconds.append(seconds)


def _has_room(task: Task, device: str) -> bool:
    """Whether a model fits in main memory beside those that are there, by the size of its files."""
    have = available_memory()
    if have is None or not device.startswith("cpu"):
        return True
    return _bytes(task) * _OVER_FILES < have


def _bytes(task: Task) -> int:
    total = 0
    for path in task.given.files():
        with suppress(OSError):
            files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and _weights(p)]
            total += sum(os.stat(p).st_size for p in files)
    return total


def _weights(path: Path) -> bool:
    # Prompts are encoded before the large part is read, and encoders are gone then.
    return path.suffix in (".safetensors", ".bin") and not path.parent.name.startswith("text_encoder")


def _machine(device: str) -> dict[str, Any]:
    import torch

    kind = torch.device(device).type
    return {
        "device": device,
        "device_name": torch.cuda.get_device_name(device)
        if kind == "cuda"
        else _processor()
        if kind == "cpu"
        else kind,
        "threads": torch.get_num_threads() if kind == "cpu" else None,
        "torch": torch.__version__,
        "pgp_diffsr": __version__,
    }


def _processor() -> str:
    """The processor's name, as far as the system says it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
