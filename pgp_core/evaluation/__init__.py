"""Evaluation: metrics, benchmarks on folders of pictures, the quality table and the ablation table.

Needs the ``eval`` extra (scikit-image, SciPy, torchmetrics); nothing outside this package does. Nothing is imported here:
processes that measure pictures start without PyTorch.
"""
