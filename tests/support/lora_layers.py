"""LoRA layers of every kind with drawn numbers, and what each makes of a weight, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

Weights = dict[str, torch.Tensor]

LINEAR = "mid_block.attentions.0.transformer_blocks.1.attn1.to_q"
#: Its rows and columns differ, as do the convolutions'.
WIDE = "up_blocks.1.resnets.0.time_emb_proj"
CONV = "down_blocks.1.resnets.0.conv1"
POINT = "up_blocks.0.resnets.0.conv_shortcut"
NORM = "mid_block.attentions.0.norm"
LAYER_NORM = "mid_block.attentions.0.transformer_blocks.1.norm2"
RANK = 3


MODULES = {
    LINEAR: torch.nn.Linear(16, 16, bias=False),
    WIDE: torch.nn.Linear(24, 16),
    CONV: torch.nn.Conv2d(8, 16, 3, 2, 1),
    POINT: torch.nn.Conv2d(8, 16, 1),
    NORM: torch.nn.GroupNorm(4, 16),
    LAYER_NORM: torch.nn.LayerNorm(16),
}


def sketch() -> Any:
    """The modules above under their names and nothing else; a whole UNet would take long for each test."""
    root = torch.nn.Module()
    for i, (name, module) in enumerate(MODULES.items()):
        *path, last = name.split(".")
        parent = root
        for part in path:
            parent.add_module(part, parent._modules.get(part) or torch.nn.Module())
            parent = getattr(parent, part)
        module = copy.deepcopy(module).requires_grad_(False)
        for j, p in enumerate(module.parameters()):
            p.copy_(drawn(100 + 10 * i + j, *p.shape))
        parent.add_module(last, module)
    return root


def inputs(module: str) -> torch.Tensor:
    shapes = {LINEAR: (2, 5, 16), WIDE: (2, 24), CONV: (2, 8, 7, 6), POINT: (2, 8, 7, 6), NORM: (2, 16, 5)}
    return drawn(7, *shapes.get(module, (2, 5, 16)))


def stem(module: str) -> str:
    return "lora_unet_" + module.replace(".", "_")


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# -- layers and what they are, by module ---------------------------------------------------------------------

#: ``(parts of the file, the new weight in float64)`` of a module whose weight is given.
Case = Callable[[torch.Tensor], tuple[Weights, torch.Tensor]]


def plain(w: torch.Tensor) -> tuple[Weights, torch.Tensor]:
    down, up = drawn(1, RANK, *w.shape[1:]), drawn(2, len(w), RANK, *(1 for _ in w.shape[2:]))
    delta = torch.einsum("or,r...->o...", up.flatten(1).double(), down.double())
    return {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(2)}, w.double() + 2 / RANK * delta


def locon_with_mid(w: torch.Tensor) -> tuple[Weights, torch.Tensor]:
    out, into, *kernel = w.shape
    down, mid, up = drawn(1, RANK, into, 1, 1), drawn(2, RANK, RANK, *kernel), drawn(3, out, RANK, 1, 1)
    delta = torch.einsum("or,rskl,si->oikl", up[..., 0, 0].double(), mid.double(), down[..., 0, 0].double())
    parts = {"lora_down.weight": down, "lora_mid.weight": mid, "lora_up.weight": up, "alpha": torch.tensor([1.5])}
    return parts, w.double() + 1.5 / RANK * delta


def loha(w: torch.Tensor) -> tuple[Weights, torch.Tensor]:
    columns = w[0].numel()
    a1, b1, a2, b2 = drawn(1, len(w), RANK), drawn(2, RANK, columns), drawn(3, len(w), RANK), drawn(4, RANK, columns)
    delta = (a1.double() @ b1.double()) * (a2.double() @ b2.double())
    parts = {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2, "alpha": torch.tensor(6.0)}
    return parts, w.double() + 6 / RANK * delta.view(w.shape)


def tucker_loha(w: torch.Tensor) -> tuple[Weights, torch.Tensor]:
    out, into, *kernel = w.shape
    halves = []
    parts: Weights = {"alpha": torch.tensor(6.0)}
    for i in (1, 2):
        a, b, core = drawn(i, RANK, out), drawn(10 + i, RANK, into), drawn(20 + i, RANK, RANK, *kernel)
        parts |= {f"hada_w{i}_a": a, f"hada_w{i}_b": b, f"hada_t{i}": core}
        halves.append(torch.einsum("ro,rskl,si->oikl", a.double(), core.double(), b.double()))
    return parts, w.double() + 6 / RANK * halves[0] * halves[1]


def lokr_whole(w: torch.Tensor) -> tuple[Weights, torch.Tensor]:
    out, into = w.shape[0] // 4, w.shape[1] // 2
    one, two = drawn(1, 4, 2), drawn(2, out, into, *w.shape[2:])
    rows = [torch.cat([one[i, j].double() * two.double() for j in range(2)], 1) for i in range(4)]
    # With both factors whole alpha has nothing to be divided by.
    return {"lokr_w1": one, "lokr_w2": two, "alpha": torch.tensor(9.0)}, w.double() + torch.cat(rows, 0)


def lokr_products(w: torch.Tensor) -> tuple[Weights, torch.Tensor]:
    out, into = w.shape[0] // 4, w[0].numel() // 2
    a1, b1, a2, b2 = drawn(1, 4, RANK), drawn(2, RANK, 2), drawn(3, out, RANK), drawn(4, RANK, into)
    delta = torch.kron(a1.double() @ b1.double(), a2.double() @ b2.double())
    parts = {"lokr_w1_a": a1, "lokr_w1_b": b1, "lokr_w2_a": a2, "lokr_w2_b": b2, "alpha": torch.tensor(1.0)}
    return parts, w.double() + 1 / RANK * delta.view(w.shape)


def lokr_tucker(w: torch.Tensor) -> tuple[Weights, torch.Tensor]:
    out, into, *kernel = w.shape
    one, a, b, core = drawn(1, 2, 4), drawn(2, RANK, out // 2), drawn(3, RANK, into // 4), drawn(4, RANK, RANK, *kernel)
    two = torch.einsum("ro,rskl,si->oikl", a.double(), core.double(), b.double())
    delta = torch.einsum("pq,oikl->poqikl", one.double(), two).reshape(w.shape)
    parts = {"lokr_w1": one, "lokr_w2_a": a, "lokr_w2_b": b, "lokr_t2": core, "alpha": torch.tensor(1.0)}
    return parts, w.double() + 1 / RANK * delta


def dora_of(case: Case, rows: bool) -> Case:
    """A DoRA of another kind: each row, or column, of the changed weight gets a length of its own."""

    def made(w: torch.Tensor) -> tuple[Weights, torch.Tensor]:
        parts, whole = case(w)
        axis = 0 if rows else 1
        others = [d for d in range(w.dim()) if d != axis]
        length = whole.square().sum(others, keepdim=True).sqrt()
        lengths = drawn(9, *length.shape).abs() + 1
        return {**parts, "dora_scale": lengths}, whole / length * lengths.double()

    return made


def difference(w: torch.Tensor) -> tuple[Weights, torch.Tensor]:
    return {"diff": (d := drawn(1, *w.shape))}, w.double() + d.double()


def norm(w: torch.Tensor) -> tuple[Weights, torch.Tensor]:
    return {"w_norm": (d := drawn(1, *w.shape)), "b_norm": drawn(2, len(w))}, w.double() + d.double()


def value(w: torch.Tensor) -> tuple[Weights, torch.Tensor]:
    return {"set_weight": (d := drawn(1, *w.shape))}, d.double()


CASES: dict[str, tuple[str, Case]] = {
    "plain, linear": (WIDE, plain),
    "plain, 3x3": (CONV, plain),
    "plain, 1x1": (POINT, plain),
    "LoCon with a middle": (CONV, locon_with_mid),
    "LoHa, linear": (WIDE, loha),
    "LoHa, 3x3": (CONV, loha),
    "LoHa, Tucker": (CONV, tucker_loha),
    "LoKr, whole": (WIDE, lokr_whole),
    "LoKr, whole, 3x3": (CONV, lokr_whole),
    "LoKr, products": (WIDE, lokr_products),
    "LoKr, products, 3x3": (CONV, lokr_products),
    "LoKr, Tucker": (CONV, lokr_tucker),
    "DoRA by rows": (WIDE, dora_of(plain, True)),
    "DoRA by columns": (WIDE, dora_of(plain, False)),
    "DoRA by rows, 3x3": (CONV, dora_of(plain, True)),
    "DoRA by columns, 3x3": (CONV, dora_of(plain, False)),
    "DoRA of LoHa": (WIDE, dora_of(loha, False)),
    "DoRA of LoKr": (WIDE, dora_of(lokr_products, True)),
    "difference": (WIDE, difference),
    "difference, 3x3": (CONV, difference),
    "group norm": (NORM, norm),
    "layer norm": (LAYER_NORM, norm),
    "value": (LINEAR, value),
}


def file_of(module: str, parts: Weights) -> Weights:
    return {f"{stem(module)}.{k}": v for k, v in parts.items()}
