# In ComfyUI this module is `_io_public`, which `comfy_api.latest` names `io`.
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum
from typing import Any, TypeAlias, TypedDict

import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSAMPLER
from comfy.sd import VAE
from typing_extensions import Unpack

class _Shown(TypedDict, total=False):
    display_name: str
    optional: bool
    tooltip: str
    lazy: bool
    advanced: bool

class Input:
    def __init__(self, id: str, **shown: Unpack[_Shown]) -> None: ...

class Output:
    def __init__(self, id: str | None = ..., display_name: str | None = ..., tooltip: str | None = ...) -> None: ...

_Input: TypeAlias = Input
_Output: TypeAlias = Output

class ComfyTypeIO:
    class Input(_Input): ...
    class Output(_Output): ...

def Custom(io_type: str) -> type[ComfyTypeIO]: ...

class Boolean(ComfyTypeIO):
    class Input(_Input):
        def __init__(self, id: str, *, default: bool = ..., **shown: Unpack[_Shown]) -> None: ...

class Int(ComfyTypeIO):
    class Input(_Input):
        def __init__(
            self,
            id: str,
            *,
            default: int = ...,
            min: int = ...,
            max: int = ...,
            step: int = ...,
            control_after_generate: bool = ...,
            **shown: Unpack[_Shown],
        ) -> None: ...

class Float(ComfyTypeIO):
    class Input(_Input):
        def __init__(
            self,
            id: str,
            *,
            default: float = ...,
            min: float = ...,
            max: float = ...,
            step: float = ...,
            **shown: Unpack[_Shown],
        ) -> None: ...

class String(ComfyTypeIO):
    class Input(_Input):
        def __init__(self, id: str, *, default: str = ..., multiline: bool = ..., **shown: Unpack[_Shown]) -> None: ...

class Combo(ComfyTypeIO):
    class Input(_Input):
        def __init__(self, id: str, *, options: Sequence[str], default: str = ..., **shown: Unpack[_Shown]) -> None: ...

class Image(ComfyTypeIO):
    Type: TypeAlias = torch.Tensor

class Mask(ComfyTypeIO):
    Type: TypeAlias = torch.Tensor

class Latent(ComfyTypeIO):
    Type: TypeAlias = dict[str, Any]

class Conditioning(ComfyTypeIO):
    Type: TypeAlias = list[Any]

class Sampler(ComfyTypeIO):
    Type: TypeAlias = KSAMPLER

class Sigmas(ComfyTypeIO):
    Type: TypeAlias = torch.Tensor

class Vae(ComfyTypeIO):
    Type: TypeAlias = VAE

class Model(ComfyTypeIO):
    Type: TypeAlias = ModelPatcher

class ModelPatch(ComfyTypeIO):
    Type: TypeAlias = Any

class Hidden(str, Enum):
    unique_id = ...
    prompt = ...
    extra_pnginfo = ...
    dynprompt = ...

class HiddenHolder:
    unique_id: str
    prompt: Any
    extra_pnginfo: Any
    dynprompt: Any

class Schema:
    def __init__(
        self,
        node_id: str,
        display_name: str | None = ...,
        category: str = ...,
        inputs: list[Input] = ...,
        outputs: list[Output] = ...,
        hidden: list[Hidden] = ...,
        description: str = ...,
        search_aliases: list[str] = ...,
        *,
        is_input_list: bool = ...,
        is_output_node: bool = ...,
        is_experimental: bool = ...,
        not_idempotent: bool = ...,
        enable_expand: bool = ...,
    ) -> None: ...

class _UIOutput(ABC):
    def as_dict(self) -> dict[str, Any]: ...

class NodeOutput:
    args: tuple[Any, ...]
    def __init__(
        self, *args: Any, ui: _UIOutput | dict[str, Any] | None = ..., expand: dict[str, Any] | None = ...
    ) -> None: ...

class ComfyNode(ABC):
    hidden: HiddenHolder
    @classmethod
    @abstractmethod
    def define_schema(cls) -> Schema: ...
    # Core gives each of these the node's inputs by their names.
    @classmethod
    @abstractmethod
    def execute(cls, *args: Any, **kwargs: Any) -> NodeOutput: ...
    @classmethod
    def validate_inputs(cls, *args: Any, **kwargs: Any) -> bool | str: ...
    @classmethod
    def fingerprint_inputs(cls, *args: Any, **kwargs: Any) -> Any: ...
