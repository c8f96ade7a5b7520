"""The C library as a C program meets it: installed, found by pkg-config, and ps3c-encode against the Python package."""

import json
import os
import re
import runpy
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ps3c

ROOT = Path(__file__).resolve().parent.parent
CC = os.environ.get("CC", "cc").split()[0]

pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("make", "pkg-config", CC)),
    reason="the library is built with make and a C compiler and found by pkg-config, and one of them is missing",
)


def environment(**changes):
    # A sanitized Python preloads libasan; the compiler and the program must not inherit it.
    clean = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return {**clean, **changes}


def run(*command, **changes):
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env=environment(**changes), timeout=120
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("c")
    made = run(
        *("make", "-s", "-j2", "-C", ROOT / "csrc", "install", f"BUILD={folder}/build", f"PREFIX={folder}/prefix"),
        "CFLAGS=-O2 -Werror",
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return folder / "prefix"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    runpy.run_path(str(ROOT / "examples" / "make_checkpoint.py"))["write_checkpoint"](folder, tiny=True)
    return folder


def picture(path, mode="RGB", size=(317, 190), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], len(mode)), np.uint8)
    smooth = Image.fromarray(np.squeeze(pixels), mode).resize((size[0] // 8, size[1] // 8)).resize(size)
    smooth.save(path)
    return path


@pytest.fixture
def encode(installed, model, tmp_path):
    def encode(image, *options, folder=model, **changes):
        output = tmp_path / "features.safetensors"
        done = run(installed / "bin" / "ps3c-encode", folder, image, "-o", output, "--force", *options, **changes)
        return done, ps3c.load_features(output) if done.returncode == 0 else None

    return encode


def assert_same(features, expected):
    assert features.names == expected.names and features.sizes == expected.sizes and features.scales == expected.scales
    assert features.grids == expected.grids and features.patch_size == expected.patch_size
    for name in ("tokens", "positions", "look"):
        got, wanted = getattr(features, name), getattr(expected, name)
        assert (got is None and wanted is None) or torch.equal(got, wanted), name
    for name in ("selection_maps", "selection_probs"):
        for got, wanted in zip(getattr(features, name) or [], getattr(expected, name) or [], strict=True):
            assert torch.equal(got, wanted), name


# ---- ps3c-encode -----------------------------------------------------------------------------------------------------

REQUESTS = [
    ((), {}),
    (("--looks", "0"), {"looks": 0}),
    (("--looks", "2"), {"looks": 2}),
    (("--looks", "all"), {"looks": "all"}),
    (("--tokens", "70"), {"tokens": 70}),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("options, request_", REQUESTS, ids=lambda value: " ".join(value) if value else "vector")
def test_features_are_those_of_python(encode, model, tmp_path, options, request_, dtype):
    image = picture(tmp_path / "image.ppm")
    encoder = ps3c.load(model, device="cpu", dtype=dtype)
    expected = encoder.embed_images(image, maps=bool(request_), normalize=False, **request_)
    done, features = encode(image, *options, "--dtype", dtype, "--raw")
    assert done.returncode == 0, done.stderr
    assert_same(features, expected)
    assert torch.equal(features.pooled, expected.pooled.float())
    _, scaled = encode(image, *options, "--dtype", dtype)
    assert torch.equal(scaled.pooled, scale_to_length_1(features.pooled))


def scale_to_length_1(vectors):
    values = vectors.numpy()
    lengths = np.sqrt((values.astype(np.float64) ** 2).cumsum(-1)[:, -1:]).astype(np.float32)
    return torch.from_numpy(values / np.maximum(lengths, np.float32(1e-12)))


def test_prompt(encode, model, tmp_path):
    image, encoder = picture(tmp_path / "image.ppm"), ps3c.load(model, device="cpu", dtype="float32")
    text = "a green rope"
    prompt = encoder.embed_texts(text).prompt
    expected = encoder.embed_images(image, text, looks=1, maps=True, normalize=False)
    for shape in ((1, 64), (64,)):
        np.save(tmp_path / "prompt.npy", prompt.numpy().reshape(shape))
        done, features = encode(
            image, "--looks", "1", "--prompt", tmp_path / "prompt.npy", "--dtype", "float32", "--raw"
        )
        assert done.returncode == 0, done.stderr
        assert_same(features, expected)
    np.save(tmp_path / "prompt.npy", prompt.numpy().astype(np.float64))
    done, _ = encode(image, "--looks", "1", "--prompt", tmp_path / "prompt.npy")
    assert done.returncode == 1 and "another dtype, expected float32" in done.stderr


def readable(installed):
    return run(installed / "bin" / "ps3c-encode", "--help").stdout.rsplit("image formats: ", 1)[1].split(",")


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("suffix", ["ppm", "png", "jpg"])
def test_formats(installed, encode, model, tmp_path, suffix, mode):
    known = {"ppm": "PPM", "png": "PNG", "jpg": "JPEG"}[suffix]
    image = picture(tmp_path / f"image.{suffix}", mode)
    done, features = encode(image, "--raw")
    if known not in map(str.strip, readable(installed)):
        assert done.returncode == 3 and re.search(rf"got {known}, expected PPM, PGM", done.stderr)
        return
    assert done.returncode == 0, done.stderr
    expected = ps3c.load(model, device="cpu").embed_images(image, normalize=False)
    assert torch.equal(features.pooled, expected.pooled.float())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(installed, encode, model, tmp_path, orientation):
    if "JPEG" not in map(str.strip, readable(installed)):
        pytest.skip("ps3c-encode was built without libjpeg-turbo, which pkg-config did not find")
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.open(picture(tmp_path / "image.png", size=(160, 90)))
    image.save(tmp_path / "image.jpg", exif=exif)
    done, features = encode(tmp_path / "image.jpg", "--raw")
    expected = ps3c.load(model, device="cpu").embed_images(tmp_path / "image.jpg", normalize=False)
    assert done.returncode == 0 and features.sizes == expected.sizes
    assert torch.equal(features.pooled, expected.pooled.float())


def png_forms(path):
    """PNG files of each kind of pixels, by name."""
    image = Image.open(picture(path, "RGBA"))
    grey = np.asarray(image.convert("L"))
    wide = np.random.default_rng(1).integers(0, 65536, (60, 80), np.uint16)
    palette = image.convert("RGB").quantize(16)
    yield "RGBA", image, {}
    yield "LA", image.convert("LA"), {}
    yield "palette", palette, {}
    yield "palette with an index", palette, {"transparency": 3}
    yield "palette with bytes", palette, {"transparency": bytes([0, 40, 255, 128])}
    yield "RGB with a colour", palette.convert("RGB"), {"transparency": palette.convert("RGB").getpixel((5, 5))}
    yield "L with a value", Image.fromarray(grey), {"transparency": int(grey[3, 3])}
    yield "1 bit", image.convert("1"), {}
    yield "16 bits", Image.fromarray(wide), {}


def test_every_kind_of_png(installed, encode, model, tmp_path):
    if "PNG" not in map(str.strip, readable(installed)):
        pytest.skip("ps3c-encode was built without libpng, which pkg-config did not find")
    encoder = ps3c.load(model, device="cpu")
    for name, image, options in png_forms(tmp_path / "first.png"):
        image.save(tmp_path / "image.png", **options)
        done, features = encode(tmp_path / "image.png", "--raw")
        assert done.returncode == 0, done.stderr
        expected = encoder.embed_images(tmp_path / "image.png", normalize=False)
        assert torch.equal(features.pooled, expected.pooled.float()), name


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "no known image format"),
        (b"P6\n3 3\n255\n" + bytes(26), "it is truncated"),
        (b"P6\n3 3\n65535\n" + bytes(27), "it is truncated"),
        (b"P5\n# a comment\n3 3\n65535\n" + bytes(17), "it is truncated"),
        (b"P6\n3\n", "its header is damaged"),
        (b"P6\n0 3\n255\n", "got 0 x 3 pixels"),
        (b"P6\n999999 999999\n255\n", "got 999999 x 999999 pixels"),
        (b"P6\n99999999999999999999 1\n255\n", "pixels, expected"),
        (b"\xff\xd8\xff\xe0nothing", "cannot be read|got JPEG"),
        (b"\x89PNG\r\n\x1a\nnothing", "cannot be read|got PNG"),
    ],
)
def test_bad_images(encode, tmp_path, content, said):
    path = tmp_path / "bad"
    path.write_bytes(content)
    done, _ = encode(path)
    assert done.returncode == 3 and re.search(said, done.stderr) and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "options, code, said",
    [
        (("--looks", "-5"), 2, "--looks: got '-5', expected a number from 0"),
        (("--looks", "2", "--tokens", "3"), 2, "got both"),
        (("--dtype", "int8"), 2, "expected float32, float16 or bfloat16"),
        (("--unknown",), 2, "usage: "),
        (("--prompt", "x.npy"), 2, "without --looks or --tokens"),
    ],
)
def test_bad_arguments(encode, tmp_path, options, code, said):
    done, _ = encode(picture(tmp_path / "image.ppm"), *options)
    assert done.returncode == code and said in done.stderr


