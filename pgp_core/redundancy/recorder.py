"""Recording while a UNet samples: hooks on either backbone, running statistics, the last timestep's features."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import Cancelled
from ..unet.blocks import numbers_in, stacks_in
from ..unet.topology import KeyMap
from .maps import MOST, FeatureMap, shrunk
from .measures import channels_last, phi_cos, psi_kl
from .report import ALL, MEASURES, MODULES, Series, Stats
from .statistics import Running

#: A measured series: timestep (or :data:`ALL`) to measure to statistics.
_Running = dict[str, dict[str, Running]]
Block = tuple[str, int]


def _measured(unet: torch.nn.Module, names: KeyMap, ldm: bool) -> dict[str, torch.nn.Module]:
    """The last of each of :data:`MODULES` that a UNet has: smaller ones have fewer in a level, or no middle."""
    modules, found = dict(unet.named_modules()), {}
    for short, name in MODULES.items():
        stem, _, last = name.rpartition(".")
        most = int(last)
        if not stem.startswith("mid_block"):
            most = min(most, names.resnets - (not stem.startswith("up_blocks")))
        for number in range(most, -1, -1):
            spelled = f"{stem}.{number}"
            module = modules.get(names.to_ldm(spelled) if ldm else spelled)
            if module is not None:
                found[short] = module
                break
    return found


class Recorder:
    """Measures a UNet's calls; see :meth:`call`.

    Args:
        unet: diffusers' ``UNet2DConditionModel`` or ComfyUI's ``UNetModel``, full or pruned.
        ldm: whether its modules have LDM names (ComfyUI's do).
        skipped: blocks that do not run though they are there.
    """

    def __init__(self, unet: torch.nn.Module, ldm: bool = False, skipped: frozenset[Block] = frozenset()):
        names = KeyMap.of(name for name, _ in unet.named_modules())
        self.features = _measured(unet, names, ldm)
        self.blocks: dict[Block, torch.nn.Module] = {
            (stack, number): block
            for stack, blocks in stacks_in(unet).items()
            for number, block in zip(numbers_in(blocks), blocks, strict=True)
            if (stack, number) not in skipped
        }
        self.modules: dict[str, _Running] = {short: {} for short in self.features}
        self.inside: dict[Block, _Running] = {block: {} for block in self.blocks}
        #: How many UNet calls, and how many numbers that were not finite and were left out.
        self.calls = 0
        self.dropped = 0
        #: Of each module, the first conditioned picture's features at each timestep, see :func:`feature_maps`.
        self._maps: dict[str, dict[str, torch.Tensor]] = {short: {} for short in self.features}
        self._previous: dict[tuple[str, Hashable], tuple[float, torch.Tensor]] = {}
        self._pending: list[tuple[_Running, str, str, torch.Tensor]] = []
        #: Numbers that are not to count yet, see :meth:`whole`.
        self._held: list[tuple[_Running, str, str, list[float]]] | None = None

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Either all calls in this block count or, where it raises, none. Of a run that is interrupted or cancelled,
        the calls made so far count."""
        before = self.calls, self.dropped, {short: dict(maps) for short, maps in self._maps.items()}
        held: list[tuple[_Running, str, str, list[float]]] = []
        self._held = held
        try:
            yield
        except Cancelled:
            raise
        except Exception:
            held.clear()
            self.calls, self.dropped, self._maps = before
            raise
        finally:
            self._held = None
            for series, step, measure, finite in held:
                _add(series, step, measure, finite)

    def forget(self) -> None:
        """Forget the previous timestep's features: a new run begins, or one has ended."""
        self._previous.clear()
        self._pending.clear()

    @contextmanager
    def call(self, timestep: float, streams: Sequence[Hashable] = (0,)) -> Iterator[None]:
        """Measure one UNet call, made inside the ``with`` block.

        Features are compared with those of the same stream at the previous timestep. The batch is taken apart into
        as many equal parts as there are streams (the conditionings of CFG, which may come together or apart).

        Nothing that the UNet computes is changed. Where the block raises, the call counts for nothing.
        """
        step = str(round(timestep))
        handles = [
            module.register_forward_hook(self._feature_hook(short, timestep, step, streams))
            for short, module in self.features.items()
        ]
        handles += [
            module.register_forward_hook(self._block_hook(block, step), with_kwargs=True)
            for block, module in self.blocks.items()
        ]
        try:
            yield
        except BaseException:
            self.forget()
            raise
        finally:
            for handle in handles:
                handle.remove()
        self._take()

    def _feature_hook(self, short: str, timestep: float, step: str, streams: Sequence[Hashable]) -> Any:
        @torch.compiler.disable
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            h = output if isinstance(output, torch.Tensor) else output[0]
            self._keep_map(short, step, h.detach(), streams)
            now = channels_last(h.detach())
            if now.data_ptr() == h.data_ptr():
                # The UNet may write into its own features afterwards.
                now = now.clone()
            for stream, part in zip(streams, now.chunk(len(streams)), strict=True):
                before = self._previous.get((short, stream))
                if before is not None and before[0] != timestep and before[1].shape == part.shape:
                    self._measure(self.modules[short], step, before[1], part)
                self._previous[short, stream] = (timestep, part)

        return hook

    def _keep_map(self, short: str, step: str, h: torch.Tensor, streams: Sequence[Hashable]) -> None:
        maps = self._maps[short]
        if step not in maps and len(maps) < MOST and 0 in streams:
            maps[step] = shrunk(h.chunk(len(streams))[list(streams).index(0)][0])

    def feature_maps(self) -> dict[str, dict[str, FeatureMap]]:
        """Each module's features at the timesteps that were sampled first, where all are finite."""
        return {
            short: {step: FeatureMap.of(m) for step, m in maps.items() if bool(torch.isfinite(m).all())}
            for short, maps in self._maps.items()
        }

    def _block_hook(self, block: Block, step: str) -> Any:
        @torch.compiler.disable
        def hook(_module: Any, inputs: Any, kwargs: Any, output: Any) -> None:
            x = inputs[0] if inputs else kwargs.get("hidden_states", kwargs.get("x"))
            y = output if isinstance(output, torch.Tensor) else output[0]
            self._measure(self.inside[block], step, channels_last(x.detach()), channels_last(y.detach()))

        return hook

    def _measure(self, series: _Running, step: str, a: torch.Tensor, b: torch.Tensor) -> None:
        # Stays on the device: a transfer each would stop a GPU a hundred times a call.
        self._pending.append((series, step, "phi_cos", phi_cos(a, b)))
        self._pending.append((series, step, "psi_kl", psi_kl(a, b)))

    def _take(self) -> None:
        """Bring a call's numbers to the CPU, all at once."""
        self.calls += 1
        if not self._pending:
            return
        device = self._pending[0][3].device
        numbers = iter(torch.cat([v.to(device) for *_, v in self._pending]).tolist())
        for series, step, measure, values in self._pending:
            found = [next(numbers) for _ in range(len(values))]
            finite = [x for x in found if math.isfinite(x)]
            self.dropped += len(found) - len(finite)
            if self._held is None:
                _add(series, step, measure, finite)
            else:
                self._held.append((series, step, measure, finite))
        self._pending.clear()


def _add(series: _Running, step: str, measure: str, values: list[float]) -> None:
    for key in (step, ALL):
        series.setdefault(key, {m: Running() for m in MEASURES})[measure].add(values)


def series_of(running: Mapping[str, Mapping[str, Running]]) -> Series:
    """Statistics so far, timesteps in the order of sampling (falling), then all; what has no numbers is left out."""
    order = sorted((k for k in running if k != ALL), key=int, reverse=True)
    keys = [k for k in (*order, *([ALL] if ALL in running else [])) if all(running[k][m].count for m in MEASURES)]
    return {k: {m: Stats(**running[k][m].to_json()) for m in MEASURES} for k in keys}
