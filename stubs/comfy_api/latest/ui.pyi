import torch

from .io import ComfyNode, _UIOutput

class PreviewImage(_UIOutput):
    def __init__(self, image: torch.Tensor, animated: bool = ..., cls: type[ComfyNode] | None = ...) -> None: ...

class PreviewText(_UIOutput):
    def __init__(self, value: str) -> None: ...
