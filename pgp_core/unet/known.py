"""The UNets that this package knows, as data: SDXL, those distilled from it with fewer blocks, and nano.

LCM, Turbo, Lightning, DMD2 and other fine-tunes of SDXL have SDXL's own row. A new UNet of SDXL's kind is one row more.
The depths are those of the published configurations and of ComfyUI's own table (``comfy/model_detection.py``).
"""

from __future__ import annotations

from dataclasses import replace

from .shape import UNetShape
from .topology import Topology

_Stacks = tuple[tuple[int, ...], ...]


def _depths(down: _Stacks, middle: int | None, up: _Stacks) -> dict[str, int]:
    """Blocks by stack, from those of each level in running order; the finest level has no stacks."""
    return {
        **{f"down_blocks.{i}.attentions.{j}": d for i, level in enumerate(down, 1) for j, d in enumerate(level)},
        **({} if middle is None else {"mid_block.attentions.0": middle}),
        **{f"up_blocks.{i}.attentions.{j}": d for i, level in enumerate(up) for j, d in enumerate(level)},
    }


SDXL = Topology("sdxl", _depths(((2, 2), (10, 10)), 10, ((10, 10, 10), (2, 2, 2))))
SSD_1B = Topology("ssd-1b", _depths(((2, 2), (4, 4)), None, ((4, 4, 10), (2, 1, 1))), middle=1)
VEGA = Topology("segmind-vega", _depths(((1, 1), (2, 2)), None, ((2, 2, 2), (1, 1, 1))), middle=1)
KOALA_1B = Topology("koala-1b", _depths(((2,), (6,)), 6, ((6, 6), (2, 2))), resnets=1)
KOALA_700M = Topology("koala-700m", _depths(((2,), (5,)), None, ((5, 5), (2, 2))), resnets=1, middle=0)
NANO = Topology("pgp-nano", _depths(((2, 2), (4, 4)), 4, ((4, 4, 4), (2, 2, 2))))

#: With SDXL's latents, VAE and text encoders.
SDXL_KIND = (SDXL, SSD_1B, VEGA, KOALA_1B, KOALA_700M)

SDXL_SHAPE = UNetShape(SDXL, 4, (320, 640, 1280), 64, 2048, 1280)
NANO_SHAPE = UNetShape(NANO, 48, (64, 64, 64), 32, 64, 64)

#: By the topology's name.
SHAPES = {s.topology.name: s for s in (*(replace(SDXL_SHAPE, topology=t) for t in SDXL_KIND), NANO_SHAPE)}
TOPOLOGIES = {name: shape.topology for name, shape in SHAPES.items()}
