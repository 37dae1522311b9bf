"""Evaluation: metrics, photographs that nothing trains on, the quality table and the ablation table.

Needs the ``eval`` extra (scikit-image, SciPy); nothing outside this package does.
"""

from .mechanism import mechanism_table
from .metrics import METRICS, Metric, score
from .photographs import photographs
from .quality import quality_table
from .report import run
from .sheet import sheet

__all__ = ["METRICS", "Metric", "mechanism_table", "photographs", "quality_table", "run", "score", "sheet"]
