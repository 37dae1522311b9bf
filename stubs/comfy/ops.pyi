import torch

class CastWeightBiasOp:
    comfy_cast_weights: bool

class disable_weight_init:
    class Linear(torch.nn.Linear, CastWeightBiasOp):
        def forward_comfy_cast_weights(self, input: torch.Tensor) -> torch.Tensor: ...

class manual_cast(disable_weight_init): ...

class fp8_ops(manual_cast):
    class Linear(disable_weight_init.Linear): ...
