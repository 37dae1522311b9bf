"""Evaluation: metrics, benchmarks on folders of pictures, and the tables of nano on photographs that nothing trains on.

Needs the ``eval`` extra (scikit-image, SciPy, torchmetrics); nothing outside this package does. Nothing is imported
here: processes that measure would wait for PyTorch, which they do not need.
"""
