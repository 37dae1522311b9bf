"""Phase exchange and phase-only reconstruction against the angle/exp formula in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgp_core.guidance.phase import exchange_phase, phase_only

SIZES = [(1, 1), (1, 7), (8, 1), (2, 2), (3, 5), (8, 8), (16, 9), (17, 31), (64, 64), (45, 80)]

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
seeds = st.integers(0, 2**31)


def exchange_oracle(h: np.ndarray, f: np.ndarray, null: float = 1e-6) -> np.ndarray:
    """``ifft2(|H| exp(i angle(F)))`` over the full spectrum in float64; h's own phase where F has no energy."""
    H, F = np.fft.fft2(h.astype(np.float64)), np.fft.fft2(f.astype(np.float64))
    silent = np.abs(F) <= null * np.abs(F).max(axis=(-2, -1), keepdims=True)
    angle = np.where(silent, np.angle(H), np.angle(F))
    mixed = np.fft.ifft2(np.abs(H) * np.exp(1j * angle))
    assert np.abs(mixed.imag).max() <= 1e-9 * (1 + np.abs(mixed.real).max())
    return mixed.real


def phase_only_oracle(x: np.ndarray, null: float = 1e-6) -> np.ndarray:
    """``ifft2(exp(i angle(X)))``, orthonormal, with nothing where X has no energy."""
    X = np.fft.fft2(x.astype(np.float64), norm="ortho")
    loud = np.abs(X) > null * np.abs(X).max(axis=(-2, -1), keepdims=True)
    return np.fft.ifft2(np.exp(1j * np.angle(X)) * loud, norm="ortho").real


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_near(
    actual: torch.Tensor, expected: np.ndarray, scale: float | None = None, tolerance: float = 2e-5
) -> None:
    """Equal within ``tolerance`` of the largest expected value (or of ``scale``)."""
    error = np.abs(actual.detach().double().cpu().numpy() - expected).max()
    assert error <= tolerance * (np.abs(expected).max() if scale is None else scale)


# -- the formula -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_exchange_is_the_formula(size: tuple[int, int], device: torch.device) -> None:
    h, f = draw(1, 2, 3, *size), draw(2, 2, 3, *size)
    result = exchange_phase(h.to(device), f.to(device))
    assert result.device.type == device.type
    assert_near(result, exchange_oracle(h.numpy(), f.numpy()))


@pytest.mark.parametrize("lead", [(), (4,), (2, 3), (2, 1, 3)])
def test_any_leading_axes_and_each_plane_alone(lead: tuple[int, ...]) -> None:
    h, f = draw(3, *lead, 6, 7), draw(4, *lead, 6, 7)
    result = exchange_phase(h, f)
    assert result.shape == h.shape
    planes = zip(result.reshape(-1, 6, 7), h.reshape(-1, 6, 7), f.reshape(-1, 6, 7), strict=True)
    for one, h_plane, f_plane in planes:
        torch.testing.assert_close(one, exchange_phase(h_plane, f_plane), atol=1e-6, rtol=1e-5)


@given(sizes, seeds)
def test_exchange_is_the_formula_at_any_size(size: tuple[int, int], seed: int) -> None:
    h, f = draw(seed, *size), draw(seed + 1, *size)
    assert_near(exchange_phase(h, f), exchange_oracle(h.numpy(), f.numpy()), scale=float(h.abs().max()), tolerance=1e-4)


@given(sizes, seeds)
def test_the_magnitude_is_h_s(size: tuple[int, int], seed: int) -> None:
    h, f = draw(seed, *size), draw(seed + 1, *size)
    own, got = np.fft.fft2(h.double().numpy()), np.fft.fft2(exchange_phase(h, f).double().numpy())
    np.testing.assert_allclose(np.abs(got), np.abs(own), atol=1e-5 * np.abs(own).max())


@given(sizes, seeds, st.floats(1e-3, 1e3))
def test_only_the_phase_of_f_counts(size: tuple[int, int], seed: int, factor: float) -> None:
    h, f = draw(seed, *size), draw(seed + 1, *size)
    plain = exchange_phase(h, f)
    torch.testing.assert_close(exchange_phase(h, f * factor), plain, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(exchange_phase(h, -f), -plain, atol=2e-4, rtol=1e-3)


@given(sizes, seeds)
def test_exchange_with_itself_changes_nothing(size: tuple[int, int], seed: int) -> None:
    h = draw(seed, *size)
    torch.testing.assert_close(exchange_phase(h, h), h, atol=1e-5, rtol=1e-5)


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 4, 4\).*\(1, 4, 5\)"):
        exchange_phase(torch.zeros(1, 4, 4), torch.zeros(1, 4, 5))


