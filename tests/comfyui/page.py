"""ComfyUI's page in a headless Chromium."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


class Page:
    """The page, and what it said."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda e: self.errors.append(str(e)))

    def load(self, workflow: dict[str, Any]) -> None:
        """Open a workflow, as dropping its file on the page does."""
        self.page.evaluate("async w => { await window.app.loadGraphData(w, true, true); }", workflow)
        self.page.wait_for_function("n => window.app.graph.nodes.length === n", arg=len(workflow["nodes"]))

    def prompt(self) -> dict[str, Any]:
        """The page's own conversion."""
        return dict(self.page.evaluate("async () => (await window.app.graphToPrompt()).output"))

    def unregistered(self) -> list[str]:
        """Types of nodes in the graph that the page does not know."""
        return list(
            self.page.evaluate(
                "() => window.app.graph.nodes.map(n => n.type)"
                ".filter(t => !(t in window.LiteGraph.registered_node_types))"
            )
        )

    def text(self) -> str:
        """All text in the page's elements; the canvas has none."""
        return str(self.page.inner_text("body"))

    def set_widget(self, node: int, name: str, value: Any) -> None:
        """Change a value on a node."""
        self.page.evaluate(
            "([id, name, value]) => {"
            " const w = window.app.graph.getNodeById(id).widgets.find(w => w.name === name);"
            " w.value = value; w.callback?.(value); }",
            [node, name, value],
        )

    def run(self, seconds: float) -> tuple[str, dict[str, Any]]:
        """What the Run button does; ``execution_success`` or another event, and its details."""
        self.page.evaluate(
            """async () => {
                const api = window.app.api;
                window.pgpEnd = null;
                for (const name of ['execution_success', 'execution_error', 'execution_interrupted'])
                    api.addEventListener(name, e => { window.pgpEnd = [name, e.detail]; });
                await window.app.queuePrompt(0);
                const errors = window.app.lastNodeErrors;
                if (errors && Object.keys(errors).length) window.pgpEnd = ['refused', errors];
            }"""
        )
        self.page.wait_for_function("() => window.pgpEnd", timeout=seconds * 1000)
        event, detail = self.page.evaluate("() => window.pgpEnd")
        return event, detail

    def wait_for_picture(self, node: int) -> list[int]:
        """Wait until a node shows its result; the picture's width and height."""
        shown = "id => { const i = window.app.graph.getNodeById(id).imgs?.[0]; return i?.naturalWidth > 0 && i; }"
        # Nodes 2.0 show results as elements, the canvas as images that it draws.
        element = "[...document.querySelectorAll(`[data-node-id='${id}'] img`)].find(i => i.naturalWidth > 0)"
        found = f"id => {{ const i = ({shown})(id) || {element}; return i && [i.naturalWidth, i.naturalHeight]; }}"
        handle = self.page.wait_for_function(found, arg=node)
        return list(handle.json_value())

    def screenshot(self, file: Path) -> None:
        """The whole graph in view."""
        self.page.evaluate("() => window.app.canvas.fitViewToSelectionAnimated?.()")
        self.page.wait_for_timeout(1500)
        self.page.screenshot(path=str(file))


@contextmanager
def opened(base: str, profile: Path, executable: Path | None, seconds: float) -> Iterator[Page]:
    """ComfyUI's page, ready; it reaches nothing but ComfyUI."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(profile),
            executable_path=str(executable) if executable else None,
            headless=True,
            args=ARGUMENTS,
            viewport={"width": 1600, "height": 900},
        )
        try:
            context.set_default_timeout(seconds * 1000)
            context.route(
                "**/*",
                lambda route: (
                    route.continue_() if route.request.url.startswith((base, "data:", "blob:")) else route.abort()
                ),
            )
            tab = context.pages[0] if context.pages else context.new_page()
            page = Page(tab)
            tab.goto(base + "/", wait_until="domcontentloaded")
            tab.wait_for_function(
                "() => window.app?.graph && Object.keys(window.LiteGraph?.registered_node_types ?? {}).length > 50"
            )
            # The start-up code opens the default workflow by itself, in the place of one loaded too early.
            tab.wait_for_function(
                "() => window.app.extensionManager && !window.app.extensionManager.spinner"
                " && window.app.extensionManager.workflow.activeWorkflow"
            )
            yield page
        finally:
            context.close()
