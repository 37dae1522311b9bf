"""FaithDiff: its file, encoder, alignment and conversion, against the authors' modules written out in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faithdiff_file
import pytest
import torch
from faithdiff_file import NARROW
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pgp_core.cli import main
from pgp_core.errors import CheckpointError, GuidanceError, PGPError
from pgp_core.files.weights import open_weights
from pgp_core.guidance import faithdiff
from pgp_core.guidance.convert import convert
from pgp_core.guidance.lq_encoder import LQEncoder
from pgp_core.guidance.module import METADATA_KEY, Guidance, GuidanceSpec
from pgp_core.guidance.on_diffusers import guided
from pgp_core.unet.known import SDXL_SHAPE
from pgp_core.unet.loading import load_unet
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.topology import KeyMap


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return faithdiff_file.state_dict()


@pytest.fixture(scope="module")
def published(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faithdiff") / "FaithDiff.bin"
    torch.save(weights, path)
    return path


@pytest.fixture(scope="module")
def guidance(published: Path) -> Guidance:
    with open_weights(published) as file:
        spec, tensors = faithdiff.load_extras(file)
    return Guidance(spec, device="meta").load(tensors).double().eval()


# -- sizes ---------------------------------------------------------------------------------------------------


def test_full_size_parameters_are_the_published_ones() -> None:
    with torch.device("meta"):
        theirs = faithdiff_file.Authors((128, 256, 512, 512), 320)
        ours = Guidance(faithdiff.guidance_spec())

    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    assert len(theirs.denoise_encoder.state_dict()) == 102
    assert count(ours.lq_encoder) == count(theirs.denoise_encoder) == 34_125_696
    assert count(theirs) - count(theirs.denoise_encoder) == 10_608_512
    # Queries and keys do nothing at inference; they are 2/3 of the stacked projection.
    assert count(ours.alignment) == 10_608_512 - 2 * (2 * 640 * 640 + 2 * 640)


def test_the_narrow_file_has_the_key_layout_of_the_published_one(weights: dict[str, torch.Tensor]) -> None:
    groups = [sum(k.startswith(g) for k in weights) for g in faithdiff.GROUPS]
    assert groups == [102, 6, 24, 2]
    # Levels of equal width have no shortcuts: two fewer of weight and bias.
    assert len(weights) == 1680 - 4 + sum(groups)
    with torch.device("meta"):
        assert len(build_unet(SDXL_SHAPE).state_dict()) == 1680


# -- exactness -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 48), (72, 40)])
def test_the_encoder_is_diffusers_vae_encoder(size: tuple[int, int], guidance: Guidance) -> None:
    lq = torch.rand(2, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = faithdiff_file.authors().encode(lq * 2 - 1)
    (ours,) = guidance.features(lq)
    assert ours.shape == (2, 64, size[0] // 8, size[1] // 8)
    assert float((ours - expected).detach().abs().max()) < 1e-6


def test_the_encoder_pads_odd_sizes_as_the_authors_do(guidance: Guidance) -> None:
    lq = torch.rand(1, 3, 37, 29, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(lq, (0, 3, 0, 3), mode="replicate")
    assert torch.equal(guidance.features(lq)[0], guidance.features(padded)[0])


def _pair(batch: int, size: tuple[int, int] = (6, 5)) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    return tuple(torch.randn(batch, 64, *size, dtype=torch.float64, generator=g) for _ in range(2))  # type: ignore[return-value]


@torch.no_grad()
def test_alignment_is_the_authors_for_one_picture_with_cfg(guidance: Guidance) -> None:
    """Both halves of CFG hold the same latent, so the authors' attention over the batch is over equal tokens."""
    h, c = _pair(1)
    expected = faithdiff_file.authors().align(h.repeat(2, 1, 1, 1), c.repeat(2, 1, 1, 1))
    ours = guidance.fuse(0, h.repeat(2, 1, 1, 1), c)
    assert float((ours - expected).abs().max()) < 1e-6
    assert float((ours - h).abs().max()) > 0.1


@torch.no_grad()
def test_each_picture_of_a_batch_gets_what_it_has_alone(guidance: Guidance) -> None:
    h, c = _pair(3)
    together = guidance.fuse(0, h, c)
    for i in range(3):
        alone = faithdiff_file.authors().align(h[i : i + 1], c[i : i + 1])
        assert float((together[i : i + 1] - alone).abs().max()) < 1e-6
    # What the authors' own code would do with such a batch: mix the pictures.
    assert float((faithdiff_file.authors().align(h, c) - together).abs().max()) > 1e-3