# -- where f has no phase to give --------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_black_f_leaves_h(size: tuple[int, int]) -> None:
    h = draw(5, 2, 3, *size)
    torch.testing.assert_close(exchange_phase(h, torch.zeros_like(h)), h, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [*SIZES, (37, 127), (211, 3)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("value", [0.1, 1.0, -3.3, 6e4])
def test_constant_f_gives_its_sign_to_the_mean_alone(size: tuple[int, int], value: float) -> None:
    h = draw(6, 1, 2, *size)
    mean = h.mean((-2, -1), keepdim=True)
    expected = h - mean + mean.abs() * (1 if value > 0 else -1)
    torch.testing.assert_close(exchange_phase(h, torch.full_like(h, value)), expected, atol=2e-5, rtol=1e-5)


def test_a_wave_gives_its_phase_to_its_own_frequency_alone() -> None:
    size, k, shift = 24, (3, 5), 0.7
    y, x = np.mgrid[:size, :size]
    f = np.cos(2 * np.pi * (k[0] * y + k[1] * x) / size + shift).astype(np.float32)
    h = draw(7, size, size)
    H = np.fft.fft2(h.double().numpy())
    H[k] = np.abs(H[k]) * np.exp(1j * shift)
    H[-k[0], -k[1]] = np.conj(H[k])
    assert_near(exchange_phase(h, torch.from_numpy(f)), np.fft.ifft2(H).real)


def test_the_threshold_is_a_millionth_of_the_largest_magnitude_of_that_channel_and_sample() -> None:
    size = 32
    y, x = np.mgrid[:size, :size]
    strong, weak = np.cos(2 * np.pi * 3 * x / size), np.cos(2 * np.pi * 5 * y / size + 1.0)
    # A hundred-thousandth of the strong wave still gives its phase, a hundred-millionth does not; alone in its
    # channel, the same weak wave is the largest and does.
    f = np.stack([strong + 1e-5 * weak, strong + 1e-8 * weak, 1e-8 * weak]).astype(np.float32)
    h = draw(8, 1, 1, size, size).expand(1, 3, -1, -1)
    result = exchange_phase(h, torch.from_numpy(f)[None]).double().numpy()
    H, got = np.fft.fft2(h[0, 0].double().numpy()), np.fft.fft2(result)[0]
    taken, own = np.abs(H[5, 0]) * np.exp(1j), H[5, 0]
    assert abs(taken - own) > 0.1 * abs(own), "the drawn h must tell the two apart"
    assert abs(got[0, 5, 0] - taken) < 0.02 * abs(own)
    assert abs(got[1, 5, 0] - own) < 1e-4 * abs(own)
    assert abs(got[2, 5, 0] - taken) < 1e-4 * abs(own)


@pytest.mark.parametrize("at", [(0, 0), (2, 5), (10, 8)])
def test_a_single_bright_pixel_gathers_h_around_it(at: tuple[int, int]) -> None:
    h, f = draw(9, 11, 9), torch.zeros(11, 9)
    f[at] = 3.0
    gathered = np.fft.ifft2(np.abs(np.fft.fft2(h.double().numpy()))).real
    assert_near(exchange_phase(h, f), np.roll(gathered, at, axis=(0, 1)))


# -- number formats ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(8, 8), (7, 13)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_the_dtype_is_h_s(dtype: torch.dtype, size: tuple[int, int], device: torch.device) -> None:
    if device.type == "mps" and dtype == torch.float64:
        pytest.skip("MPS has no float64")
    h, f = draw(10, 2, 3, *size).to(device, dtype), draw(11, 2, 3, *size).to(device)
    result = exchange_phase(h, f)
    assert result.dtype == dtype
    assert result.device == h.device
    expected = exchange_oracle(h.double().cpu().numpy(), f.double().cpu().numpy())
    assert_near(result, expected, tolerance=2e-5 + torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["noise", "constant", "pixel", "black"])
def test_half_precision_stays_finite_and_saturates(dtype: torch.dtype, kind: str, device: torch.device) -> None:
    noise = draw(12, 1, 2, 31, 24)
    f = {
        "noise": noise.clamp(-1, 1) * 6e4,
        "constant": torch.full_like(noise, 6e4),
        "pixel": torch.nn.functional.pad(torch.full((1, 2, 1, 1), 6e4), (5, 18, 3, 27)),
        "black": torch.zeros_like(noise),
    }[kind].to(device, dtype)
    h = (draw(13, 1, 2, 31, 24).clamp(-1, 1) * 6e4).to(device, dtype)
    result = exchange_phase(h, f)
    assert result.dtype == dtype
    assert result.isfinite().all()
    limit = torch.finfo(dtype).max
    expected = exchange_oracle(h.double().cpu().numpy(), f.double().cpu().numpy()).clip(-limit, limit)
    assert_near(result, expected, tolerance=2 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("h_scale", "f_scale"),
    [(1, 1e-45), (1, 1e-40), (1, 1e-30), (1e-40, 1), (1e30, 1), (3e38, 1), (1, 3e38), (3e38, 3e38)],
)
def test_every_finite_float32_gives_a_finite_result(h_scale: float, f_scale: float) -> None:
    h, f = draw(14, 6, 9).clamp(-1, 1) * h_scale, draw(15, 6, 9).clamp(-1, 1) * f_scale
    assert exchange_phase(h, f).isfinite().all()
    assert phase_only(f).isfinite().all()


# -- gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (5, 9)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("h_kind", ["noise", "black", "constant"])
@pytest.mark.parametrize("f_kind", ["noise", "black", "constant"])
def test_gradients_are_finite(size: tuple[int, int], h_kind: str, f_kind: str) -> None:
    kinds = {
        "noise": draw(16, 1, 2, *size),
        "black": torch.zeros(1, 2, *size),
        "constant": torch.full((1, 2, *size), 0.3),
    }
    h, f = kinds[h_kind].clone().requires_grad_(), kinds[f_kind].clone().requires_grad_()
    (exchange_phase(h, f) * draw(17, 1, 2, *size)).sum().backward()
    assert h.grad is not None and h.grad.isfinite().all()
    assert f.grad is not None and f.grad.isfinite().all()


def test_the_gradient_is_the_formula_s() -> None:
    h, f = draw(18, 7, 6).requires_grad_(), draw(19, 7, 6).requires_grad_()
    weight, toward_h, toward_f = draw(20, 7, 6), draw(21, 7, 6), draw(22, 7, 6)
    (exchange_phase(h, f) * weight).sum().backward()
    assert h.grad is not None and f.grad is not None
    slope = float((h.grad * toward_h + f.grad * toward_f).sum())

    def along(step: float) -> float:
        moved = (a.detach().double().numpy() + step * b.double().numpy() for a, b in ((h, toward_h), (f, toward_f)))
        return float((exchange_oracle(*moved) * weight.double().numpy()).sum())

    assert slope == pytest.approx((along(1e-6) - along(-1e-6)) / 2e-6, rel=1e-3, abs=1e-3)


# -- phase only --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_phase_only_is_the_formula(size: tuple[int, int], device: torch.device) -> None:
    x = draw(23, 2, 3, *size)
    result = phase_only(x.to(device))
    assert result.shape == x.shape
    assert result.device.type == device.type
    assert_near(result, phase_only_oracle(x.numpy()), tolerance=1e-4)


@given(sizes, seeds)
def test_phase_only_has_mean_square_one(size: tuple[int, int], seed: int) -> None:
    assert float(phase_only(draw(seed, *size)).square().mean()) == pytest.approx(1, abs=1e-4)


def test_phase_only_of_black_is_black_and_of_a_constant_is_its_sign() -> None:
    assert phase_only(torch.zeros(3, 5, 8)).abs().max() == 0
    # One of 40 entries of the spectrum has a phase: every pixel is 1 / sqrt(40).
    torch.testing.assert_close(phase_only(torch.full((5, 8), -2.0)), torch.full((5, 8), -(40**-0.5)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_phase_only_in_half_precision(dtype: torch.dtype) -> None:
    x = (draw(24, 1, 3, 15, 12).clamp(-1, 1) * 6e4).to(dtype)
    result = phase_only(x)
    assert result.dtype == dtype
    assert_near(result, phase_only_oracle(x.double().numpy()), tolerance=2 * torch.finfo(dtype).eps)