def test_output_is_never_half_written(installed, model, tmp_path):
    image, output = picture(tmp_path / "image.ppm"), tmp_path / "out.safetensors"
    program = installed / "bin" / "ps3c-encode"
    output.write_text("mine")
    done = run(program, model, image, "-o", output)
    assert done.returncode == 1 and "exists; --force replaces it" in done.stderr and output.read_text() == "mine"
    output.unlink()
    full = subprocess.run(
        [
            "sh",
            "-c",
            'ulimit -f 1; trap "" XFSZ; exec "$@"',
            "sh",
            program,
            model,
            image,
            "-o",
            output,
            "--looks",
            "all",
        ],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert full.returncode == 1 and "File too large" in full.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.ppm"]


def test_odd_name(encode, tmp_path):
    done, features = encode(picture(tmp_path / 'a "b" \\ \t é.ppm'))
    assert done.returncode == 0 and features.names == [str(tmp_path / 'a "b" \\ \t é.ppm')]


def test_wrong_level(encode, tmp_path):
    done, _ = encode(picture(tmp_path / "image.ppm"), PS3C_CPU_LEVEL="pentium")
    assert done.returncode == 1 and "PS3C_CPU_LEVEL: got 'pentium'" in done.stderr


def test_damaged_folder(encode, model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    struct.pack_into("<Q", content, 0, 1 << 40)
    (folder / "model.safetensors").write_bytes(content)
    done, _ = encode(picture(tmp_path / "image.ppm"), folder=folder)
    assert done.returncode == 4 and "model.safetensors is truncated or damaged" in done.stderr


# ---- the library -----------------------------------------------------------------------------------------------------


def test_program_out_of_the_tree(installed, model, tmp_path):
    """A program that pkg-config links, with the shared library and --as-needed, and with the static one."""
    shutil.copy(ROOT / "examples" / "features.c", tmp_path)
    paths = dict(PKG_CONFIG_PATH=str(installed / "lib" / "pkgconfig"))
    for static in (False, True):
        flags = run("pkg-config", "--cflags", "--libs", *["--static"] * static, "ps3c", **paths).stdout.split()
        flags = [str(installed / "lib" / "libps3c.a") if static and flag == "-lps3c" else flag for flag in flags]
        built = run(CC, "-Wl,--as-needed", tmp_path / "features.c", *flags, "-o", tmp_path / "features")
        assert built.returncode == 0, built.stderr
        done = run(tmp_path / "features", model, LD_LIBRARY_PATH=str(installed / "lib"))
        assert done.returncode == 0, done.stderr
        assert re.search(r"176 tokens of 64 channels", done.stdout) and "scale 2: the first" in done.stdout
        needed = run("readelf", "-d", tmp_path / "features").stdout
        assert ("libps3c.so.0.1" in needed) is not static
    done = run(tmp_path / "features", tmp_path)
    assert done.returncode == 1 and "has no config.json" in done.stderr


def test_exports_only_its_functions(installed):
    names = run("nm", "-D", "--defined-only", installed / "lib" / "libps3c.so").stdout.splitlines()
    names = {line.split()[-1] for line in names}
    headers = "".join((ROOT / "csrc" / name).read_text() for name in ("ps3c.h", "ps3c_model.h"))
    assert names and all(name.startswith("ps3c_") and re.search(rf"\b{name}\b", headers) for name in names)
    assert {"ps3c_vision_run", "ps3c_model_encode", "ps3c_cpu_source", "ps3c_version"} <= names


def test_versions_agree(installed):
    assert run(installed / "bin" / "ps3c-encode", "--version").stdout == f"ps3c-encode {ps3c.__version__}\n"
    flags = dict(PKG_CONFIG_PATH=str(installed / "lib" / "pkgconfig"))
    assert run("pkg-config", "--modversion", "ps3c", **flags).stdout.strip() == ps3c.__version__
    manual = installed / "share" / "man" / "man1" / "ps3c-encode.1"
    assert f"ps3c {ps3c.__version__}" in manual.read_text()


def test_manual_names_every_option(installed):
    shown = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", run(installed / "bin" / "ps3c-encode", "--help").stdout, re.M))
    manual = (ROOT / "csrc" / "program" / "ps3c-encode.1").read_text().replace("\\-", "-")
    assert shown and all(option in manual for option in shown)


def test_metadata_is_json(encode, tmp_path):
    image = picture(tmp_path / "image.ppm")
    encode(image)
    content = (tmp_path / "features.safetensors").read_bytes()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0 and json.loads(header["__metadata__"]["ps3c"])["kind"] == "images"
