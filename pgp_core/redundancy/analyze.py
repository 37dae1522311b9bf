"""A redundancy report from pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from .. import __version__
from ..batch.failures import give_back_memory, lacks_memory, one_picture
from ..errors import Cancelled, PGPError, ReportError
from ..progress import Progress
from ..sampling.options import SampleOptions
from ..unet.costs import block_cost, unet_cost
from ..unet.loading import built_shape
from ..unet.shape import UNetShape
from ..unet.topology import stack_order
from .identity import fingerprint
from .recorder import Block as BlockName
from .recorder import Recorder, series_of
from .report import Block, Report


@dataclass
class Measured:
    """What a report was measured on; what is not known stays None."""

    pictures: Any = 0
    steps: int | None = None
    sampler: str | None = None
    seed: Any = None
    cfg: Any = None
    latent: tuple[int, int] = (0, 0)
    tokens: int = 77
    extra: dict[str, Any] = field(default_factory=dict)


def make_report(
    recorder: Recorder, shape: UNetShape, measured: Measured, model: Mapping[str, Any], partial: bool = False
) -> Report:
    """A report of what a recorder has.

    Raises:
        ReportError: if it has nothing.
    """
    if not recorder.calls:
        raise ReportError("nothing has been recorded: sample with the recorded model first")
    ran: dict[str, list[int]] = {s: [] for s in sorted(shape.topology.depths, key=stack_order)}
    for stack, number in recorder.blocks:
        ran[stack].append(number)
    cost = unet_cost(shape, ran, measured.latent)
    return Report(
        topology=shape.topology.name,
        model=dict(model),
        totals={"params": cost.params, "macs": cost.macs},
        measured={
            "pictures": measured.pictures,
            "steps": measured.steps,
            "sampler": measured.sampler,
            "seed": measured.seed,
            "cfg": measured.cfg,
            "latent": list(measured.latent),
            "calls": recorder.calls,
            "not_finite": recorder.dropped,
            **measured.extra,
        },
        partial=partial,
        modules={k: series_of(v) for k, v in recorder.modules.items()},
        blocks={
            stack: {n: _block(recorder, shape, measured, (stack, n)) for n in sorted(numbers)}
            for stack, numbers in ran.items()
        },
        versions={"pgp_diffsr": __version__, "torch": torch.__version__},
        maps=recorder.feature_maps(),
    )


def _block(recorder: Recorder, shape: UNetShape, measured: Measured, block: BlockName) -> Block:
    stack = block[0]
    level = 2 if stack.startswith(("mid_block", "up_blocks.0", "down_blocks.2")) else 1
    height, width = (-(-side // 2**level) for side in measured.latent)
    cost = block_cost(shape.channels[level], shape.context_dim, height * width, measured.tokens)
    return Block(cost.params, cost.macs, series_of(recorder.inside[block]))


@contextmanager
def recorded(pipeline: Any, recorder: Recorder, measured: Measured) -> Iterator[None]:
    """Measure every UNet call of a pipeline that restores pictures one by one."""
    forward = pipeline.unet.forward

    def call(x: torch.Tensor, t: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        measured.latent = (int(x.shape[-2]), int(x.shape[-1]))
        measured.tokens = int(kwargs["encoder_hidden_states"].shape[1])
        # [uncond, cond] with CFG, by the numbers that ComfyUI gives them.
        streams = (1, 0) if len(x) == 2 else (0,)
        with recorder.call(float(torch.as_tensor(t).flatten()[0]), streams):
            return forward(x, t, *args, **kwargs)

    pipeline.unet.forward = call
    try:
        yield
    finally:
        # Not deleted: the attribute may have been the instance's own before.
        pipeline.unet.forward = forward
        recorder.forget()


def analyze(
    pipeline: Any,
    name: str,
    canvases: Iterable[tuple[str, Callable[[], torch.Tensor]]],
    options: SampleOptions,
    progress: Callable[[str, int, int], bool | None] | None = None,
    failed: Callable[[str, PGPError], Any] | None = None,
) -> Report:
    """Sample pictures with a pipeline and measure its UNet.

    Args:
        pipeline: :class:`pgp_core.restorers.nano.restorer.NanoRestorer` or
            :class:`pgp_core.restorers.sdxl.restorer.SDXLRestorer`.
        name: of the model, for the report.
        canvases: names of pictures, and what gives each one's canvas ``(1, 3, H, W)`` in [0, 1].
        options: how to sample; the same seed for every picture.
        progress: called with the picture's name, steps done and in all; returns False to cancel.
        failed: called with the name of a picture that cannot be sampled, and why. The report is that of the others;
            its ``measured`` lists the names under ``failed``.

    Returns:
        the report; marked partial if it was interrupted after something had been measured.

    Raises:
        PGPError: if not one picture could be sampled.
    """
    unet, shape = pipeline.unet, built_shape(pipeline.unet)
    names = shape.topology.names
    weights = {names.to_ldm(k): v for k, v in unet.state_dict().items()}
    recorder = Recorder(unet)
    measured = Measured(pictures=[], steps=options.steps, sampler="euler", seed=options.seed, cfg=options.cfg)
    partial = False
    broken: list[tuple[str, PGPError]] = []
    with recorded(pipeline, recorder, measured):
        for picture, canvas in canvases:
            recorder.forget()
            try:
                with one_picture(picture), recorder.whole():
                    pipeline.restore(canvas(), options, _of_picture(progress, picture))
            except (KeyboardInterrupt, Cancelled):
                if not recorder.calls:
                    raise
                partial = True
                break
            except PGPError as e:
                broken.append((picture, e))
                if failed is not None:
                    failed(picture, e)
                if e.__cause__ is not None and lacks_memory(e.__cause__):
                    e.__cause__ = None
                    give_back_memory()
                continue
            measured.pictures.append(picture)
    if broken and not recorder.calls:
        first = broken[0][1]
        raise first if len(broken) == 1 else ReportError(f"none of {len(broken)} pictures could be sampled; {first}")
    if broken:
        measured.extra["failed"] = [picture for picture, _ in broken]
    return make_report(recorder, shape, measured, {"name": name, "fingerprint": fingerprint(weights)}, partial)


def _of_picture(progress: Callable[[str, int, int], bool | None] | None, picture: str) -> Progress | None:
    return None if progress is None else lambda done, total: progress(picture, done, total)
