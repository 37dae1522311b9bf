"""Nano's learned decoder: its formula, tiles, files, and the restorer that has one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import rounding
import torch
import torch.nn.functional as F

from pgp_core.bench.macs import Counter
from pgp_core.codecs import pixel
from pgp_core.codecs.decoder import DecoderShape, PixelDecoder, mixed
from pgp_core.codecs.decoder_file import METADATA_KEY, read_decoder, write_decoder
from pgp_core.errors import CheckpointError, PGPError
from pgp_core.files.checkpoints import read_safetensors, write_safetensors
from pgp_core.images.sizes import Size
from pgp_core.images.wrap import MARGIN, Wrap
from pgp_core.restorers.given import Given
from pgp_core.restorers.looking import look
from pgp_core.restorers.nano import model as nano
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.restorers.upscale import upscale
from pgp_core.sampling.options import SampleOptions

SMALL = DecoderShape(8, 3)


def drawn(shape: DecoderShape = SMALL, seed: int = 0) -> PixelDecoder:
    """One that changes a picture by about a tenth of its range."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = PixelDecoder.fresh(shape)
        torch.nn.init.normal_(decoder.convs[-1].weight, std=0.02)
        torch.nn.init.normal_(decoder.convs[-1].bias, std=0.02)
    return decoder.eval().requires_grad_(False)


