import torch

from .io import ComfyNode, UIOutput

class PreviewImage(UIOutput):
    def __init__(self, image: torch.Tensor, animated: bool = ..., cls: type[ComfyNode] | None = ...) -> None: ...

class PreviewText(UIOutput):
    def __init__(self, value: str) -> None: ...
