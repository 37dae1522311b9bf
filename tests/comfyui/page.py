"""ComfyUI's page in a headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from browser import ARGUMENTS, NoBrowser, chromium

__all__ = ["NoBrowser", "Page", "chromium", "opened"]


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

    def use_nodes_2(self, yes: bool) -> None:
        """Draw nodes as elements (Nodes 2.0), or on the canvas."""
        self.page.evaluate(
            "async yes => { await window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', yes); }", yes
        )

    def wait_for_pictures(self, node: int, sizes: list[tuple[int, int]]) -> None:
        """Wait until a node shows pictures of these widths and heights.

        For sizes, not for pictures: after a run the page shows those of the run before for a moment.
        """
        # Nodes 2.0 show results as elements; otherwise the canvas draws them.
        self.page.wait_for_function(
            """([id, sizes]) => {
                const drawn = window.app.graph.getNodeById(id).imgs ?? [];
                const elements = document.querySelectorAll(`[data-node-id='${id}'] img`);
                const shown = images => JSON.stringify(images.map(i => [i.naturalWidth, i.naturalHeight]));
                return [[...elements], drawn].some(images => shown(images) === JSON.stringify(sizes));
            }""",
            arg=[node, sizes],
        )

    def wait_for_text(self, text: str) -> None:
        """Wait until the page says something."""
        self.page.wait_for_function("text => document.body.innerText.includes(text)", arg=text)

    def pause(self, seconds: float = 0.7) -> None:
        """Where something must not appear, there is nothing to wait for."""
        self.page.wait_for_timeout(seconds * 1000)

    def fit_view(self) -> None:
        """The whole graph in view; Nodes 2.0 make elements of what is in view only."""
        self.page.evaluate("async () => { await window.app.extensionManager.command.execute('Comfy.Canvas.FitView'); }")
        self.pause()

    def screenshot(self, file: Path) -> None:
        """A picture of the page."""
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
            viewport={"width": 1920, "height": 1080},
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
