"""From a redundancy report to a prune plan: which blocks to cut (the paper's Section 3.1)."""

from .coarse import coarse
from .dial import dial
from .edit import edited, parse_keep
from .fine import by_budget, by_count, by_thresholds
from .importance import Score, importance, removal_order
from .saving import check_name, plan_path, save_plan

__all__ = [
    "Score",
    "by_budget",
    "by_count",
    "by_thresholds",
    "check_name",
    "coarse",
    "dial",
    "edited",
    "importance",
    "parse_keep",
    "plan_path",
    "removal_order",
    "save_plan",
]
