"""A process with one model in it, which does what it is told and answers in plain data."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from ...errors import PGPError
from ...files.boundary import first_line
from ...progress import Progress, Say
from .task import Task

if TYPE_CHECKING:
    import torch

    from ...restorers.restorer import Restorer
    from ...sampling.options import SampleOptions

ENDED = "its process was ended, for want of memory as it seems"


class Failed(Exception):  # noqa: N818 - it says what became of a request
    """A model could not do what it was asked for.

    Attributes:
        memory: whether there was not enough of it.
    """

    def __init__(self, line: str, memory: bool):
        super().__init__(line)
        self.memory = memory


class Worker:
    """One process; use it with ``with``."""

    def __init__(self, task: Task, device: str, say: Say):
        # Not forked: memory is compared with what a fresh process has.
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._say = say
        self._process = context.Process(target=_serve, args=(theirs, task, device), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._ours.close()
        self._process.terminate()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()

    def ask(self, what: str, *arguments: Any) -> Any:
        """Have something done.

        Raises:
            Failed: if it cannot be done, or the process was ended.
        """
        try:
            self._ours.send((what, *arguments))
            while True:
                kind, *answer = self._ours.recv()
                if kind == "say":
                    self._say(*answer)
                elif kind == "failed":
                    raise Failed(*answer)
                else:
                    return answer[0]
        except (EOFError, OSError):
            raise Failed(ENDED, True) from None


def _serve(pipe: Connection, task: Task, device: str) -> None:
    # Ctrl-C is the first process's to answer; however that ends, this one does not stay.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Before the libraries that have a network side are imported: they read it once.
    os.environ["HF_HUB_OFFLINE"] = "1"
    model: _Model | None = None
    while True:
        try:
            what, *arguments = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            if what == "load":
                model = _Model(task, device, lambda text: pipe.send(("say", text)))
                answer: Any = model.about()
            else:
                answer = getattr(model, what)(*arguments)
        except BaseException as e:
            pipe.send(("failed", *_told(e)))
        else:
            pipe.send(("done", answer))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _told(error: BaseException) -> tuple[str, bool]:
    from ...batch.failures import lacks_memory

    if lacks_memory(error):
        return "there is not enough memory for it", True
    return (str(error) if isinstance(error, PGPError) else f"{type(error).__name__}: {first_line(error)}"), False


class _Model:
    """The model, in its process."""

    def __init__(self, task: Task, device: str, say: Callable[[str], None]):
        import torch

        from ...restorers.finding import find
        from ..memory import held_memory

        self.device = torch.device(device)
        self.before = held_memory(self.device) if self.device.type == "cpu" else 0
        self.task, self.found = task, find(task.given)
        self.restorer = self.found.load(self.device, say)
        self.recipe, self.options = task.decided(self.restorer)

    def about(self) -> dict[str, Any]:
        """What it is, how it is used, what its parts have."""
        from dataclasses import asdict

        from ..text_encoders import text_encoders

        parts = self.restorer.parts()
        parameters = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
        dtypes = {n: ", ".join(sorted({str(p.dtype)[6:] for p in m.parameters()})) for n, m in parts.items()}
        text = None if "text_encoder" in parts else text_encoders(self.task.given)
        if text is not None:
            parameters["text_encoder"] = text.parameters
        prompts = 1 + (self.recipe.cfg != 1 and self.task.given.negative_conditioning is None)
        return {
            "what": self.found.what,
            "settings": asdict(self.recipe),
            "parameters": parameters,
            "dtypes": dtypes,
            "prompts": 0 if text is None else int(prompts),
            "text": None if text is None else (text.macs.dense, text.macs.attention),
        }

    def count(self, size: int) -> Any:
        """The first run of a size, which warms up: its multiply-accumulates, and the canvas."""
        counted = _CountedRestorer(self.restorer)
        self._run(size, counted)
        return counted.counter.counted, counted.canvas

    def memory(self, size: int) -> int:
        """Peak bytes of a run, above what the process held before the model was read."""
        from ..memory import peak_memory

        peak = peak_memory(self.device, lambda: self._run(size))
        return max(0, peak - self.before) if peak else 0

    def seconds(self, size: int) -> float:
        """Of a run: enlarging, restoring, colours. Files are neither read nor written."""
        from ..run import wait_for

        wait_for(self.device)
        started = time.perf_counter()
        self._run(size)
        wait_for(self.device)
        return time.perf_counter() - started

    def _run(self, size: int, restorer: Restorer | None = None) -> None:
        import torch

        from ...images.sizes import Size
        from ...restorers.upscale import upscale

        small = max(1, -(-size // 4))
        picture = torch.rand(1, 3, small, small, generator=torch.Generator().manual_seed(0))
        upscale(restorer or self.restorer, picture, Size(both=(size, size)), self.options, self.recipe.color_fix)


class _CountedRestorer:
    """A restorer whose products are counted; enlarging and colours are no model's."""

    def __init__(self, restorer: Restorer):
        from ..macs import Counter

        self.inner, self.name, self.frame = restorer, restorer.name, restorer.frame
        self.recipe, self.device, self.parts = restorer.recipe, restorer.device, restorer.parts
        self.counter, self.canvas = Counter(restorer.parts()), (0, 0)

    def restore(
        self, canvas: torch.Tensor, options: SampleOptions | None = None, progress: Progress | None = None
    ) -> torch.Tensor:
        self.canvas = (canvas.shape[-2], canvas.shape[-1])
        with self.counter:
            return self.inner.restore(canvas, options, progress)
