"""Samples to train on: crops of pictures with their LQ canvas, made on the fly, the same in every run."""

from .cutting import ENLARGEMENTS, FAITHDIFF_ENLARGEMENTS, Degrades
from .folder import FolderSamples, FolderSummary
from .loading import Samples, Summary, loader
from .sheet import contact_sheet
from .speed import Speed, measure
from .synthetic import SyntheticSamples
from .taught import TaughtSamples

__all__ = [
    "ENLARGEMENTS",
    "FAITHDIFF_ENLARGEMENTS",
    "Degrades",
    "FolderSamples",
    "FolderSummary",
    "Samples",
    "Speed",
    "Summary",
    "SyntheticSamples",
    "TaughtSamples",
    "contact_sheet",
    "loader",
    "measure",
]
