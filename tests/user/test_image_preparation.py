"""How an image is prepared at both doors, row by row of the table in docs/guides/images.md.

The one-call API makes every image upright, opaque RGB, then resizes it: files that look alike have the same vector.
PS3ImageProcessor does what ps3-torch does, unless it is given a background.
"""

import io
import json
import re
import shutil
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cli_support import ps3c_main  # noqa: F401  (a fixture)
from conftest import ROOT, photograph
from PIL import Image, ImageCms, ImageOps

import ps3c
from ps3c.images import open_image, open_upright

RGB = photograph(200, 150)
GREY = RGB.convert("L")
INDEXED = RGB.quantize(32)
BACKGROUNDS = {"white": (255, 255, 255), "#102030": (16, 32, 48), (200, 0, 7): (200, 0, 7)}


def png(image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def opened(image, **options) -> Image.Image:
    return Image.open(io.BytesIO(png(image, **options)))


def vector(encoder, source, **options) -> torch.Tensor:
    return encoder.embed_images(source, **options).pooled


def values(encoder, image, background=None) -> torch.Tensor:
    processor = ps3c.PS3ImageProcessor.from_pretrained(encoder.folder, background=background)
    return processor(image)["pixel_values"][0]


def composed(colours, alpha, background=(255, 255, 255)) -> np.ndarray:
    """The definition."""
    colours, alpha = np.asarray(colours, np.int64), np.asarray(alpha, np.int64)[..., None]
    return ((colours * alpha + np.array(background) * (255 - alpha) + 127) // 255).astype(np.uint8)


def alpha_channel(seed=0, size=(150, 200)) -> np.ndarray:
    """Every value from 0 to 255, and regions that are fully transparent and fully opaque."""
    alpha = np.random.default_rng(seed).integers(0, 256, size).astype(np.uint8)
    alpha[: size[0] // 3] = 0
    alpha[-size[0] // 3 :] = 255
    return alpha


def with_alpha(image, alpha) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.fromarray(alpha))
    return image


# ---- opaque images: the one-call API ---------------------------------------------------------------------------------

LOOK_ALIKE = {
    "palette": INDEXED,
    "web palette": RGB.convert("P"),
    "1-bit": RGB.convert("1"),
    "grey": GREY,
    "opaque alpha": with_alpha(RGB, np.full((150, 200), 255, np.uint8)),
    "grey with opaque alpha": with_alpha(GREY, np.full((150, 200), 255, np.uint8)),
    "CMYK": RGB.convert("CMYK"),
    "16 bits": Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257),
}


@pytest.mark.parametrize("kind", LOOK_ALIKE)
def test_files_that_look_alike_have_one_vector(encoder, kind):
    """A file, and what it shows as an RGB file. Not a bit differs, in any result."""
    image = LOOK_ALIKE[kind]
    shown = GREY.convert("RGB") if kind == "16 bits" else image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "TIFF" if kind == "CMYK" else "PNG")
    for source in (buffer.getvalue(), image):
        one, other = (encoder.embed_images(each, "a ship", looks=1, maps=True) for each in (source, png(shown)))
        assert torch.equal(one.pooled, other.pooled) and torch.equal(one.tokens, other.tokens)
        assert all(torch.equal(a, b) for a, b in zip(one.selection_probs, other.selection_probs))
        assert np.array_equal(one.thumbnails[0], other.thumbnails[0]) and one.sizes == other.sizes
        assert np.array_equal(open_image(source)[0], shown)


@pytest.mark.parametrize("kind", ["palette", "web palette", "1-bit", "CMYK"])
def test_the_processor_resizes_in_the_images_own_mode(encoder, kind):
    """As ps3-torch: test_processor.py compares the two. With a background, as the one-call API."""
    image = LOOK_ALIKE[kind]
    alike = values(encoder, image.convert("RGB"))
    assert not torch.equal(values(encoder, image), alike)
    assert torch.equal(values(encoder, image, "black"), alike)


@pytest.mark.parametrize("background", [None, "white"])
def test_grey_is_rgb_at_both_doors(encoder, background):
    assert torch.equal(values(encoder, GREY, background), values(encoder, GREY.convert("RGB"), background))
    assert open_upright(GREY)[0].mode == "L" and open_image(GREY)[0].mode == "RGB"


@pytest.mark.parametrize("background", [None, "black"])
def test_16_bits_keep_their_shades_at_both_doors(encoder, background):
    deep = opened(LOOK_ALIKE["16 bits"])
    assert deep.mode.startswith("I")
    assert torch.equal(values(encoder, deep, background), values(encoder, GREY, background))
    assert torch.equal(vector(encoder, deep), vector(encoder, GREY))


def test_wide_values(encoder):
    """The one-call API refuses values that are no 16 bits; the processor clamps them, also with a background."""
    wide = Image.fromarray(np.asarray(GREY).astype(np.int32) * 3)
    assert wide.mode == "I"
    with pytest.raises(ps3c.ImageError, match="has values from .*, expected 16 bits"):
        vector(encoder, Image.fromarray(np.asarray(wide) * 1000))
    for background in (None, "white"):
        with pytest.warns(UserWarning, match="expected 0 to 255, to which they are clamped"):
            clamped = values(encoder, wide, background)
        assert clamped.max() == values(encoder, Image.new("L", (9, 9), 255)).max()


# ---- transparent images ----------------------------------------------------------------------------------------------


def colours_under(hidden: int, alpha: np.ndarray) -> np.ndarray:
    pixels = np.array(RGB)
    pixels[alpha == 0] = hidden
    return pixels


def transparent(kind: str, hidden: int):
    """A source with other colours below its transparent pixels, and its colours and alpha."""
    alpha = alpha_channel()
    hard = np.where(alpha < 128, 0, 255).astype(np.uint8)
    grey = np.where(alpha == 0, hidden, np.asarray(GREY)).astype(np.uint8)
    if kind == "array":
        pixels = colours_under(hidden, alpha)
        return np.dstack([pixels, alpha]), pixels, alpha
    if kind == "16-bit array":
        pixels = colours_under(hidden, alpha)
        return np.dstack([pixels, alpha]).astype(np.uint16) * 257, pixels, alpha
    if kind == "RGBA":
        pixels = colours_under(hidden, alpha)
        return png(with_alpha(Image.fromarray(pixels), alpha)), pixels, alpha
    if kind == "LA":
        return png(with_alpha(Image.fromarray(grey), alpha)), np.dstack([grey] * 3), alpha
    if kind == "PA":
        image = with_alpha(INDEXED.convert("RGB"), alpha).convert("PA")
        index = np.array(image.getchannel("P"))
        index[alpha == 0] = hidden % 16
        return Image.merge("PA", [_palette_image(index, image), Image.fromarray(alpha)]), None, alpha
    if kind in ("RGBa", "La"):
        straight = with_alpha(RGB if kind == "RGBa" else GREY, alpha)
        image = straight.convert(kind)
        return image, np.asarray(image.convert(straight.mode).convert("RGB")), alpha
    if kind in ("palette, an index", "palette, bytes", "palette, RGBA"):
        index = np.where(hard, np.asarray(INDEXED), 32).astype(np.uint8)
        palette = [*INDEXED.getpalette()[:96], hidden, hidden, hidden]
        image = Image.frombytes("P", INDEXED.size, index.tobytes())
        image.putpalette(palette)
        colours = np.asarray(image.convert("RGB"))
        if kind == "palette, an index":
            return png(image, transparency=32), colours, hard
        levels = np.array([255, 200, 100, 1, *[255] * 28, 0], np.uint8)
        if kind == "palette, bytes":
            return png(image, transparency=levels.tobytes()), colours, levels[index]
        rgba = [one for entry in range(33) for one in (*palette[3 * entry : 3 * entry + 3], int(levels[entry]))]
        image.putpalette(rgba, "RGBA")
        return image, colours, levels[index]
    if kind == "RGB, a colour":
        pixels = np.array(RGB)
        pixels[(pixels == (hidden, 1, 2)).all(axis=-1)] = 9
        pixels[hard == 0] = (hidden, 1, 2)
        return png(Image.fromarray(pixels), transparency=(hidden, 1, 2)), pixels, hard
    if kind == "grey, a value":
        grey = np.where(np.isin(np.asarray(GREY), (10, 250)), 99, np.asarray(GREY)).astype(np.uint8)
        grey[hard == 0] = hidden
        return png(Image.fromarray(grey), transparency=hidden), np.dstack([grey] * 3), hard
    assert kind == "16-bit grey, a value"
    deep = np.asarray(GREY).astype(np.uint16) * 257
    deep[hard == 0] = hidden * 257 + 1  # a value that no other pixel has, though it has their 8 bits
    return png(Image.fromarray(deep), transparency=hidden * 257 + 1), np.dstack([np.asarray(GREY)] * 3), hard


def _palette_image(index, like):
    image = Image.frombytes("P", like.size, index.tobytes())
    image.putpalette(like.getpalette())
    return image


KINDS = (
    "array",
    "16-bit array",
    "RGBA",
    "LA",
    "PA",
    "RGBa",
    "La",
    "palette, an index",
    "palette, bytes",
    "palette, RGBA",
    "RGB, a colour",
    "grey, a value",
    "16-bit grey, a value",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_transparent_images_are_put_on_the_background(encoder, kind, background):
    """Whatever their hidden colours: the vector of the composed picture, at both doors."""
    found = []
    for hidden in (10, 250):
        source, colours, alpha = transparent(kind, hidden)
        if colours is None:
            colours = np.asarray(source.convert("RGB"))
        assert (alpha == 0).any() and (alpha == 255).any()
        expected = Image.fromarray(composed(colours, alpha, BACKGROUNDS[background]))
        assert np.array_equal(open_image(source, background=background)[0], expected)
        assert torch.equal(vector(encoder, source, background=background), vector(encoder, expected))
        if not isinstance(source, np.ndarray):
            image = Image.open(io.BytesIO(source)) if isinstance(source, bytes) else source
            assert torch.equal(values(encoder, image, background), values(encoder, expected))
        found.append(expected)
    assert np.array_equal(*found)


def test_white_is_the_default(encoder):
    source = transparent("RGBA", 10)[0]
    assert torch.equal(vector(encoder, source), vector(encoder, source, background="white"))
    assert not torch.equal(vector(encoder, source), vector(encoder, source, background="black"))


@pytest.mark.parametrize("side", [120, 64])  # 64 is the processor's size: nothing is resized
def test_the_processor_drops_alpha(side):
    """As ps3-torch. Without a resize, hidden colours show."""
    processor = ps3c.PS3ImageProcessor(image_size=64)
    alpha = alpha_channel(size=(side, side))
    pixels = np.array(photograph(side, side))
    pixels[alpha == 0] = 10
    got = processor(with_alpha(Image.fromarray(pixels), alpha))["pixel_values"][0]
    white = processor(Image.fromarray(composed(pixels, alpha)))["pixel_values"][0]
    assert not torch.equal(got, white)
    if side == 64:
        assert torch.equal(got, processor(Image.fromarray(pixels))["pixel_values"][0])


def test_composing_every_pair_of_values():
    """All 65536 colours and alphas on some backgrounds, against whole numbers of Python."""
    colour, alpha = np.mgrid[0:256, 0:256]
    source = np.dstack([colour, colour, colour, alpha]).astype(np.uint8)
    for ground in (0, 1, 127, 254, 255):
        got = np.asarray(open_image(source, background=(ground, ground, ground))[0])
        expected = [[(c * a + ground * (255 - a) + 127) // 255 for a in range(256)] for c in range(256)]
        assert np.array_equal(got, np.dstack([expected] * 3))


def test_composing_in_strips(monkeypatch):
    source, colours, alpha = transparent("array", 10)
    monkeypatch.setattr("ps3c._background._STRIP_PIXELS", 1000)
    assert np.array_equal(open_image(source, background="#102030")[0], composed(colours, alpha, (16, 32, 48)))


def file_of(bits: int, kind: int, rows: bytes, transparency: bytes, size=(4, 1)) -> bytes:
    """A PNG file with a transparent colour, of depths that Pillow does not write."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", *size, bits, kind, 0, 0, 0)),
        (b"tRNS", transparency),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


FILES = {
    "1 bit": (file_of(1, 0, b"\0\x50", b"\0\1"), [0, 7, 0, 7]),  # pixels 0 1 0 1, and 1 is transparent
    "2 bits": (file_of(2, 0, b"\0\x1b", b"\0\2"), [0, 85, 7, 255]),  # pixels 0 1 2 3
    "4 bits": (file_of(4, 0, b"\0\x01\x2f", b"\0\x0f"), [0, 17, 34, 7]),  # pixels 0 1 2 15
    "8 bits": (file_of(8, 0, b"\0\x00\x01\x02\x03", b"\0\x02"), [0, 1, 7, 3]),
    "16 bits": (file_of(16, 0, b"\0\0\5\0\6\x80\0\xff\xff", b"\0\5"), [7, 0, 128, 255]),
    "16-bit colours": (
        file_of(16, 2, b"\0" + b"\0\5" * 3 + b"\5\0" * 3 + b"\x80\1" * 3 + b"\xff\xff" * 3, b"\x80\1" * 3),
        [0, 5, 7, 255],
    ),
    "small 16-bit colours": (
        file_of(16, 2, b"\0" + b"\0\5" * 3 + b"\5\0" * 3 + b"\x80\1" * 3 + b"\xff\xff" * 3, b"\0\5" * 3),
        [7, 5, 128, 255],
    ),
}


@pytest.mark.parametrize("depth", FILES)
def test_transparent_colours_of_other_depths(depth):
    """Pillow scales the pixels to 8 bits, but gives the transparent colour as the file has it."""
    content, expected = FILES[depth]
    got, _ = open_image(content, background=(7, 7, 7))
    assert np.asarray(got).tolist() == [[[one] * 3 for one in expected]]
    processor = ps3c.PS3ImageProcessor(image_size=(1, 4), mean=0.5, std=0.5, background=(7, 7, 7))
    pixels = processor(Image.open(io.BytesIO(content)))["pixel_values"][0]
    assert torch.equal(pixels, processor(got)["pixel_values"][0])


@pytest.mark.parametrize("transparency", [(1, 2), (1, 2, "x"), "red", -1, 1 << 40, b"\0" * 300, None, 2.5, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "I;16"])
def test_damaged_transparency_is_none(mode, transparency):
    """It is no reason to refuse an image."""
    if mode == "I;16":
        image = LOOK_ALIKE["16 bits"].copy()
    else:
        image = INDEXED.copy() if mode == "P" else RGB.convert(mode)
    image.info["transparency"] = transparency
    assert open_image(image)[0].size == image.size and image.info["transparency"] == transparency
    if not isinstance(transparency, (int, bytes)):
        expected = GREY if mode == "I;16" else image.copy()
        expected.info.pop("transparency", None)
        assert np.array_equal(open_image(image)[0], expected.convert("RGB"))


def test_opened_images_are_opaque(encoder):
    """A second use of an opened image changes nothing: it has no transparent colour any more."""
    index = np.zeros((20, 20), np.uint8)
    index[5:] = 1  # black twice: visible, and transparent in an entry that no pixel has
    image = Image.frombytes("P", (20, 20), index.tobytes())
    image.putpalette([0, 0, 0, 200, 100, 50, 0, 0, 0])
    image.info["transparency"] = 2
    once, _ = open_image(image)
    assert "transparency" not in once.info and np.asarray(once)[0, 0].tolist() == [0, 0, 0]
    assert np.array_equal(open_image(once)[0], once) and image.info["transparency"] == 2
    assert torch.equal(vector(encoder, once), vector(encoder, image))
    for mode, unused in (("RGB", (1, 254, 3)), ("L", 200), ("1", 0)):
        image = Image.new(mode, (9, 9), 255)
        image.info["transparency"] = unused
        for call in (open_image, open_upright):
            assert "transparency" not in call(image)[0].info


# ---- orientation, profiles, frames -----------------------------------------------------------------------------------


def sideways() -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = 6
    return opened(RGB.rotate(90, expand=True), exif=exif)


@pytest.mark.parametrize("background", [None, "white"])
def test_orientation(encoder, background):
    """The one-call API applies it, the processor does not."""
    assert torch.equal(vector(encoder, sideways()), vector(encoder, RGB))
    turned = values(encoder, RGB.rotate(90, expand=True), background)
    assert torch.equal(values(encoder, sideways(), background), turned)
    assert not torch.equal(turned, values(encoder, RGB, background))
    assert torch.equal(values(encoder, ImageOps.exif_transpose(sideways()), background), values(encoder, RGB))


def test_orientation_of_transparent_images(encoder):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = with_alpha(RGB, alpha_channel())
    turned = opened(image.rotate(90, expand=True), exif=exif)
    assert torch.equal(vector(encoder, turned, background="red"), vector(encoder, image, background="red"))


@pytest.mark.parametrize("background", [None, "white"])
def test_colour_profiles_are_ignored(encoder, background):
    """A profile that exchanges red and blue. A program that applied it would show another picture."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"tmp.", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"tmp.", b"bXYZ", 1)
    applied = ImageCms.profileToProfile(
        RGB, ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    )
    assert np.abs(np.asarray(applied, np.int64) - np.asarray(RGB)).mean() > 20
    image = opened(RGB, icc_profile=profile)
    assert image.info["icc_profile"] == profile
    assert torch.equal(values(encoder, image, background), values(encoder, RGB))
    assert torch.equal(vector(encoder, png(RGB, icc_profile=profile)), vector(encoder, RGB))


@pytest.mark.parametrize("background", [None, "white"])
def test_frames(encoder, tmp_path, background):
    """The first of a file; of an opened image, the one at which it stands."""
    frames = [photograph(60, 40, seed) for seed in range(3)]
    path = tmp_path / "pages.tiff"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert torch.equal(vector(encoder, path), vector(encoder, frames[0]))
    image = Image.open(path)
    for number in (0, 2):
        image.seek(number)
        assert torch.equal(vector(encoder, image), vector(encoder, frames[number]))
        assert torch.equal(values(encoder, image, background), values(encoder, frames[number]))


# ---- the option ------------------------------------------------------------------------------------------------------


def test_every_call_has_the_option(encoder, tmp_path):
    source, colours, alpha = transparent("RGBA", 10)
    black = Image.fromarray(composed(colours, alpha, (0, 0, 0)))
    option = dict(background="black")
    batch = next(encoder.embed_batches([source], looks=1, **option))
    assert torch.equal(batch.pooled, vector(encoder, black)) and np.array_equal(batch.thumbnails[0], black)
    for one, other in zip(encoder.looks(source, looks=1, **option), encoder.looks(black, looks=1), strict=True):
        assert torch.equal(one.features, other.features) and np.array_equal(one.image, black)
    labels = ["a ship", "a rope"]
    assert encoder.zero_shot(source, labels, **option) == encoder.zero_shot(black, labels)
    assert encoder.zero_shot(source, labels) != encoder.zero_shot(black, labels)


COLOURS = ["white", "WHITE", "#fff", "#FFFFFF", "#ffffffff", "rgb(255, 255, 255)", "hsl(0, 0%, 100%)", [255] * 3]


@pytest.mark.parametrize("colour", [*COLOURS, (np.uint8(255),) * 3], ids=str)
def test_colours(encoder, colour):
    source = transparent("RGBA", 10)[0]
    assert np.array_equal(open_image(source, background=colour)[0], open_image(source)[0])
    image = Image.open(io.BytesIO(source))
    assert torch.equal(values(encoder, image, colour), values(encoder, open_image(source)[0]))


NO_COLOURS = {
    "whit": ValueError,
    "": ValueError,
    "#12345": ValueError,
    "#ffffff80": ValueError,  # transparent itself
    "rgb(300, 0, 0)": ValueError,
    "hsl(0, 0%, 300%)": ValueError,
    "x" * 1000: ValueError,
    (1, 2): ValueError,
    (1, 2, 3, 255): ValueError,
    (0, 0, 256): ValueError,
    (0, 0, -1): ValueError,
    (0.5, 0.5, 0.5): TypeError,
    (True, True, True): TypeError,
    ("1", "2", "3"): TypeError,
    7: TypeError,
    None: TypeError,
}


@pytest.mark.parametrize("colour", NO_COLOURS, ids=lambda one: repr(one)[:20])
def test_no_colours(encoder, colour, tmp_path):
    message = (
        r"^background: got .{1,110}, expected an opaque colour such as 'white', '#rrggbb' or \(r, g, b\) of 0 to 255"
    )
    calls = [
        lambda: open_image(RGB, background=colour),
        lambda: open_upright(tmp_path / "none.png", background=colour),
        lambda: encoder.embed_images(RGB, background=colour),
        lambda: encoder.embed_batches(RGB, background=colour),
        lambda: encoder.looks(RGB, background=colour),
        lambda: encoder.zero_shot(RGB, ["a"], background=colour),
    ]
    if colour is not None:
        calls.append(lambda: ps3c.PS3ImageProcessor(image_size=8, background=colour))
        processor = ps3c.PS3ImageProcessor(image_size=8)
        processor.background = colour
        calls.append(lambda: processor(RGB))
    for call in calls:
        with pytest.raises(NO_COLOURS[colour], match=message):
            call()


def test_commands(encoder, ps3c_main, tiny_checkpoint, tmp_path):
    pytest.importorskip("matplotlib", reason="ps3c look needs the extra plot")
    path = tmp_path / "a.png"
    path.write_bytes(transparent("RGBA", 10)[0])
    model = ("-m", tiny_checkpoint, "--device", "cpu", "--dtype", "float32")
    for number, (options, background) in enumerate([((), "white"), (("--background", "#102030"), "#102030")]):
        out = tmp_path / f"{number}.npz"
        assert ps3c_main("embed", path, *model, "-o", out, *options)[0] == 0
        assert torch.equal(ps3c.load_features(out).pooled, vector(encoder, path, background=background))
        assert ps3c_main("look", path, *model, "-o", tmp_path / f"{number}.png", *options)[0] == 0
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()
    for command in ("embed", "look"):
        code, _, err = ps3c_main(command, path, *model, "-o", tmp_path / "c.npz", "--background", "whit")
        assert code == 2 and re.search(r"--background: got 'whit', expected an opaque colour such as 'white'", err)


def test_page(encoder, tmp_path, monkeypatch):
    pytest.importorskip("gradio", reason="the page needs the extra demo")
    pytest.importorskip("matplotlib", reason="the page needs the extra demo")
    from ps3c.page import server

    path, (source, colours, alpha) = tmp_path / "a.png", transparent("RGBA", 10)
    path.write_bytes(source)
    gradio = SimpleNamespace(skip=lambda: None, update=lambda **changes: changes)
    events = server._Events(gradio, encoder, None, "black")
    assert np.array_equal(server._opened(str(path), None, "black"), composed(colours, alpha, (0, 0, 0)))
    events.receive(str(path.rename(tmp_path / "a.tga")))  # a browser shows no such file
    assert np.array_equal(Image.open(tmp_path / "a.png"), composed(colours, alpha, (0, 0, 0)))
    with pytest.raises(ValueError, match="background: got 'whit'"):
        server.build(encoder, background="whit")

    seen = []
    events.encoder = SimpleNamespace(scales=[64, 128], looks=lambda image, *_, **__: seen.append(image) or iter(()))
    list(events.look(str(tmp_path / "a.tga"), "", 0))
    assert np.array_equal(seen.pop(), composed(colours, alpha, (0, 0, 0)))
    make = server._Events
    monkeypatch.setattr(server, "_Events", lambda *arguments: seen.append(arguments[-1]) or make(*arguments))
    server.build(encoder, background="#102030")
    monkeypatch.setattr(server, "build", lambda *_, background, **__: seen.append(background) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        server.serve(encoder, 0, background="black")
    assert seen == ["#102030", "black"]


# ---- the processor's setting -----------------------------------------------------------------------------------------


def test_the_setting_is_saved_only_if_it_is_set(tmp_path):
    image = with_alpha(RGB, alpha_channel())
    for colour, stored in ((None, None), ("#102030", "#102030"), ((16, 32, 48), [16, 32, 48])):
        processor = ps3c.PS3ImageProcessor(image_size=64, background=colour)
        processor.save_pretrained(tmp_path)
        written = json.loads((tmp_path / "preprocessor_config.json").read_text())
        assert written.get("background") == stored and ("background" in written) == (colour is not None)
        again = ps3c.PS3ImageProcessor.from_pretrained(tmp_path)
        assert again.background == processor.background == colour
        assert torch.equal(again(image)["pixel_values"][0], processor(image)["pixel_values"][0])
    assert ps3c.PS3ImageProcessor.from_pretrained(tmp_path, background=None).background is None
    assert ps3c.PS3ImageProcessor.from_pretrained(tmp_path, background="red").background == "red"
    assert "background" not in repr(ps3c.PS3ImageProcessor(image_size=8))


def test_the_setting_may_be_assigned():
    image = with_alpha(RGB, alpha_channel())
    processor = ps3c.PS3ImageProcessor(image_size=64)
    before = processor(image)["pixel_values"][0]
    processor.background = "black"
    assert torch.equal(
        processor(image)["pixel_values"][0],
        ps3c.PS3ImageProcessor(image_size=64, background=(0, 0, 0))(image)["pixel_values"][0],
    )
    processor.background = None
    assert torch.equal(processor(image)["pixel_values"][0], before)


def test_a_setting_of_a_folder_that_is_no_colour(tiny_checkpoint, tmp_path):
    shutil.copytree(tiny_checkpoint, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "preprocessor_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "background": "whit"}))
    with pytest.raises(ps3c.CheckpointError, match="preprocessor_config.json: background: got 'whit'"):
        ps3c.load(tmp_path, device="cpu")


def test_the_image_is_left_as_it_was():
    image = INDEXED.copy()
    image.info["transparency"] = bytes([0, 100])
    before, palette = image.tobytes(), image.getpalette("RGB")
    ps3c.PS3ImageProcessor(image_size=8, background="red")(image)
    open_image(image, background="red")
    assert (image.mode, image.tobytes(), image.getpalette("RGB")) == ("P", before, palette)
    assert image.info["transparency"] == bytes([0, 100]) and np.array_equal(image.convert("P"), INDEXED)


# ---- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="the sources are not beside the tests")
def test_the_table_has_these_rows():
    text = (ROOT / "docs" / "guides" / "images.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1].strip().lower() for line in text.splitlines() if line.startswith("| ")]
    for word in ("transparency", "palette", "1-bit", "grey", "16-bit", "cmyk", "exif", "icc", "frames"):
        assert [row for row in rows if word in row], word
