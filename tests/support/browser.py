"""A headless Chromium for tests; without one they skip, and say so."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

HOW_TO = "pip install playwright, and either its own browser (playwright install chromium) or one from the system"

# fmt: off
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]
# fmt: on


class NoBrowser(Exception):
    """There is none; the message says how to get one."""


def chromium() -> Path | None:
    """The browser to start: ``$PGP_CHROMIUM``, the system's, or None for Playwright's own.

    Raises:
        NoBrowser: if Playwright or every browser is missing.
    """
    if importlib.util.find_spec("playwright") is None:
        raise NoBrowser(f"no Playwright: {HOW_TO}")
    names = [os.environ.get("PGP_CHROMIUM"), "chromium", "chromium-browser", "google-chrome"]
    for name in names:
        path = shutil.which(name) if name else None
        if path:
            return Path(path)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        if Path(playwright.chromium.executable_path).is_file():
            return None
    raise NoBrowser(f"no Chromium: {HOW_TO}")