@torch.no_grad()
def test_alignment_never_mixes_pixels(guidance: Guidance) -> None:
    h, c = _pair(1, (8, 8))
    whole = guidance.fuse(0, h, c)
    assert float((guidance.fuse(0, h[..., 2:5, 1:7], c[..., 2:5, 1:7]) - whole[..., 2:5, 1:7]).abs().max()) < 1e-12


@torch.no_grad()
def test_strength_scales_what_is_added(guidance: Guidance) -> None:
    h, c = _pair(1)
    whole, half = guidance.fuse(0, h, c), guidance.fuse(0, h, c, strength=0.5)
    assert torch.allclose(half - h, (whole - h) / 2)
    assert guidance.fuse(0, h, c, strength=0) is h


@torch.no_grad()
def test_a_whole_unet_call_is_the_authors(weights: dict[str, torch.Tensor], guidance: Guidance) -> None:
    """``conv_in`` replaced by the authors' aligned one; skip 0 takes the aligned features too."""
    unet = load_unet(NARROW, None, {k: v for k, v in weights.items() if not k.startswith(faithdiff.GROUPS)}).double()
    theirs, g = faithdiff_file.authors(), torch.Generator().manual_seed(3)
    lq = torch.rand(1, 3, 64, 64, dtype=torch.float64, generator=g)
    x = torch.randn(1, 4, 8, 8, dtype=torch.float64, generator=g).repeat(2, 1, 1, 1)
    context = torch.randn(2, 7, 32, dtype=torch.float64, generator=g)
    added = {
        "text_embeds": torch.randn(2, 32, dtype=torch.float64, generator=g),
        "time_ids": torch.tensor([[64.0, 64.0, 0, 0, 64, 64]] * 2, dtype=torch.float64),
    }

    def call() -> torch.Tensor:
        return unet(x, torch.tensor([501.0] * 2), encoder_hidden_states=context, added_cond_kwargs=added)[0]

    plain = call()
    with guided(unet, guidance, guidance.features(lq)):
        ours = call()
    c = theirs.encode(lq * 2 - 1).repeat(2, 1, 1, 1)
    handle = unet.get_submodule("conv_in").register_forward_hook(lambda _m, _i, h: theirs.align(h, c))
    expected = call()
    handle.remove()
    assert float((ours - expected).abs().max()) < 1e-6 < 1e-3 < float((plain - expected).abs().max())


# -- conversion ----------------------------------------------------------------------------------------------


def test_conversion_keeps_every_weight(published: Path, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    unet_path, guidance_path = convert(
        published, tmp_path, torch.float32, lambda done, total: seen.append((done, total))
    )
    assert {unet_path, guidance_path} == set(tmp_path.iterdir())
    assert [p.name for p in (unet_path, guidance_path)] == [
        "faithdiff-unet.safetensors",
        "faithdiff-guidance.safetensors",
    ]
    names, unet = KeyMap(), load_file(unet_path)
    assert len(unet) == 1680 - 4
    for key, value in unet.items():
        assert torch.equal(value, weights[names.to_diffusers(key)])
    with safe_open(guidance_path, "pt") as f:
        spec = GuidanceSpec.from_metadata(f.metadata())
    assert spec.parts == ("lq_encoder", "alignment")
    loaded = Guidance(spec, device="meta").load(load_file(guidance_path))
    third = weights["information_transformer_layes.1.attn.in_proj_weight"][2 * 128 :]
    assert torch.equal(loaded.alignment.blocks[1].value.weight, third)  # type: ignore[union-attr]
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert (
        seen[-1][0]
        == seen[-1][1]
        == unet_path.stat().st_size + guidance_path.stat().st_size - _headers(unet_path, guidance_path)
    )


def _headers(*paths: Path) -> int:
    return sum(8 + int.from_bytes(p.read_bytes()[:8], "little") for p in paths)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "wrapped"])
def test_every_kind_of_file_converts_to_the_same(
    kind: str, published: Path, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    source = tmp_path / ("in.safetensors" if kind == "safetensors" else "in.bin")
    if kind == "safetensors":
        save_file(weights, source)
    elif kind == "wrapped":
        torch.save({"state_dict": weights, "step": 3}, source)
    else:
        torch.save(weights, source, _use_new_zipfile_serialization=kind == "zip")
    expected = [load_file(p) for p in convert(published, tmp_path / "a")]
    for path, tensors in zip(convert(source, tmp_path / "b"), expected, strict=True):
        found = load_file(path)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[k], tensors[k]) and found[k].dtype == torch.float16 for k in found)


def test_the_files_go_where_comfyui_looks(published: Path, tmp_path: Path) -> None:
    for name in ("diffusion_models", "model_patches"):
        (tmp_path / name).mkdir()
    unet_path, guidance_path = convert(published, tmp_path)
    assert (unet_path.parent.name, guidance_path.parent.name) == ("diffusion_models", "model_patches")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError("No space left on device")])
