"""Guidance: its composition, and what it does inside a diffusers UNet."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import rounding
import torch
from narrow_guidance import DOWN, SPEC, TWO_SITES

from pgp_core.errors import GuidanceError
from pgp_core.guidance.module import Guidance, GuidanceSpec, Site, fit
from pgp_core.guidance.on_diffusers import guided


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def trained(spec: GuidanceSpec, seed: int = 0) -> Guidance:
    """A guidance whose every weight does something."""
    guidance = Guidance.fresh(spec)
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in guidance.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (p[0].numel() ** -0.5 if p.dim() > 1 else 0.1))
    return guidance.eval()


# -- fusion ------------------------------------------------------------------------------------------------


def test_only_the_levels_that_sites_use_are_built() -> None:
    assert len(Guidance(SPEC).lq_adapter.body) == 1
    assert len(Guidance(TWO_SITES).lq_adapter.body) == 3
    assert list(Guidance(TWO_SITES).peam) == ["1"], "keyed by the site's number; an additive site has none"


def test_fuse_is_linear_in_the_strength() -> None:
    guidance = trained(SPEC)
    h, f = draw(1, 2, 32, 9, 7), draw(2, 2, 32, 9, 7)
    with torch.no_grad():
        full = guidance.fuse(0, h, f)
        assert not torch.allclose(full, h)
        assert torch.equal(full, guidance.peam["0"](h, f))
        assert guidance.fuse(0, h, f, 0.0) is h
        for strength in (0.25, 0.5, 0.9):
            expected = (1 - strength) * h.double() + strength * full.double()
            torch.testing.assert_close(guidance.fuse(0, h, f, strength).double(), expected, atol=1e-5, rtol=1e-5)


def test_an_additive_site_adds() -> None:
    h, f = draw(3, 1, 32, 8, 8), draw(4, 1, 32, 8, 8)
    torch.testing.assert_close(Guidance(TWO_SITES).fuse(0, h, f, 0.3), h + 0.3 * f)


def test_a_residual_peam_adds_h_to_the_literal_equation() -> None:
    literal = trained(GuidanceSpec(**{**SPEC.__dict__, "residual": False}))
    residual = trained(SPEC)
    residual.load_state_dict(literal.state_dict())
    h, f = draw(5, 1, 32, 8, 8), draw(6, 1, 32, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(residual.fuse(0, h, f), h + literal.fuse(0, h, f))


def test_without_exchange_the_picture_s_phase_does_not_matter() -> None:
    guidance = trained(SPEC)
    h = draw(7, 1, 32, 8, 8)
    with torch.no_grad():
        one, other = (guidance.fuse(0, h, draw(seed, 1, 32, 8, 8), exchange=False) for seed in (8, 9))
        assert torch.equal(one, other)
        assert not torch.allclose(one, guidance.fuse(0, h, draw(8, 1, 32, 8, 8)))


def test_the_halves_of_peam_for_the_ablation() -> None:
    peam = trained(SPEC)
    h, f = draw(5, 1, 32, 9, 8), draw(6, 1, 32, 9, 8)
    phase = Guidance(replace(SPEC, sites=(replace(SPEC.sites[0], fusion="phase"),)))
    assert not list(phase.peam)
    spectra = [np.fft.rfft2(x.double().numpy()) for x in (h, f)]
    expected = np.fft.irfft2(np.abs(spectra[0]) * np.exp(1j * np.angle(spectra[1])), s=(9, 8))
    np.testing.assert_allclose(phase.fuse(0, h, f).numpy(), expected, atol=1e-5)

    convs = Guidance(replace(SPEC, sites=(replace(SPEC.sites[0], fusion="convs"),)))
    convs.load_state_dict(peam.state_dict())
    with torch.no_grad():
        # Where f already is what the exchange would give, PEAM and its convolutions alone are the same.
        torch.testing.assert_close(convs.fuse(0, h, phase.fuse(0, h, f)), peam.fuse(0, h, f))
        assert not torch.allclose(convs.fuse(0, h, f), peam.fuse(0, h, f))


def test_channels_that_do_not_fit_name_both_and_the_site() -> None:
    with pytest.raises(GuidanceError, match=r"32 channels does not fit.*320 channels at down_blocks\.0\.downsamplers"):
        Guidance(SPEC).fuse(0, torch.zeros(1, 320, 4, 4), torch.zeros(1, 32, 4, 4))


def test_fit_crops_and_repeats_the_edge() -> None:
    f = torch.arange(12.0).view(1, 1, 3, 4)
    assert torch.equal(fit(f, 2, 3), f[..., :2, :3])
    padded = fit(f, 5, 4)
    assert torch.equal(padded[..., :3, :], f)
    assert torch.equal(padded[..., 3:, :], f[..., 2:, :].expand(-1, -1, 2, -1))
    mixed = fit(f, 2, 6)
    assert torch.equal(mixed[..., 4:], f[..., :2, 3:].expand(-1, -1, -1, 2))


def test_features_have_the_site_s_scale_and_range() -> None:
    guidance = trained(TWO_SITES)
    lq = draw(10, 2, 3, 50, 37)
    with torch.no_grad():
        conv_in, down = guidance.features(lq)
        assert conv_in.shape == (2, 32, 13, 10)
        assert down.shape == (2, 32, 7, 5)
        levels = guidance.lq_adapter(lq * 4 - 2)
    torch.testing.assert_close(conv_in, levels[0])
    torch.testing.assert_close(down, levels[2])


def test_features_of_a_batch_are_those_of_its_pictures() -> None:
    guidance = trained(TWO_SITES)
    lq = draw(11, 3, 3, 32, 48)
    with torch.no_grad():
        together = guidance.features(lq)
        for i in range(3):
            for whole, alone in zip(together, guidance.features(lq[i : i + 1]), strict=True):
                rounding.assert_same(whole[i : i + 1], alone, rounding.NETWORK)


def test_features_of_some_sites_are_those_of_all() -> None:
    guidance = trained(TWO_SITES)
    lq = draw(12, 1, 3, 32, 48)
    with torch.no_grad():
        conv_in, down = guidance.features(lq)
        (alone,) = guidance.features(lq, sites=[1])
        turned = guidance.features(lq, sites=[1, 0])
    assert torch.equal(alone, down)
    assert torch.equal(turned[0], down) and torch.equal(turned[1], conv_in)


# -- inside a diffusers UNet -------------------------------------------------------------------------------

MakeUNet = Callable[..., torch.nn.Module]
CallUNet = Callable[..., torch.Tensor]


@torch.no_grad()
def features(guidance: Guidance, seed: int = 20, batch: int = 1, size: tuple[int, int] = (64, 64)) -> Any:
    return guidance.features(draw(seed, batch, 3, *size))


def test_a_fresh_guidance_changes_nothing_at_all(make_unet: MakeUNet, call_unet: CallUNet) -> None:
    unet, guidance = make_unet(), Guidance.fresh(SPEC)
    plain = call_unet(unet)
    with guided(unet, guidance, features(guidance)):
        assert torch.equal(call_unet(unet), plain)


def test_strength_zero_is_no_guidance_and_nothing_stays_behind(make_unet: MakeUNet, call_unet: CallUNet) -> None:
    unet, guidance = make_unet(), trained(SPEC)
    plain = call_unet(unet)
    with guided(unet, guidance, features(guidance)) as run:
        full = call_unet(unet)
        run.strength = 0.0
        assert torch.equal(call_unet(unet), plain)
        run.strength = 1.0
        assert torch.equal(call_unet(unet), full)
    assert not torch.allclose(full, plain)
    assert torch.equal(call_unet(unet), plain)


def test_hooks_go_when_the_run_fails(make_unet: MakeUNet, call_unet: CallUNet) -> None:
    unet, guidance = make_unet(), trained(SPEC)
    plain = call_unet(unet)
    with pytest.raises(GuidanceError), guided(unet, guidance, (torch.zeros(1, 64, 8, 8),)):
        call_unet(unet)
    assert torch.equal(call_unet(unet), plain)


@pytest.mark.parametrize("size", [(16, 16), (15, 13), (18, 21)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("strength", [1.0, 0.4])
def test_guided_is_a_plain_hook(
    size: tuple[int, int], strength: float, make_unet: MakeUNet, call_unet: CallUNet
) -> None:
    unet, guidance = make_unet(), trained(SPEC)
    # The canvas has four pixels per latent position; odd sizes make the UNet's downsampler round up.
    (f,) = given_features = features(guidance, size=(4 * size[0], 4 * size[1]))
    with guided(unet, guidance, given_features, strength):
        result = call_unet(unet, size=size)

    def fuse(_module: Any, _inputs: Any, h: torch.Tensor) -> torch.Tensor:
        assert h.shape == f.shape, "canvas and latent sizes round alike"
        return h + strength * (guidance.peam["0"](h, f) - h)

    handle = unet.get_submodule(DOWN).register_forward_hook(fuse)
    torch.testing.assert_close(result, call_unet(unet, size=size), atol=1e-5, rtol=1e-5)
    handle.remove()


def test_the_skip_connection_takes_the_fused_features(make_unet: MakeUNet, call_unet: CallUNet) -> None:
    unet, guidance = make_unet(), trained(TWO_SITES)
    seen: dict[str, torch.Tensor] = {}

    def note_output(name: str) -> Any:
        return lambda _module, _inputs, output: seen.__setitem__(name, output)

    def note_input(name: str) -> Any:
        return lambda _module, inputs: seen.__setitem__(name, inputs[0])

    given_features = features(guidance)
    with guided(unet, guidance, given_features):
        # Registered after the guidance's own hooks: they see what those return.
        unet.get_submodule("conv_in").register_forward_hook(note_output("conv_in"))
        unet.get_submodule(DOWN).register_forward_hook(note_output("down"))
        # The skips are popped from the end: these two resnets take the first and the fourth.
        unet.get_submodule("up_blocks.2.resnets.2").register_forward_pre_hook(note_input("conv_in skip"))
        unet.get_submodule("up_blocks.1.resnets.2").register_forward_pre_hook(note_input("down skip"))
        unet.get_submodule("down_blocks.1.resnets.0").register_forward_pre_hook(note_input("down next"))
        call_unet(unet)
    assert torch.equal(seen["down next"], seen["down"])
    for name in ("conv_in", "down"):
        assert torch.equal(seen[f"{name} skip"][:, -32:], seen[name])


def test_a_batch_with_features_of_its_own_equals_single_runs(make_unet: MakeUNet, call_unet: CallUNet) -> None:
    unet, guidance = make_unet(), trained(TWO_SITES)
    f = features(guidance, batch=2)
    with guided(unet, guidance, f):
        together = call_unet(unet, batch=2)
    for i in range(2):
        with guided(unet, guidance, tuple(x[i : i + 1] for x in f)):
            alone = call_unet(unet, batch=2)[i]
        torch.testing.assert_close(together[i], alone, atol=1e-4, rtol=1e-4)


def test_cfg_s_doubled_batch_repeats_the_features(make_unet: MakeUNet, call_unet: CallUNet) -> None:
    unet, guidance = make_unet(), trained(SPEC)
    (f,) = features(guidance, batch=2)
    with guided(unet, guidance, (f,)):
        together = call_unet(unet, batch=4)
    # [uncond of picture 0, uncond of picture 1, cond of picture 0, cond of picture 1]
    with guided(unet, guidance, (torch.stack([f[0], f[1], f[0], f[1]]),)):
        assert torch.equal(together, call_unet(unet, batch=4))
    with guided(unet, guidance, (torch.stack([f[0], f[0], f[1], f[1]]),)):
        assert not torch.allclose(together, call_unet(unet, batch=4))


def test_features_for_another_batch_are_refused(make_unet: MakeUNet, call_unet: CallUNet) -> None:
    unet, guidance = make_unet(), trained(SPEC)
    with pytest.raises(GuidanceError, match=r"3.*4"), guided(unet, guidance, features(guidance, batch=3)):
        call_unet(unet, batch=4)


def test_a_site_that_the_unet_lacks_is_named(make_unet: MakeUNet, call_unet: CallUNet) -> None:
    unet, guidance = make_unet(), Guidance(TWO_SITES)
    plain = call_unet(unet)
    guidance.spec = GuidanceSpec(
        **{**TWO_SITES.__dict__, "sites": (TWO_SITES.sites[0], Site("down_blocks.7.downsamplers.0", 32, 2, 8))}
    )
    with pytest.raises(GuidanceError, match=r"down_blocks\.7\.downsamplers\.0"), guided(unet, guidance, ()):
        pass
    assert torch.equal(call_unet(unet), plain), "the hook of the site that is there was taken back"


# -- files -------------------------------------------------------------------------------------------------


def weights_of(guidance: Guidance) -> dict[str, torch.Tensor]:
    """As they stand in a file."""
    return {f"pgp.{k}": v for k, v in guidance.state_dict().items()}


def test_load_gives_the_same_guidance() -> None:
    source = trained(SPEC)
    loaded = Guidance(SPEC, device="meta").load(weights_of(source))
    h, lq = draw(30, 1, 32, 8, 8), draw(31, 1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.fuse(0, h, *loaded.features(lq)), source.fuse(0, h, *source.features(lq)))


def test_load_names_the_first_missing_keys_and_counts_them() -> None:
    weights = weights_of(trained(SPEC))
    gone = sorted(k for k in weights if ".peam." in k)
    for k in gone:
        del weights[k]
    with pytest.raises(GuidanceError) as error:
        Guidance(SPEC).load(weights, "mine.safetensors")
    message = str(error.value)
    assert "mine.safetensors" in message
    assert "lacks" in message
    assert all(k.removeprefix("pgp.") in message for k in gone[:3])
    assert gone[3].removeprefix("pgp.") not in message
    assert str(len(gone)) in message


@pytest.mark.parametrize("key", ["pgp.peam.7.convs.0.weight", "alignment.weight", "peam.0.convs.0.weight"])
def test_load_names_keys_that_do_not_belong(key: str) -> None:
    weights = weights_of(trained(SPEC)) | {key: torch.zeros(1)}
    with pytest.raises(GuidanceError) as error:
        Guidance(SPEC).load(weights, "mine.safetensors")
    assert key.removeprefix("pgp.") in str(error.value)
    assert "do not belong" in str(error.value)


def test_load_names_a_key_of_another_shape_and_changes_nothing() -> None:
    guidance = trained(SPEC)
    before = copy.deepcopy(guidance.state_dict())
    weights = weights_of(trained(SPEC, seed=5))
    weights["pgp.lq_adapter.conv_in.weight"] = torch.zeros(32, 3, 3, 3)
    with pytest.raises(
        GuidanceError, match=r"lq_adapter\.conv_in\.weight has shape \(32, 3, 3, 3\).*\(32, 192, 3, 3\)"
    ):
        guidance.load(weights)
    assert all(torch.equal(v, before[k]) for k, v in guidance.state_dict().items())
