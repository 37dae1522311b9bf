from typing import Any

class CallbacksMP:
    ON_PRE_RUN: str

class WrappersMP:
    OUTER_SAMPLE: str
    SAMPLER_SAMPLE: str
    PREDICT_NOISE: str
    CALC_COND_BATCH: str
    APPLY_MODEL: str
    DIFFUSION_MODEL: str

class WrapperExecutor:
    # Whose method is wrapped: a CFGGuider, a BaseModel, a network.
    class_obj: Any
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
