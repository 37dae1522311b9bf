"""Time and memory of one UNet step: full, FaithDiff's, and pruned. Random weights: nothing is downloaded."""

from .run import BenchOptions, Measured, Report, bench_unet

__all__ = ["BenchOptions", "Measured", "Report", "bench_unet"]