def test_an_interrupted_conversion_leaves_nothing(stop: Any, published: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > 0.99 * total:
            raise stop

    with pytest.raises((KeyboardInterrupt, CheckpointError)):
        convert(published, tmp_path, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_conversion_by_the_command_line(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(published), "-o", str(tmp_path), "--dtype", "bf16", "--json"]) == 0
    captured = capsys.readouterr()
    row = json.loads(captured.out)
    # Narrow, which core knows no SDXL by.
    assert row["loads_in_core"] is False
    assert "does not have SDXL's widths" in captured.err
    assert Path(row["unet"]).is_file() and Path(row["guidance"]).is_file()
    assert next(iter(load_file(row["unet"]).values())).dtype == torch.bfloat16


# -- what is wrong with a file -------------------------------------------------------------------------------


def _without(prefix: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda weights: {k: v for k, v in weights.items() if not k.startswith(prefix)}


def _with(key: str, value: torch.Tensor) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda weights: {**weights, key: value}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without("denoise_encoder."), "denoise_encoder"),
        (_without("condition_embedding."), "condition_embedding"),
        (_without("information_transformer_layes."), "information_transformer_layes"),
        (_without("spatial_ch_projs."), "spatial_ch_projs"),
        (lambda w: {k: v for k, v in w.items() if not k.startswith(faithdiff.GROUPS)}, "holds a UNet"),
        (_without("denoise_encoder.mid_block.attentions.0.to_q"), "to_q"),
        (_without("information_transformer_layes.1.ln_2"), "ln_2"),
        (_without("mid_block.attentions.0.transformer_blocks.4."), "block"),
        (_without("up_blocks.2.resnets.1.conv1"), "conv1"),
        (_with("spatial_ch_projs.bias", torch.zeros(3)), "spatial_ch_projs.bias"),
        (_with("denoise_encoder.conv_in.weight", torch.zeros(32, 3, 3, 3, dtype=torch.int32)), "floating"),
        (_with("condition_embedding.extra", torch.zeros(3)), "condition_embedding.extra"),
        (_with("conv_in.weight", torch.zeros(64, 9, 3, 3)), "inpainting"),
        (_with("conv_out.bias", torch.zeros(5)), "conv_out.bias"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_incomplete_files_are_refused_in_one_line(
    change: Callable[..., Any], words: str, weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.save(change(weights), tmp_path / "broken.bin")
    out = tmp_path / "out"
    with pytest.raises((CheckpointError, GuidanceError), match=words) as error:
        convert(tmp_path / "broken.bin", out)
    assert "\n" not in str(error.value) and "broken.bin" in str(error.value)
    assert not out.exists()


def test_files_with_code_are_not_opened(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"conv_in.weight": torch.zeros(1), "x": Evil()}, tmp_path / "evil.bin")
    with pytest.raises(CheckpointError, match="unpickling"):
        convert(tmp_path / "evil.bin", tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_a_fresh_alignment_changes_nothing() -> None:
    spec = GuidanceSpec(sites=(faithdiff.SITE,), encoder_channels=(32, 32, 32, 32))
    h, c = torch.randn(2, 1, 320, 4, 4)
    assert torch.equal(Guidance.fresh(spec).fuse(0, h, c), h)


def test_specs_with_both_kinds_of_guidance_come_back_the_same() -> None:
    spec = GuidanceSpec(sites=(faithdiff.SITE, GuidanceSpec().sites[0]), trained=False)
    assert spec.parts == ("lq_adapter", "peam", "lq_encoder", "alignment")
    assert GuidanceSpec.from_metadata({METADATA_KEY: json.dumps(spec.to_json())}) == spec


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("lq_encoder", "channels"), [32]),
        (("lq_encoder", "channels"), [33, 33, 33, 33]),
        (("lq_encoder", "channels"), [32, 32, 32, 10**9]),
        (("lq_encoder", "input_range"), [0, 1]),
        (("lq_encoder", "blocks"), 10**6),
        (("alignment", "layers"), -1),
        (("alignment", "layers"), None),
    ],
)
def test_impossible_encoders_are_refused(where: tuple[str, str], value: Any) -> None:
    data = faithdiff.guidance_spec().to_json()
    data[where[0]] = {**data[where[0]], where[1]: value}
    with pytest.raises(PGPError):
        GuidanceSpec.from_metadata({METADATA_KEY: json.dumps(data)})


def test_encoder_and_unet_build_in_half_precision_on_meta() -> None:
    with torch.device("meta"):
        encoder = LQEncoder(dtype=torch.float16)
        assert encoder(torch.empty(1, 3, 1024, 768, dtype=torch.float16)).shape == (1, 512, 128, 96)
        assert build_unet(NARROW) is not None
