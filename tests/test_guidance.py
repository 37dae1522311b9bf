"""Guidance: its metadata, its composition, and what it does inside a diffusers UNet."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgp_core.errors import GuidanceError
from pgp_core.guidance import Guidance, GuidanceSpec, Site, fit
from pgp_core.unet_diffusers import guided

DOWN = "down_blocks.0.downsamplers.0"

#: Fits the narrow UNet: a latent of one position per 4 pixels, halved at the site.
SPEC = GuidanceSpec(base="pgp-nano", sites=(Site(DOWN, 32, 0, 8),), channels=(32, 32, 32, 32), unshuffle=8)
TWO_SITES = GuidanceSpec(
    base="pgp-nano",
    sites=(Site("conv_in", 32, 0, 4, "add"), Site(DOWN, 32, 2, 8)),
    channels=(32, 32, 32, 32),
    unshuffle=4,
    input_range=(-2.0, 2.0),
)


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


def metadata(**changes: Any) -> dict[str, str]:
    return {"pgp.guidance": json.dumps(SPEC.to_json() | changes)}


# -- metadata ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        GuidanceSpec(),
        SPEC,
        TWO_SITES,
        GuidanceSpec(
            residual=False, slope=0.01, trained=False, plan_sha256="0" * 64, input_range=(-1.0, 1.0), blocks=1
        ),
    ],
)
def test_metadata_round_trip(spec: GuidanceSpec) -> None:
    text = json.dumps(spec.to_json())
    assert GuidanceSpec.from_metadata({"pgp.guidance": text, "format": "pt"}) == spec


def test_files_from_before_the_slope_was_stored_have_pytorch_s() -> None:
    data = GuidanceSpec().to_json()
    del data["slope"]
    assert GuidanceSpec.from_metadata({"pgp.guidance": json.dumps(data)}).slope == 0.01


def test_the_metadata_of_the_design() -> None:
    data = GuidanceSpec(plan_sha256="abc").to_json()
    assert (data["format"], data["version"], data["base"]) == ("pgp-diffsr/guidance", 1, "sdxl")
    assert data["parts"] == ["lq_adapter", "peam"]
    assert data["sites"][0]["module"] == DOWN
    assert data["sites"][0]["channels"] == 320
    assert (data["input_range"], data["residual"]) == ([0.0, 1.0], True)
    assert (data["null_phase"], data["plan_sha256"]) == ("own", "abc")


def site(**changes: Any) -> list[dict[str, Any]]:
    return [SPEC.sites[0].to_json() | changes]


def adapter(**changes: Any) -> dict[str, Any]:
    return {"channels": [32, 32, 32, 32], "unshuffle": 8, "blocks": 2} | changes


def missing(key: str) -> dict[str, str]:
    return {"pgp.guidance": json.dumps({k: v for k, v in SPEC.to_json().items() if k != key})}


BAD: dict[str, tuple[dict[str, str] | None, str]] = {
    # what is wrong: metadata, words that the message must hold
    "none": (None, "no PGP-DiffSR guidance"),
    "empty": ({}, "no PGP-DiffSR guidance"),
    "only others' keys": ({"modelspec.title": "x"}, "no PGP-DiffSR guidance"),
    "no JSON": ({"pgp.guidance": "{format"}, "not valid JSON"),
    "a huge number": ({"pgp.guidance": "9" * 5000}, "pgp.guidance"),
    "nested too deep": ({"pgp.guidance": "[" * 100_000}, "not valid JSON"),
    "no object": ({"pgp.guidance": "[1]"}, "format"),
    "another format": (metadata(format="pgp-diffsr/prune-plan"), "format"),
    "no format": (missing("format"), "format"),
    "newer version": (metadata(version=2), "version 2, this release reads up to 1: update"),
    "version 0": (metadata(version=0), "positive whole number, not 0"),
    "version text": (metadata(version="1"), "positive whole number, not '1'"),
    "version true": (metadata(version=True), "positive whole number, not True"),
    "no version": (missing("version"), "positive whole number, not None"),
    "unknown part": (metadata(parts=["lq_adapter", "peam", "tagger"]), "does not know: tagger"),
    "parts null": (metadata(parts=None), "parts"),
    "parts a number": (metadata(parts=3), "parts"),
    "a part that is an object": (metadata(parts=[{"name": "peam"}]), "parts"),
    "null phase zero": (metadata(null_phase="zero"), "null_phase is 'zero'"),
    "no null phase": (missing("null_phase"), "null_phase"),
    "no adapter": (missing("lq_adapter"), "lq_adapter"),
    "no sites key": (missing("sites"), "sites"),
    "a slope above 1": (metadata(slope=1.5), "slope"),
    "a slope that is no number": (metadata(slope=float("nan")), "slope"),
    "no input range": (missing("input_range"), "input_range"),
    "no base": (missing("base"), "base"),
    "an input range of three": (metadata(input_range=[0, 1, 2]), "incomplete or wrong"),
    "an input range without end": (metadata(input_range=[0, float("inf")]), "input_range"),
    "an input range that is no number": (metadata(input_range=[float("nan"), 1]), "input_range"),
    "no sites": (metadata(sites=[]), "no sites"),
    "a site without module": (metadata(sites=[{"channels": 32}]), "module"),
    "a site that is a text": (metadata(sites=["conv_in"]), "incomplete or wrong"),
    "channels a text": (metadata(sites=site(channels="many")), "incomplete or wrong"),
    "no channels": (metadata(lq_adapter=adapter(channels=[])), "level 0"),
    "channels zero": (metadata(sites=site(channels=0), lq_adapter=adapter(channels=[0] * 4)), "impossible sizes"),
    "channels below zero": (metadata(sites=site(channels=-4), lq_adapter=adapter(channels=[-4])), "impossible sizes"),
    "channels absurd": (metadata(lq_adapter=adapter(channels=[32, 10**9])), "impossible sizes"),
    "unshuffle zero": (metadata(lq_adapter=adapter(unshuffle=0)), "impossible sizes"),
    "unshuffle absurd": (metadata(lq_adapter=adapter(unshuffle=100_000)), "impossible sizes"),
    "unshuffle infinite": (metadata(lq_adapter=adapter(unshuffle=float("inf"))), "incomplete or wrong"),
    "blocks absurd": (metadata(lq_adapter=adapter(blocks=10_000)), "impossible sizes"),
    "scale zero": (metadata(sites=site(scale=0)), "impossible sizes"),
    "unknown fusion": (metadata(sites=site(fusion="multiply")), "fusion 'multiply'"),
    "level out of range": (metadata(sites=site(level=4)), "adapter level 4, which is not there"),
    "level below zero": (metadata(sites=site(level=-1)), "adapter level -1, which is not there"),
    "channels that differ": (metadata(sites=site(channels=64)), "64 channels, adapter level 0 gives 32"),
}


@pytest.mark.parametrize(("bad", "words"), BAD.values(), ids=BAD.keys())
def test_bad_metadata_is_refused_in_one_line_that_says_what(bad: dict[str, str] | None, words: str) -> None:
    with pytest.raises(GuidanceError) as error:
        GuidanceSpec.from_metadata(bad, "mine.safetensors")
    message = str(error.value)
    assert "mine.safetensors" in message
    assert words in message
    assert "\n" not in message


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=8,
)


def _paths(data: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in nested JSON data."""
    items: Any = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [prefix, *(p for k, v in items for p in _paths(v, (*prefix, k)))]


@given(st.sampled_from(_paths(SPEC.to_json())[1:]), anything)
def test_metadata_with_one_thing_replaced_raises_nothing_but_guidance_error(path: tuple[Any, ...], value: Any) -> None:
    data = copy.deepcopy(SPEC.to_json())
    place: Any = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with contextlib.suppress(GuidanceError):
        GuidanceSpec.from_metadata({"pgp.guidance": json.dumps(data)})


def test_only_the_levels_that_sites_use_are_built() -> None:
    assert len(Guidance(SPEC).lq_adapter.body) == 1
    assert len(Guidance(TWO_SITES).lq_adapter.body) == 3
    assert list(Guidance(TWO_SITES).peam) == ["1"], "keyed by the site's number; an additive site has none"


# -- fusion ------------------------------------------------------------------------------------------------


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
                torch.testing.assert_close(whole[i : i + 1], alone, atol=1e-5, rtol=1e-5)


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
