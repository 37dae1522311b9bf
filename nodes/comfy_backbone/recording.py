"""Recording redundancy while core samples a MODEL."""

from __future__ import annotations

import json
import logging
from typing import Any

import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP

from ...pgp_core.errors import PGPError, ReportError
from ...pgp_core.files.weights import WeightsFile
from ...pgp_core.redundancy.analyze import Measured, make_report
from ...pgp_core.redundancy.identity import check_model, fingerprint
from ...pgp_core.redundancy.recorder import Recorder
from ...pgp_core.redundancy.report import Report, load_report
from ...pgp_core.unet.inspect import MODEL_KEY, inspect_unet
from ...pgp_core.unet.shape import UNetShape
from .blocks import blocks_of, running, skipped_blocks
from .folders import REPORTS, REPORTS_EXTENSION, files
from .guidance import KEY
from .model import shapes_of
from .saving import new_file, numbered, relative_to_output
from .topology import info_of

log = logging.getLogger(__name__)


class Recording:
    """What a recorded MODEL measures; fills while samplers run on it, several runs into one report."""

    def __init__(self, model: ModelPatcher):
        self.shape = _shape_of(model)
        self.recorder: Recorder | None = None
        self.unet: torch.nn.Module | None = None
        self.pictures = 0
        self.steps = 0
        self.tokens = 77
        self.latent = (0, 0)
        self.sampler: str | None = None
        self.seeds: set[Any] = set()
        self.cfgs: set[float] = set()
        self.partial = False

    def run(
        self,
        executor: WrapperExecutor,
        noise: torch.Tensor,
        latent: Any,
        sampler: Any,
        sigmas: Any,
        *args: Any,
        **kw: Any,
    ) -> Any:
        """Core's OUTER_SAMPLE wrapper: one run of a sampler."""
        guider = executor.class_obj
        self._begin(guider.model_patcher)
        self.pictures += noise.shape[0]
        self.steps = max(self.steps, len(sigmas) - 1)
        self.latent = (int(noise.shape[-2]), int(noise.shape[-1]))
        self.sampler = getattr(getattr(sampler, "sampler_function", None), "__name__", None)
        # denoise_mask, callback, disable_pbar, seed
        self.seeds.add(args[3] if len(args) > 3 else kw.get("seed"))
        self.cfgs.add(float(getattr(guider, "cfg", 1.0)))
        try:
            return executor(noise, latent, sampler, sigmas, *args, **kw)
        except BaseException:
            self.partial = True
            if self.recorder is not None and self.recorder.calls:
                log.warning("The recording was interrupted; what was measured is kept in %s", self.save("interrupted"))
            raise
        finally:
            if self.recorder is not None:
                self.recorder.forget()

    def call(
        self, executor: WrapperExecutor, x: torch.Tensor, timesteps: torch.Tensor, context: Any, *args: Any, **kw: Any
    ) -> Any:
        """Core's DIFFUSION_MODEL wrapper: one call of the UNet."""
        options = args[2] if len(args) > 2 else kw.get("transformer_options", {})
        if self.recorder is None:
            return executor(x, timesteps, context, *args, **kw)
        self.tokens = int(context.shape[1])
        with self.recorder.call(float(timesteps[0]), tuple(options.get("cond_or_uncond", (0,)))):
            return executor(x, timesteps, context, *args, **kw)

    def _begin(self, model: ModelPatcher) -> None:
        unet, skipped = model.model.diffusion_model, frozenset(skipped_blocks(model))
        blocks = {(s, n) for s, numbers in running(model).items() for n in numbers}
        if self.recorder is None:
            self.unet, self.recorder = unet, Recorder(unet, ldm=True, skipped=skipped)
        elif self.unet is not unet or set(self.recorder.blocks) != blocks:
            raise ReportError("Record Redundancy: one recording measures one model; use a second node for the other")
        self.recorder.forget()

    def report(self) -> Report:
        """What was measured so far.

        Raises:
            ReportError: if nothing was sampled yet.
        """
        if self.recorder is None or self.unet is None or not self.recorder.calls:
            raise ReportError(
                "nothing has been recorded: sample with the model from Record Redundancy, and connect the sampler's "
                "latent here"
            )
        measured = Measured(
            pictures=self.pictures,
            steps=self.steps,
            sampler=self.sampler,
            seed=sorted(map(str, self.seeds)),
            cfg=sorted(self.cfgs),
            latent=self.latent,
            tokens=self.tokens,
        )
        model = {"name": self.shape.topology.name, "fingerprint": fingerprint(self.unet.state_dict())}
        return make_report(self.recorder, self.shape, measured, model, self.partial)

    def save(self, name: str) -> str:
        """Write the report below the output folder; where, for people."""
        path = numbered(f"{REPORTS}/{name}" if "/" not in name else name, REPORTS_EXTENSION, ReportError)
        with new_file(path, ReportError):
            self.report().save(path)
        return relative_to_output(path)


def record(model: ModelPatcher) -> tuple[ModelPatcher, Recording]:
    """A copy of a MODEL that is measured while it is sampled; its results are the same to the bit.

    Raises:
        PGPError: if it is no SDXL-shaped UNet.
    """
    recording = Recording(model)
    recorded = model.clone()
    recorded.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, f"{KEY}.recording", recording.run)
    recorded.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, f"{KEY}.recording", recording.call)
    return recorded, recording


def check_report(report: Report, model: ModelPatcher) -> None:
    """Refuse a report of another model than this MODEL.

    Raises:
        ReportError: if it was measured on another one.
    """
    check_model(report, fingerprint(model.model.diffusion_model.state_dict()), "the connected one")


def report_files() -> list[str]:
    """Reports in ``models/pgp_reports`` and ``output/pgp_reports``."""
    return files(REPORTS, REPORTS_EXTENSION)


def report_named(name: str) -> Report:
    """A report by its name in :func:`report_files`.

    Raises:
        ReportError: if there is none of that name, or it is not valid.
    """
    if name not in report_files():
        raise ReportError(f"there is no report {name}: put it into models/pgp_reports and refresh, or choose another")
    return load_report(folder_paths.get_full_path_or_raise(REPORTS, name))


def _shape_of(model: ModelPatcher) -> UNetShape:
    blocks_of(model)
    shapes = shapes_of(model.model.diffusion_model)
    own = info_of(model)
    about = {MODEL_KEY: json.dumps({"topology": own.shape.topology.name})} if own else {}
    file = WeightsFile("this MODEL", shapes, frozenset(shapes), _unread, about)
    try:
        return inspect_unet(file).shape
    except PGPError as e:
        raise ReportError(f"Record Redundancy: {e}") from None


def _unread(key: str) -> torch.Tensor:
    raise AssertionError(f"{key} was read")
