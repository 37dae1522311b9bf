"""One run of training on accelerate: one device, several, or several hosts, by accelerate's own configuration."""

from __future__ import annotations

import json
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch

from ..errors import Cancelled, CheckpointError, TrainingError
from ..extras import library
from ..files.atomic import replacing
from ..files.boundary import first_line
from ..visible import visible
from .adversarial.adversary import Adversary
from .average import EMA
from .config import RunConfig
from .journal import Journal, read_rows
from .optimizer import build_optimizer, learning_rate, take_up
from .precision import autocast
from .processes import agree, as_one
from .state import check_kinds, load_state, save_state
from .stopping import asked_to_stop
from .subject import Batch, Subject

Loss = Callable[[Any, Batch, torch.Generator], torch.Tensor]
#: ``batches(numbers)`` yields the micro-batches of these numbers, in this order.
Batches = Callable[[range], Iterable[Batch]]

#: A gradient that is not finite now and then is skipped; where none ever is, nothing is trained.
_MOST_SKIPPED = 50
STATE, LOG, FIGURES = "state.pt", "log.jsonl", "figures.json"


class _Step(torch.nn.Module):
    """The loss as a module's forward, which is what DistributedDataParallel hooks into."""

    def __init__(self, subject: torch.nn.Module, loss: Loss):
        super().__init__()
        self.subject, self.loss = subject, loss

    def forward(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        return self.loss(self.subject, batch, generator)


class Runner:
    """State of one run. :meth:`resume` takes up the last checkpoint, :meth:`run` trains to the end.

    Micro-batches are numbered over all steps and processes, and number n's randomness comes from the seed and n
    alone. So a resumed run is the uninterrupted one, bit for bit on a CPU, and two processes do what one does with
    twice the accumulation.

    Args:
        subject: its parameters with ``requires_grad`` are trained.
        loss: ``loss(subject, batch, generator)``.
        signature: flat plain data that a checkpoint must share to be this run's.
        picture: ``picture(subject)``, a Pillow image to look at every ``sample_every`` steps.
        precision: ``float32`` or ``bf16``.
    """

    def __init__(
        self,
        subject: Subject,
        loss: Loss,
        config: RunConfig,
        accelerator: Any,
        signature: Mapping[str, Any] | None = None,
        picture: Callable[[Subject], Any] | None = None,
        precision: str = "float32",
    ):
        self.subject, self.loss, self.config = subject, loss, config
        self.accelerator, self.signature, self.picture = accelerator, dict(signature or {}), picture
        self.precision = precision
        self.folder = config.run.folder
        self.device: torch.device = accelerator.device
        subject.to(self.device)
        self.parameters = [p for p in subject.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(subject, config.optimizer)
        #: Discriminators of the loss, with an optimiser of their own; None where it has none.
        self.adversary: Adversary | None = getattr(loss, "adversary", None)
        average = config.ema
        self.ema: EMA | None = None
        if average.enabled and accelerator.is_main_process:
            self.ema = EMA(subject, average.decay, "cpu" if average.device == "cpu" else None)
        self.step = 0
        self.seconds = 0.0
        #: Steps without an update, because a gradient was not finite.
        self.skipped = 0
        #: Losses since the log's last row.
        self.window: list[float] = []

    # -- training ------------------------------------------------------------------------------------------------

    def run(self, batches: Batches, progress: bool = True) -> dict[str, Any]:
        """Train to the end.

        Returns:
            steps, skipped steps, seconds, and the mean loss of the log's last tenth.

        Raises:
            TrainingError: if the loss is not finite, or no gradient is any more, or a checkpoint cannot be written
                (then in all processes); the last checkpoint stays.
            Cancelled: after Ctrl-C; the state is saved.
        """
        main = self.accelerator.is_main_process
        self._start_folder(main)
        with warnings.catch_warnings():
            # Accelerate hands an argument to PyTorch that newer ones call otherwise.
            warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
            step = self.accelerator.prepare_model(_Step(self.subject, self.loss).train())
        with as_one(self.accelerator):
            journal = Journal(self.folder / LOG, self.step) if main else None
            board = self._board() if main and self.config.run.tensorboard else None
        iterator = iter(batches(self._numbers()))
        bar = self._bar(main and progress)
        saved = self.step
        try:
            with asked_to_stop() as stop:
                while self.step < self.config.run.steps:
                    started = time.monotonic()
                    row = self._one_step(step, iterator, stop)
                    self.seconds += time.monotonic() - started
                    bar.update()
                    if row is not None:
                        row["seconds"] = round(self.seconds, 1)
                        bar.set_postfix(loss=f"{row['loss']:.4g}")
                        with as_one(self.accelerator):
                            if journal is not None:
                                journal.write(row)
                        if board is not None:
                            told = {k: row[k] for k in ("loss", "lr", "grad_norm")}
                            for name, value in (told | row.get("terms", {})).items():
                                board.add_scalar(name, value, self.step)
                    if self.config.run.sample_every and self.step % self.config.run.sample_every == 0:
                        self._sample(main, board)
                    if self.step % self.config.run.save_every == 0 or self._stopping:
                        self.save()
                        saved = self.step
                    if self._stopping:
                        raise Cancelled(
                            f"interrupted at step {self.step} of {self.config.run.steps}, which is saved; the same "
                            "command goes on from there"
                        )
            if saved != self.step:
                self.save()
        finally:
            bar.close()
            if journal is not None:
                journal.close()
            if board is not None:
                board.close()
        return self._figures()

    _stopping = False
    #: Steps without an update, one after the other.
    _in_a_row = 0

    def _one_step(
        self, step: torch.nn.Module, batches: Iterator[Batch], stop: threading.Event
    ) -> dict[str, Any] | None:
        """One optimiser step; a row for the log where one is due."""
        config = self.config
        lr = learning_rate(config.optimizer, self.step, config.run.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["factor"]
        if hasattr(self.loss, "step"):
            self.loss.step = self.step
        alone = self.adversary is not None and self.adversary.alone(self.step)
        micro = config.data.accumulation
        total = torch.zeros((), device=self.device)
        for k in range(micro):
            batch = next(batches).to(self.device)
            generator = torch.Generator().manual_seed(_seed(config.run.seed, self._number(k)))
            last = k == micro - 1
            with nullcontext() if last else self.accelerator.no_sync(step):
                with torch.set_grad_enabled(not alone), autocast(self.device, self.precision):
                    loss = step(batch, generator)
                if not alone:
                    self.accelerator.backward(loss / micro)
            total += loss.detach() / micro
        mean, self._stopping = agree(self.accelerator, total, stop.is_set())
        if not math.isfinite(mean):
            self._not_finite(mean)
        norm = torch.zeros(()) if alone else self._update(config.optimizer.clip or math.inf)
        if self.adversary is not None:
            self.adversary.update(self.accelerator)
        self.step += 1
        moved = not alone and bool(torch.isfinite(norm))
        if self.ema is not None and moved and self.step % config.ema.every == 0:
            self.ema.update(self.subject)
        self.window.append(mean)
        if self.step % config.run.log_every and self.step != config.run.steps:
            return None
        row = {
            "step": self.step,
            "loss": sum(self.window) / len(self.window),
            "lr": lr,
            "grad_norm": float(norm),
            "skipped": self.skipped,
        }
        self.window = []
        # Those of the last micro-batch, where the loss tells them.
        terms = getattr(self.loss, "terms", None)
        return row | {"terms": terms} if terms else row

    def _update(self, clip: float) -> torch.Tensor:
        """The model's step with the gradient that is there, clipped; its norm. A gradient that is not finite is
        passed over."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, clip)
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
        else:
            self.skipped += 1
        self._in_a_row = 0 if bool(torch.isfinite(norm)) else self._in_a_row + 1
        if self._in_a_row >= _MOST_SKIPPED:
            self._not_finite(float(norm), f"the gradient's norm, for {_MOST_SKIPPED} steps in a row,")
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def _number(self, k: int) -> int:
        """The number of this process's micro-batch k in this step, counted over all steps and processes."""
        a = self.accelerator
        return (self.step * self.config.data.accumulation + k) * a.num_processes + a.process_index

    def _numbers(self) -> range:
        last = self.config.run.steps * self.config.data.accumulation * self.accelerator.num_processes
        return range(self._number(0), last, self.accelerator.num_processes)

    def _not_finite(self, found: float, what: str = "") -> None:
        path = self.folder / STATE
        kept = f"the last checkpoint is kept in {path}" if path.exists() else "there is no checkpoint yet"
        raise TrainingError(
            f"{what or 'the loss'} is {found} at step {self.step + 1} of {self.config.run.steps} (micro-batches from "
            f"{self._number(0)} on); {kept}: lower optimizer.lr, or look at the data"
        )

    def _start_folder(self, main: bool) -> None:
        with as_one(self.accelerator):
            if main:
                try:
                    self.folder.mkdir(parents=True, exist_ok=True)
                except OSError as e:
                    raise TrainingError(f"{self.folder} cannot be made ({e.strerror or e}): choose another") from None

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def trained(self) -> dict[str, torch.Tensor]:
        """The trained parameters by name."""
        return {n: p.detach() for n, p in self.subject.named_parameters() if p.requires_grad}

    def save(self) -> None:
        """Write the whole state to a temporary name, then rename. Other processes wait, and end if it fails.

        Raises:
            TrainingError: if it cannot be written.
        """
        with as_one(self.accelerator):
            if self.accelerator.is_main_process:
                state = {
                    "signature": json.dumps(self.signature),
                    "step": self.step,
                    "seconds": self.seconds,
                    "skipped": self.skipped,
                    "window": self.window,
                    "weights": self.trained(),
                    "optimizer": self.optimizer.state_dict(),
                }
                if self.ema is not None:
                    state |= {"ema": self.ema.shadow, "ema_updates": self.ema.updates}
                if self.adversary is not None:
                    state["adversary"] = self.adversary.state_dict()
                save_state(self.folder / STATE, state)

    @torch.no_grad()
    def resume(self) -> bool:
        """Take up the last checkpoint if there is one.

        Raises:
            CheckpointError: if it is damaged or belongs to another run.
        """
        path = self.folder / STATE
        state = load_state(path, self.signature)
        if state is None:
            return False
        own = self.trained()
        try:
            check_kinds(state)
            if own.keys() != state["weights"].keys():
                raise KeyError("it has other trained weights")
            for name, p in own.items():
                if p.shape != state["weights"][name].shape:
                    raise ValueError(f"{name} has another shape")
                p.copy_(state["weights"][name])
            take_up(self.optimizer, state["optimizer"])
            if self.adversary is not None:
                self.adversary.load_state_dict(state["adversary"])
            if self.ema is not None:
                for name, value in self.ema.shadow.items():
                    value.copy_(state["ema"][name])
                self.ema.updates = state["ema_updates"]
        # A checkpoint may hold anything in the right places.
        except Exception as e:
            raise CheckpointError(
                f"{path} is not from this run ({first_line(e)}): choose another run.folder, or delete it to start again"
            ) from None
        self.step, self.seconds, self.skipped = state["step"], float(state["seconds"]), state["skipped"]
        self.window = list(map(float, state["window"]))
        return True

    # -- what people see -----------------------------------------------------------------------------------------

    def _figures(self) -> dict[str, Any]:
        rows = read_rows(self.folder / LOG)
        losses = [float(r["loss"]) for r in rows if isinstance(r.get("loss"), (int, float))]
        tail = losses[-max(1, len(losses) // 10) :]
        return {
            "steps": self.step,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 1),
            "loss": sum(tail) / len(tail) if tail else None,
            "trainable": sum(p.numel() for p in self.parameters),
            "processes": self.accelerator.num_processes,
            "threads": torch.get_num_threads(),
            "device": self.device.type,
            "precision": self.precision,
        }

    def _sample(self, main: bool, board: Any) -> None:
        with as_one(self.accelerator):
            if main and self.picture is not None:
                image = self.averaged(self.picture)
                try:
                    with replacing(self.folder / f"sample-{self.step:06d}.png") as temporary:
                        image.save(temporary, "PNG")
                except OSError as e:
                    raise TrainingError(f"{self.folder} cannot be written to ({e.strerror or e}): make room") from None
                if board is not None:
                    board.add_image("sample", torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
                                    .view(image.height, image.width, 3), self.step, dataformats="HWC")  # fmt: skip

    def averaged(self, use: Callable[[Subject], Any]) -> Any:
        """``use(subject)`` while the subject has its averaged weights (where there is an average), in eval mode."""
        if self.ema is not None:
            with self.ema.in_place(self.subject):
                return use(self.subject)
        training = self.subject.training
        try:
            return use(self.subject.eval())
        finally:
            self.subject.train(training)

    def _board(self) -> Any:
        found = library("torch.utils.tensorboard", "run.tensorboard", "tensorboard", "tensorboard", error=TrainingError)
        return found.SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.step + 1)

    def _bar(self, shown: bool) -> Any:
        from tqdm import tqdm

        name, steps = self.folder.name, self.config.run.steps
        return tqdm(desc=visible(name), initial=self.step, total=steps, unit="step", disable=None if shown else True)


def _seed(seed: int, number: int) -> int:
    """One seed for each micro-batch of each run."""
    return (seed * 1_000_000_007 + number) % 2**63
