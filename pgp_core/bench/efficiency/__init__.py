"""What whole restorers cost: parameters, multiply-accumulates, seconds and memory of one picture."""

from .figures import Efficiency, RowFigures, SizeFigures
from .measuring import measure
from .task import Task

__all__ = ["Efficiency", "RowFigures", "SizeFigures", "Task", "measure"]
