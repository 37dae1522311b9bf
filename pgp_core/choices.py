"""What options and widgets let one choose from. The command line reads this before PyTorch is there."""

from __future__ import annotations

#: Whose colours a result has, see :mod:`pgp_core.images.color_fix`.
COLOR_FIXES = ("wavelet", "adain", "none")
#: Pixels of the widest Gaussian that the dial takes, see :mod:`pgp_core.images.fidelity`: the largest side of a result.
MAX_FIDELITY = 16384
#: Along which axes a picture repeats, see :class:`pgp_core.images.wrap.Wrap`.
WRAPS = ("none", "x", "y", "both")
#: How tiles are blended. ``cosine``: a raised cosine over the middle half of the overlap; the outer quarter, where a
#: tile knows least of what lies beside it, counts nothing, so a model that looks no further than a quarter of the
#: overlap gives exactly what it gives without tiles. ``gaussian``: FaithDiff's and MultiDiffusion's, over the whole
#: tile.
BLENDS = ("cosine", "gaussian")
#: ``tile``: PEAM exchanges the phase of each tile's features by itself. ``canvas``: of all features at once, for which
#: the UNet's first blocks are run once more over all tiles.
PHASES = ("tile", "canvas")
#: Precisions, to PyTorch's names.
DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
