"""PEAM against its equations, written out with numpy's FFT and plain convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pgp_core.guidance.peam import PEAM


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def peam(channels: int = 6, residual: bool = True, slope: float = 0.2) -> PEAM:
    """With weights that keep the variance of the input through all twelve convolutions."""
    module = PEAM(channels, residual, slope)
    with torch.no_grad():
        for i, p in enumerate(module.parameters()):
            fan_in = p[0].numel() if p.dim() > 1 else 25
            p.copy_(draw(i, *p.shape) * (1.4 if p.dim() > 1 else 1) * fan_in**-0.5)
    return module


def by_hand(module: PEAM, h: torch.Tensor, f: torch.Tensor, exchange: bool = True) -> torch.Tensor:
    """Equations 3 to 5 in float64."""
    h, f = h.double(), f.double()
    H, F = np.fft.fft2(h.numpy()), np.fft.fft2(f.numpy())
    p = torch.from_numpy(np.fft.ifft2(np.abs(H) * np.exp(1j * np.angle(F))).real) if exchange else h
    x = torch.cat([p, h], dim=1)
    weights = [v.double() for v in module.state_dict().values()]
    layers = list(zip(weights[::2], weights[1::2], strict=True))
    for i, (weight, bias) in enumerate(layers):
        x = torch.nn.functional.conv2d(x, weight, bias, padding=1)
        if i < len(layers) - 1:
            x = torch.where(x > 0, x, module.slope * x)
    m, a = x[:, : h.shape[1]], x[:, h.shape[1] :]
    return m * p + a + (h if module.residual else 0)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 5)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("slope", [0.01, 0.2])
@torch.no_grad()
def test_peam_is_its_equations(slope: float, residual: bool, exchange: bool, size: tuple[int, int]) -> None:
    module = peam(residual=residual, slope=slope)
    assert module.slope == slope
    h, f = draw(20, 2, 6, *size), draw(21, 2, 6, *size)
    expected = by_hand(module, h, f, exchange)
    torch.testing.assert_close(module(h, f, exchange).double(), expected, atol=1e-4, rtol=1e-3)


def test_the_convolutions_of_the_paper() -> None:
    shapes = [tuple(c.weight.shape) for c in PEAM(320, device="meta").convs]
    assert shapes == [(64, 640, 3, 3), *[(64, 64, 3, 3)] * 10, (640, 64, 3, 3)]


def test_untrained_it_changes_nothing_and_can_learn() -> None:
    module = PEAM(6)
    module.reset_identity()
    h, f = draw(22, 2, 6, 8, 8), draw(23, 2, 6, 8, 8)
    out = module(h, f)
    assert torch.equal(out, h)
    (out * draw(24, 2, 6, 8, 8)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    assert module.convs[-1].weight.grad.abs().max() > 0


@torch.no_grad()
def test_untrained_the_last_convolution_sees_the_picture() -> None:
    """A signal that fades on its way leaves biases only to learn from."""
    module = PEAM(32)
    torch.manual_seed(0)
    module.reset_identity()
    seen: list[torch.Tensor] = []
    module.convs[-1].register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    h = draw(25, 1, 32, 16, 16)
    module(h, draw(26, 1, 32, 16, 16))
    module(h, draw(27, 1, 32, 16, 16))
    assert 0.1 < float(seen[0].std()) < 10
    assert float((seen[0] - seen[1]).std()) > 0.1 * float(seen[0].std())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision(dtype: torch.dtype) -> None:
    module = peam().to(dtype)
    h, f = draw(28, 1, 6, 9, 8).to(dtype), draw(29, 1, 6, 9, 8).to(dtype)
    out = module(h, f)
    assert out.dtype == dtype
    expected = by_hand(module, h, f)
    assert (out.double() - expected).abs().max() < 0.1 * expected.abs().max()


def test_layers_come_from_the_given_operations() -> None:
    made: list[tuple[Any, Any]] = []

    class Operations:
        """As ComfyUI passes its casting layers."""

        class Conv2d(torch.nn.Conv2d):
            def __init__(self, *args: Any, device: Any = None, dtype: Any = None, **rest: Any):
                made.append((device, dtype))
                super().__init__(*args, device=device, dtype=dtype, **rest)

    module = PEAM(6, operations=Operations, device="meta", dtype=torch.float16)
    assert made == [("meta", torch.float16)] * 12
    assert all(type(c) is Operations.Conv2d for c in module.convs)
    assert all(p.is_meta and p.dtype == torch.float16 for p in module.parameters())
    owned = {f"convs.{i}.{x}" for i in range(12) for x in ("weight", "bias")}
    assert set(module.state_dict()) == owned, "no parameter stands outside a layer"
