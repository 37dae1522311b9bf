"""What guides the narrow UNet of ``conftest``: one PEAM, or an additive site and a PEAM on another level."""

from __future__ import annotations

from pgp_core.guidance.module import GuidanceSpec, Site

DOWN = "down_blocks.0.downsamplers.0"

#: Fits the narrow UNet: a latent of one position per 4 pixels, halved at the site.
SPEC = GuidanceSpec(base="pgp-nano", sites=(Site(DOWN, 32, 0, 8),), channels=(32, 32, 32, 32), unshuffle=8)
TWO_SITES = GuidanceSpec(
    base="pgp-nano",
    sites=(Site("conv_in", 32, 0, 4, "add"), Site(DOWN, 32, 2, 8)),
    channels=(32, 32, 32, 32),
    unshuffle=4,
    input_range=(-2.0, 2.0),
)
