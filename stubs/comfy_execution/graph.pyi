from typing import Any

class DynamicPrompt:
    def get_node(self, node_id: str) -> dict[str, Any]: ...
