"""Patches that remember, one for each way in which packs put them on a MODEL."""

from __future__ import annotations

import types
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP

#: What the patch with a global variable remembers.
_last: Any = None


def closure(model: Any) -> Any:
    """As DeepCache: a function wrapper with variables, which computes at every second step."""
    patched, last, step, before = model.clone(), None, -1, 0.0

    def wrapper(apply: Any, args: dict[str, Any]) -> Any:
        nonlocal last, step, before
        t = float(args["timestep"][0])
        step = 0 if t > before else step + 1
        before = t
        if step % 2 == 0:
            last = apply(args["input"], args["timestep"], **args["c"])
        return last

    patched.set_model_unet_function_wrapper(wrapper)
    return patched


class _Distance:
    """As TeaCache: the residual is used again until the input has changed by more than a threshold."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"input": None, "residual": None}
        self.distance = 0.0
        self.skipped = False

    def __call__(self, executor: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        before = self.state["input"]
        if before is not None:
            self.distance += float((x - before).abs().mean() / before.abs().mean())
        self.state["input"] = x.clone()
        if self.state["residual"] is None or self.distance > 0.25:
            self.distance, self.skipped = 0.0, False
            out = executor(x, *args, **kwargs)
            self.state["residual"] = out - x
            result: torch.Tensor = out
            return result
        self.skipped = True
        return x + self.state["residual"]


def instance(model: Any) -> Any:
    patched = model.clone()
    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "distance", _Distance())
    return patched


def module_variable(model: Any) -> Any:
    """As WaveSpeed: a function with a global variable."""
    patched = model.clone()
    # As if the module had been loaded once for each MODEL.
    own = types.FunctionType(_averaging.__code__, {**globals(), "_last": None})
    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "global", own)
    return patched


def _averaging(executor: Any, *args: Any, **kwargs: Any) -> Any:
    global _last
    out = executor(*args, **kwargs)
    _last = out if _last is None else (out + _last) / 2
    return _last


def block(model: Any) -> Any:
    """A block's forward that mixes in what it made before."""
    patched, name = model.clone(), "diffusion_model.middle_block.1.forward"
    forward, memory = patched.get_model_object(name), []

    def remembering(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        out: torch.Tensor = forward(x, *args, **kwargs)
        memory.append(out)
        return torch.stack(memory[-2:]).mean(0)

    patched.add_object_patch(name, remembering)
    return patched


def attributes(model: Any) -> Any:
    """As TeaCache's older ones: the state lies on the network itself."""
    patched = model.clone()
    for name in ("pgp_last", "pgp_calls"):
        vars(patched.model.diffusion_model).pop(name, None)

    def wrapper(executor: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        unet = executor.class_obj
        unet.pgp_calls = getattr(unet, "pgp_calls", 0) + 1
        if unet.pgp_calls % 2:
            unet.pgp_last = executor(x, *args, **kwargs)
        return unet.pgp_last

    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "attributes", wrapper)
    return patched


class _Features:
    """Features of every block, smoothed over the steps; in a step it counts the blocks it has seen."""

    def __init__(self) -> None:
        self.last: dict[int, torch.Tensor] = {}
        self.seen = 0

    def __call__(self, h: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        if options["block"] == ("input", 0):
            self.seen = 0
        h = h if self.seen not in self.last else 0.7 * h + 0.3 * self.last[self.seen]
        self.last[self.seen] = h
        self.seen += 1
        return h


def features(model: Any) -> Any:
    patched = model.clone()
    patched.set_model_input_block_patch(_Features())
    return patched


def counter(model: Any) -> Any:
    """Stores nothing of the latent, but does something else at every third call."""
    patched, calls = model.clone(), 0

    def wrapper(executor: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return executor(x, *args, **kwargs) * (0.8 if calls % 3 == 0 else 1.0)

    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "counter", wrapper)
    return patched


class _Identity:
    """As IP-Adapter: attends to tokens of its own, which it moves and keeps once."""

    def __init__(self) -> None:
        self.tokens = torch.rand(1, 4, 64, generator=torch.Generator().manual_seed(3))
        self.moved: torch.Tensor | None = None

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, _: Any) -> Any:
        if self.moved is None or self.moved.device != q.device:
            self.moved = self.tokens.to(q)
        extra = self.moved.mean() * k.mean(1, keepdim=True)
        return q, torch.cat([k, k + extra], 1), torch.cat([v, v - extra], 1)


def tokens(model: Any) -> Any:
    patched = model.clone()
    patched.set_model_attn2_patch(_Identity())
    return patched


class _Attention:
    """As IP-Adapter's later ones: for a block's attention, with a picture's tokens for each conditioning."""

    def __init__(self, **kwargs: Any) -> None:
        self.kwargs = [kwargs]

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        heads = options["n_heads"]
        out: torch.Tensor = optimized_attention(q, k, v, heads)
        for kwargs in self.kwargs:
            halves = len(options["cond_or_uncond"])
            each = torch.cat([(kwargs["cond"], kwargs["uncond"])[i] for i in options["cond_or_uncond"]])
            each = each[..., : q.shape[-1]].to(q).repeat_interleave(len(q) // halves, 0)
            more = kwargs["weight"] * optimized_attention(q, each, each, heads)
            if kwargs["mask"] is not None:
                more = more * _over_positions(kwargs["mask"], q, options)
            out = out + more
        return out


def _over_positions(mask: torch.Tensor, q: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """A mask scaled to what attention sees, ``(B, H * W, 1)``, as such packs do."""
    *_, height, width = options["original_shape"]
    times = 1
    while -(-height // times) * -(-width // times) > q.shape[1]:
        times *= 2
    size = (-(-height // times), -(-width // times))
    return torch.nn.functional.interpolate(mask[:, None], size=size, mode="bilinear").flatten(2).movedim(1, -1)


def attention(model: Any, mask: torch.Tensor | None = None) -> Any:
    """On every block.

    Args:
        mask: ``(1, H, W)`` over the whole picture.
    """
    patched, generator = model.clone(), torch.Generator().manual_seed(3)
    cond, uncond = (torch.randn(1, 4, 512, generator=generator) for _ in range(2))
    for place in _cross_attentions(model):
        patch = _Attention(cond=cond, uncond=uncond, weight=0.5, mask=mask)
        patched.set_model_attn2_replace(patch, *place)
    return patched


def _cross_attentions(model: Any) -> list[tuple[str, int, int]]:
    names = (n.split(".") for n, _ in model.model.diffusion_model.named_modules() if n.endswith(".attn2"))
    return [(n[0].removesuffix("s").removesuffix("_block"), int(n[1]), int(n[-2])) for n in names]


def couple(model: Any, masks: list[torch.Tensor]) -> Any:
    """As attention couple: keys and values of every conditioning, each where its mask is."""
    patched = model.clone()

    def patch(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: dict[str, Any]) -> Any:
        return q * sum(_over_positions(m, q, options) for m in masks), k, v

    patched.set_model_attn2_patch(patch)
    return patched


#: By what they are called in the tests.
ALL = {
    f.__name__: f for f in (closure, instance, module_variable, block, attributes, features, counter, tokens, attention)
}
