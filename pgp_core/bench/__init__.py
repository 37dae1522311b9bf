"""Time and memory of one UNet step: full, FaithDiff's, and pruned. Random weights: nothing is downloaded."""

from .run import BenchFigures, BenchOptions, RowFigures, bench_unet

__all__ = ["BenchFigures", "BenchOptions", "RowFigures", "bench_unet"]
