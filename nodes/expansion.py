"""What a node that expands hands on to the nodes inside."""

from __future__ import annotations

import importlib
from typing import Any

from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import is_link

#: Core's. By an import statement tools would take it for the folder of this file.
_core_nodes = importlib.import_module("nodes")


class Sources:
    """A node's inputs, as links to where they come from, wherever that is the same as their values.

    ComfyUI's cache knows a node by what it depends on: by a link, but not by a picture or a model. With links a
    change of the colour fix alone samples nothing again.

    A list is another matter: ComfyUI then calls the node once for each of its items, and a link would bring all of
    them each time.
    """

    def __init__(self, prompt: DynamicPrompt, node: str):
        self.prompt = prompt
        self.inputs = prompt.get_node(node)["inputs"]

    def of(self, name: str, value: Any) -> Any:
        """The link of an input, or its value where the link could bring a list."""
        link = self.inputs.get(name)
        return link if is_link(link) and not self._lists(link[0]) else value

    def _lists(self, node: str) -> bool:
        """Whether a node, or one that it depends on, gives lists; what depends on those gives one item for each."""
        seen: set[str] = set()
        ahead = [node]
        while ahead:
            entry = self.prompt.get_node(ahead.pop())
            if any(getattr(_core_nodes.NODE_CLASS_MAPPINGS[entry["class_type"]], "OUTPUT_IS_LIST", None) or ()):
                return True
            new = {v[0] for v in entry["inputs"].values() if is_link(v)} - seen
            seen |= new
            ahead += new
        return False
