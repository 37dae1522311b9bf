"""A benchmark as one page to look at: a single HTML file that opens from disk and asks no network for anything."""

from .writing import write_page

__all__ = ["write_page"]
