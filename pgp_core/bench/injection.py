"""What hooking a PEAM into the UNet costs beside the PEAM's own arithmetic."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

from ..guidance.module import GuidanceSpec, fit
from ..guidance.on_diffusers import guided
from .rows import StepGuidance

#: Pairs of calls, and the seconds after which no further pair begins.
PAIRS, SECONDS, AT_LEAST = 200, 5.0, 10


def injection_seconds(
    guide: StepGuidance, batch: int, side: int, device: torch.device, timed: Callable[[Callable[[], object]], float]
) -> tuple[float, float]:
    """Seconds that hook and fusion add to PEAM.forward, and those of PEAM.forward, per UNet call.

    Both run on the same tensors, in turn, by themselves: in a whole step the difference would drown in noise.

    Args:
        guide: its first site is measured; it must be a PEAM.
        batch: of the UNet call.
        side: of the UNet's features at the site.
        device: where the guidance is.
        timed: seconds of a call.

    Returns:
        medians of the difference (which may be a little below 0) and of PEAM alone.
    """
    site = guide.guidance.spec.sites[0]
    f = guide.features[0]
    h = torch.randn(batch, site.channels, side, side, device=device, dtype=f.dtype)
    fitted = fit(f, side, side).expand(batch, -1, -1, -1)
    peam, place = guide.guidance.peam["0"], _Path(guide.guidance.spec)
    alone, more = [], []
    with torch.inference_mode(), guided(place, guide.guidance, guide.features[:1]):
        module = place.get_submodule(site.module)
        bare = torch.nn.Identity()
        for i in range(PAIRS):
            plain = timed(lambda: peam(bare(h), fitted))
            hooked = timed(lambda: module(h))
            if i:  # the first pair warms up
                alone.append(plain)
                more.append(hooked - plain)
            if i >= AT_LEAST and 2 * sum(alone) > SECONDS:
                break
    return statistics.median(more), statistics.median(alone)


class _Path(torch.nn.Module):
    """Nothing but the modules at which a guidance's sites stand, each handing on what it gets."""

    def __init__(self, spec: GuidanceSpec):
        super().__init__()
        for site in spec.sites:
            *parents, last = site.module.split(".")
            here: torch.nn.Module = self
            for name in parents:
                if name not in here._modules:
                    here.add_module(name, torch.nn.Module())
                here = here.get_submodule(name)
            here.add_module(last, torch.nn.Identity())
