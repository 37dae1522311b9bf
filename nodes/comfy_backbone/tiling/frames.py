"""A batch sampled a few latents at a time, in one run for whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management as mm
import torch
from comfy.patcher_extension import WrapperExecutor

from ..parts import sampling_part
from .calls import TiledCalls


class Runs:
    """Core's OUTER_SAMPLE wrapper of a tiled MODEL: begins its runs, and cuts them into parts.

    Memory that a run takes depends on the part, so it does not grow with the number of frames.
    """

    def __init__(self, calls: TiledCalls, frames: int):
        self.calls, self.frames = calls, frames

    def __call__(
        self,
        executor: WrapperExecutor,
        noise: torch.Tensor,
        latent_image: torch.Tensor,
        sampler: Any,
        sigmas: Any,
        denoise_mask: Any = None,
        callback: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        guider = executor.class_obj
        with self.calls.run((noise.shape[-2], noise.shape[-1]), guider.model_patcher.model, guider.model_options):
            total = noise.shape[0]
            if noise.ndim != 4 or not 0 < self.frames < total:
                return executor(noise, latent_image, sampler, sigmas, denoise_mask, callback, *args, **kwargs)
            conds = guider.conds
            parts = [(a, min(a + self.frames, total)) for a in range(0, total, self.frames)]
            watch = _Watch(callback, len(parts), guider.model_patcher.model.latent_format)
            results = []
            for i, (first, end) in enumerate(parts):
                cut = _Cut(first, end, total)
                self.calls.part()
                # As CFGGuider.sample prepares them for a run.
                guider.conds = {k: [cut.cond(c) for c in v] for k, v in conds.items()}
                if "latent_shapes" in kwargs:
                    kwargs["latent_shapes"] = [(end - first, *noise.shape[1:])]
                of_part = None if callback is None else watch.of(i)
                rest = (cut.tensor(latent_image), sampler, sigmas, cut.tensor(denoise_mask), of_part, *args)
                with sampling_part(first, end, total):
                    result = executor(cut.tensor(noise), *rest, **kwargs)
                results.append(result.to(mm.intermediate_device()))
            return torch.cat(results)


class _Cut:
    """Latents ``first`` to ``end`` of ``total``."""

    def __init__(self, first: int, end: int, total: int):
        self._some, self._total = slice(first, end), total
        #: By what they are copies of: where conditionings share a ControlNet, core runs them together.
        self._controls: dict[int, Any] = {}

    def tensor(self, value: Any) -> Any:
        """Its part, where it has one entry per latent."""
        whole = isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape[0] == self._total
        return value[self._some] if whole else value

    def cond(self, cond: dict[str, Any]) -> dict[str, Any]:
        """A conditioning for this part only."""
        part = {k: self.tensor(v) for k, v in cond.items()}
        if part.get("control") is not None:
            part["control"] = self._control(part["control"])
        return part

    def _control(self, control: Any) -> Any:
        """A ControlNet with the hints of this part."""
        hints = [control.cond_hint_original, *control.extra_concat_orig]
        before = None if control.previous_controlnet is None else self._control(control.previous_controlnet)
        if before is control.previous_controlnet and all(self.tensor(h) is h for h in hints):
            return control
        if id(control) not in self._controls:
            part = control.copy()
            part.cond_hint_original = self.tensor(control.cond_hint_original)
            part.extra_concat_orig = [self.tensor(h) for h in control.extra_concat_orig]
            part.set_previous_controlnet(before)
            self._controls[id(control)] = part
        return self._controls[id(control)]


class _Watch:
    """One callback for all parts: steps are numbered through, and the last one shows the whole batch."""

    def __init__(self, callback: Any, parts: int, latent_format: Any):
        self._callback, self._parts = callback, parts
        self._done: list[torch.Tensor] = []
        # A preview by a small VAE takes the latent where that VAE is. Its latents are small, too.
        self._resting = getattr(latent_format, "taesd_decoder_name", None) is None

    def of(self, part: int) -> Callable[[int, torch.Tensor, torch.Tensor, int], Any]:
        """A part's callback."""

        def step(i: int, x0: torch.Tensor, x: torch.Tensor, steps: int) -> Any:
            # Core hands out the last x0 as the denoised latent.
            if i + 1 == steps:
                self._done.append(x0.to(mm.intermediate_device()) if self._resting else x0)
                if part + 1 == self._parts:
                    x0 = torch.cat(self._done)
            return self._callback(part * steps + i, x0, x, self._parts * steps)

        return step