def pictures(height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nano's own files with a decoder that changes something beside them."""
    path = tmp_path_factory.mktemp("nano") / "own"
    shutil.copytree(nano.FOLDER, path)
    write_decoder(path / nano.DECODER_FILE, drawn(), torch.float16)
    return path


# -- the formula ---------------------------------------------------------------------------------------------


def test_it_adds_what_its_convolutions_make_of_the_picture() -> None:
    decoder, x = drawn(), pictures(7, 10, 2)

    def written_out(dtype: torch.dtype) -> torch.Tensor:
        """Each convolution as sums over shifted pictures."""
        y = x.to(dtype)
        for i, conv in enumerate(decoder.convs):
            wide, weight = F.pad(y, (1, 1, 1, 1)), conv.weight.to(dtype)
            shifted = [wide[..., r : r + 7, c : c + 10] for r in range(3) for c in range(3)]
            y = sum(torch.einsum("oi,bihw->bohw", weight[..., k // 3, k % 3], s) for k, s in enumerate(shifted))
            y = y + conv.bias.to(dtype).view(1, -1, 1, 1)
            y = y if i == 2 else torch.where(y > 0, y, y * 0.2)
        return x.to(dtype) + y

    exact = written_out(torch.float64)
    assert float((exact - x).abs().mean()) > 0.02
    assert rounding.difference(decoder(x), exact) <= rounding.allowed(written_out(torch.float32), exact)


@pytest.mark.parametrize("size", [(9, 13), (40, 64)])
def test_a_fresh_one_gives_the_picture_bit_for_bit(size: tuple[int, int]) -> None:
    decoder, x = PixelDecoder.fresh(), pictures(*size, 2)
    assert torch.equal(decoder(x), x)
    assert torch.equal(decoder.drawn(x, 16), x)
    assert sum(p.numel() for p in decoder.parameters()) == 11664 + 3 * 24 + 3


def test_its_first_step_of_training_reaches_the_last_convolution_and_the_next_all() -> None:
    decoder, x = PixelDecoder.fresh(SMALL), pictures(8, 8)
    optimizer = torch.optim.SGD(decoder.parameters(), 0.1)
    for expected in ([False, False, True], [True, True, True]):
        optimizer.zero_grad()
        (decoder(x) - x.flip(-1)).abs().mean().backward()
        assert [bool(conv.weight.grad.abs().sum() > 0) for conv in decoder.convs] == expected
        optimizer.step()


# -- tiles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(45, 38), (16, 61), (5, 3), (32, 32)])
@pytest.mark.parametrize("tile", [7, 16])
def test_tiles_give_what_the_whole_does(size: tuple[int, int], tile: int) -> None:
    decoder, x = drawn(), pictures(*size, 2)
    whole, exact = decoder(x), decoder.double()(x.double())
    tiles = decoder.float().drawn(x, tile)
    # The order in which a convolution adds may depend on the picture's size.
    assert rounding.difference(tiles, exact) <= rounding.allowed(whole, exact)


def test_a_picture_does_not_depend_on_the_others_of_its_batch() -> None:
    decoder, x = drawn(), pictures(20, 24, 3)
    assert torch.equal(decoder.drawn(x)[1:2], decoder.drawn(x[1:2]))


def test_no_layer_is_larger_than_a_tile() -> None:
    decoder, seen = drawn(), []
    for conv in decoder.convs:
        conv.register_forward_hook(lambda _m, _i, out: seen.append(out.shape))
    decoder.drawn(pictures(50, 200), 32)
    assert max(s[-1] * s[-2] for s in seen) <= (32 + 2 * decoder.reach) ** 2


# -- mixing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_mixture_s_weights_lie_between(share: float) -> None:
    one, other = drawn(seed=0), drawn(seed=1)
    before = {k: v.clone() for k, v in one.state_dict().items()}
    between = mixed(one, other, share)
    assert between is not None
    for k, v in between.state_dict().items():
        expected = (1 - share) * one.state_dict()[k].double() + share * other.state_dict()[k].double()
        rounding.assert_same(v, expected, 4)
    assert all(torch.equal(v, before[k]) for k, v in one.state_dict().items())
    if share in (0.0, 1.0):
        x = pictures(9, 9)
        assert torch.equal(between(x), (one, other)[int(share)](x))


def test_a_mixture_with_none_does_a_share_of_it() -> None:
    decoder, x = drawn(), pictures(9, 12)
    whole = decoder(x) - x
    for result, share in ((mixed(None, decoder, 0.25), 0.25), (mixed(decoder, None, 0.25), 0.75)):
        assert result is not None
        rounding.assert_same(result(x), x + share * whole, rounding.LAYER, 4.0)
    assert mixed(None, None, 0.5) is None


def test_two_shapes_do_not_mix() -> None:
    with pytest.raises(PGPError, match="3 convolutions of width 8 and 4 convolutions of width 24"):
        mixed(drawn(), PixelDecoder.fresh(), 0.5)


# -- files ---------------------------------------------------------------------------------------------------


def test_a_file_gives_the_same_decoder_back(tmp_path: Path) -> None:
    decoder, path = drawn(), tmp_path / "d.safetensors"
    write_decoder(path, decoder)
    read = read_decoder(path)
    assert read.shape == SMALL
    assert all(torch.equal(v, decoder.state_dict()[k]) for k, v in read.state_dict().items())
    tensors, _ = read_safetensors(path)
    write_safetensors(path, tensors)
    assert read_decoder(path).shape == SMALL, "a file whose metadata somebody stripped"
    seen = look(path, Given())
    assert (seen.what, seen.goes, seen.error) == ("nano's learned decoder", "for nano's folder", None)


def test_it_is_recognised_alone(tmp_path: Path) -> None:
    write_decoder(tmp_path / "d.safetensors", drawn())
    seen = look(tmp_path / "d.safetensors", Given())
    assert seen.what == "nano's learned decoder (3 convolutions of width 8)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: t.pop("decoder.convs.1.bias"), "lacks decoder.convs.1.bias|lacks convs.1.bias"),
        (lambda t, m: t.update({"other": torch.zeros(1)}), "keys that do not belong there: other"),
        (lambda t, m: t["decoder.convs.0.weight"].fill_(float("nan")), "not finite"),
        (lambda t, m: t.update({"decoder.convs.2.bias": torch.zeros(3, dtype=torch.int32)}), "no floating-point"),
        (lambda t, m: m.update(width=9), "expected"),
        (lambda t, m: m.update(depth=4), "lacks convs.3"),
        (lambda t, m: m.update(width=10**9), "its width is 1000000000"),
        (lambda t, m: m.update(depth="3"), "its depth is '3'"),
        (lambda t, m: m.pop("depth"), "depth"),
        (lambda t, m: m.update(format=2), "update"),
        (lambda t, m: m.update(input="canvas"), "update"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "d.safetensors"
    write_decoder(path, drawn())
    tensors, metadata = read_safetensors(path)
    said = json.loads(metadata[METADATA_KEY])
    change(tensors, said)  # type: ignore[operator]
    write_safetensors(path, tensors, {METADATA_KEY: json.dumps(said)})
    with pytest.raises(CheckpointError, match=message) as error:
        read_decoder(path)
    assert "\n" not in str(error.value)
    assert "d.safetensors" in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "1", "{", "null"])
def test_metadata_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "d.safetensors"
    write_decoder(path, drawn())
    write_safetensors(path, read_safetensors(path)[0], {METADATA_KEY: text})
    with pytest.raises(CheckpointError, match=r"d\.safetensors"):
        read_decoder(path)
    assert look(path, Given()).error is not None


def test_a_file_of_something_else(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "d.safetensors", {"a": torch.zeros(3)})
    with pytest.raises(CheckpointError, match="holds no decoder of nano's"):
        read_decoder(tmp_path / "d.safetensors")


# -- in nano -------------------------------------------------------------------------------------------------


def test_without_the_file_nano_is_as_it_was_and_a_fresh_one_changes_no_bit(folder: Path, tmp_path: Path) -> None:
    canvas = (pictures(44, 51) + 1) / 2
    bundled = NanoRestorer.load()
    assert bundled.decoder is None
    assert "vae" not in bundled.parts()
    shutil.copytree(folder, tmp_path / "own")
    write_decoder(tmp_path / "own" / nano.DECODER_FILE, PixelDecoder.fresh())
    assert torch.equal(NanoRestorer.load(folder=tmp_path / "own").restore(canvas), bundled.restore(canvas))


@pytest.mark.parametrize("one_step", [True, False])
def test_a_nano_of_ones_own_has_the_decoder_beside_it(folder: Path, one_step: bool) -> None:
    canvas = (pictures(36, 45, 2) + 1) / 2
    own = NanoRestorer.of(Given(model=folder / nano.UNET_FILE, one_step=one_step))
    options = own.recipe.options() if one_step else own.recipe.options(seed=2)
    plain = NanoRestorer.load(one_step)
    assert own.decoder is not None
    # What goes into the decoder, not yet clamped.
    latents = []
    own.decoder.register_forward_pre_hook(lambda _m, args: latents.append(args[0]))
    result = own.restore(canvas, options)
    before = torch.cat(latents)
    assert torch.equal(((before + 1) / 2)[..., :36, :45].clamp(0, 1), plain.restore(canvas, options))
    weights = {k: v.half().float() for k, v in drawn().state_dict().items()}
    expected = drawn()
    expected.load_state_dict(weights)
    exact = ((expected.double()(before.double()) + 1) / 2)[..., :36, :45].clamp(0, 1)
    rounded = ((expected.float()(before) + 1) / 2)[..., :36, :45].clamp(0, 1)
    assert float((exact - plain.restore(canvas, options)).abs().mean()) > 0.01
    assert rounding.difference(result, exact) <= rounding.allowed(rounded, exact)


def test_in_half_precision_it_stays_in_float32(folder: Path) -> None:
    own = NanoRestorer.load(folder=folder, dtype=torch.bfloat16)
    assert own.decoder is not None
    assert {p.dtype for p in own.decoder.parameters()} == {torch.float32}
    result = own.restore((pictures(32, 32) + 1) / 2)
    assert result.dtype == torch.float32
    assert bool(result.isfinite().all())


def test_its_cost_is_counted_as_the_vaes(folder: Path) -> None:
    own = NanoRestorer.load(folder=folder)
    parts = own.parts()
    assert list(parts) == ["unet", "vae", "guidance"]
    with torch.inference_mode(), Counter(parts) as counter:
        own.restore((pictures(32, 48) + 1) / 2)
    macs = 9 * (3 * 8 + 8 * 8 + 8 * 3) * 32 * 48
    assert counter.counted.parts["vae"].total == macs
    assert counter.counted.inside["vae"]["decoder"].total == macs


@pytest.mark.parametrize("one_step", [True, False])
def test_of_a_texture_that_repeats_it_sees_the_opposite_border(folder: Path, one_step: bool) -> None:
    own, picture = NanoRestorer.load(one_step, folder), (pictures(16, 24) + 1) / 2
    calls = []
    assert own.decoder is not None
    own.decoder.register_forward_hook(lambda _m, args, out: calls.append((args[0], out)))
    upscale(own, picture, Size(scale=4.0), own.recipe.options() if one_step else SampleOptions(2), wrap="both")
    ((seen, result),) = calls
    around = Wrap("both")
    texture, repeated = around.inner(seen, MARGIN), around.inner(result, MARGIN)
    assert texture.shape == (1, 3, 64, 96)
    reach = own.decoder.reach
    other = around.inner(own.decoder(around.around(texture, reach)), reach)
    exact = around.inner(own.decoder.double()(around.around(texture.double(), reach)), reach)
    assert rounding.difference(repeated, exact) <= rounding.allowed(other, exact)


def test_a_damaged_one_is_refused_with_its_name(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "own")
    (tmp_path / "own" / nano.DECODER_FILE).write_bytes(b"x" * 40)
    with pytest.raises(CheckpointError, match=f"{nano.DECODER_FILE} is damaged"):
        NanoRestorer.load(folder=tmp_path / "own")


def test_decoding_with_none_is_the_shuffle() -> None:
    z = torch.randn(1, 48, 3, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pixel.decode(z), (F.pixel_shuffle(z, 4) + 1) / 2)
