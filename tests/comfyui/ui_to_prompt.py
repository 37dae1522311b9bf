"""From a workflow as the page saves it (format 0.4) to the prompt that ComfyUI's API takes.

The page does this in the browser; tests without one need it too. ``test_browser.py`` compares both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

#: Input types that are a widget on the node, besides lists of choices.
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR", "IMAGECOMPARE", "COMFY_DYNAMICCOMBO_V3")

#: Nodes that live in the page only.
NOTES = ("Note", "MarkdownNote")

MUTED, BYPASSED = 2, 4


class WorkflowError(ValueError):
    """A workflow does not fit the nodes that ComfyUI has."""


def to_prompt(workflow: dict[str, Any], object_info: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Convert.

    Args:
        workflow: parsed JSON with ``nodes`` and ``links``; no subgraphs, no primitive nodes.
        object_info: ComfyUI's ``/object_info``.

    Returns:
        ``{node id: {"class_type": ..., "inputs": {...}}}``; links are ``[node id, slot]``.

    Raises:
        WorkflowError: for a node type that is not there, or other widgets than the schema has.
    """
    return _Graph(workflow, object_info).prompt()


def widget_names(schema: dict[str, Any], values: Sequence[Any] = ()) -> list[str | None]:
    """Names of a node's widgets in the order of ``widgets_values``; None for those that are no input.

    Args:
        values: what the widgets have, as far as known: core's dynamic combos bring widgets that depend on their
            choice, named ``combo.widget``, right behind them.
    """
    names: list[str | None] = []
    uploads = 0
    for name, (kind, *rest) in _inputs(schema):
        options = rest[0] if rest else {}
        if options.get("forceInput") or not (isinstance(kind, list) or kind in WIDGETS):
            continue
        _add(names, name, kind, options, values)
        if options.get("control_after_generate") or (kind == "INT" and name in ("seed", "noise_seed")):
            names.append(None)
        uploads += any(options.get(what) for what in ("image_upload", "video_upload"))
    # The page adds the upload buttons behind the other widgets.
    return [*names, *[None] * uploads]


def _add(names: list[str | None], name: str, kind: Any, options: dict[str, Any], values: Sequence[Any]) -> None:
    """A widget, and those that its choice brings."""
    at = len(names)
    names.append(name)
    if kind != "COMFY_DYNAMICCOMBO_V3":
        return
    keys = [o["key"] for o in options["options"]]
    chosen = options["options"][keys.index(values[at]) if at < len(values) and values[at] in keys else 0]
    for inputs in chosen["inputs"].values():
        for inner, (inner_kind, *rest) in inputs.items():
            _add(names, f"{name}.{inner}", inner_kind, rest[0] if rest else {}, values)


def _inputs(schema: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    for kind in ("required", "optional"):
        for name in schema["input_order"].get(kind, []):
            yield name, schema["input"][kind][name]


class _Graph:
    def __init__(self, workflow: dict[str, Any], object_info: dict[str, Any]):
        self.nodes = {n["id"]: n for n in workflow["nodes"]}
        self.links = {link[0]: link for link in workflow["links"]}
        self.object_info = object_info
        unknown = {n["type"] for n in self.nodes.values()} - object_info.keys() - {*NOTES, "Reroute"}
        if unknown:
            raise WorkflowError(f"no such nodes: {', '.join(sorted(unknown))}")

    def prompt(self) -> dict[str, dict[str, Any]]:
        return {
            str(node["id"]): {"class_type": node["type"], "inputs": self._values(node)}
            for node in self.nodes.values()
            if node["type"] in self.object_info and node["mode"] not in (MUTED, BYPASSED)
        }

    def _values(self, node: dict[str, Any]) -> dict[str, Any]:
        schema = self.object_info[node["type"]]
        values = list(node.get("widgets_values") or [])
        names = widget_names(schema, values)
        if values and len(values) != len(names):
            raise WorkflowError(f"node {node['id']} ({node['type']}) has {len(values)} widget values for {names}")
        if not values:
            values = [self._default(schema, name) for name in names]
        # A bare list would be taken for a link.
        wrapped = [{"__value__": v} if isinstance(v, list) else v for v in values]
        inputs = {name: value for name, value in zip(names, wrapped, strict=True) if name is not None}
        for entry in node.get("inputs", []):
            source = self._source(entry["link"])
            if source:
                inputs[entry["name"]] = source
        return inputs

    @staticmethod
    def _default(schema: dict[str, Any], name: str | None) -> Any:
        """What the page puts into a widget that the workflow has no value for."""
        if name is None:
            return None
        kind, options = next(spec for n, spec in _inputs(schema) if n == name)
        if isinstance(kind, list):
            return options.get("default", kind[0] if kind else None)
        return options.get("default", {"STRING": "", "IMAGECOMPARE": ["", ""]}.get(kind))

    def _source(self, link: int | None, followed: int = 0) -> list[Any] | None:
        """Where an input's value comes from, through reroutes and bypassed nodes; None where from nowhere."""
        if link is None:
            return None
        if followed > len(self.links):
            raise WorkflowError(f"link {link} is in a circle")
        _, origin, slot, _, _, kind = self.links[link]
        node = self.nodes[origin]
        if node["mode"] == MUTED:
            return None
        if node["mode"] == BYPASSED:
            through = self._bypass(node, slot, kind)
            return self._source(through, followed + 1)
        if node["type"] == "Reroute":
            return self._source(node["inputs"][0]["link"], followed + 1)
        return [str(origin), slot]

    @staticmethod
    def _bypass(node: dict[str, Any], slot: int, kind: str) -> int | None:
        """The link of the input that stands in for a bypassed node's output: of its number, else its type."""
        inputs = node.get("inputs", [])
        same_number = inputs[slot : slot + 1]
        for entry in [*same_number, *inputs]:
            if entry["type"] == kind:
                link: int | None = entry["link"]
                return link
        return None
