"""Malformed images: truncated, flipped bytes, no content, huge declared sizes, bombs of pixels and of text.

100 malformed files and 100 good ones of odd modes go, mixed, through embed_images, PS3ImageProcessor and `ps3c embed`.
What must hold: Pillow, called by the test, says whether a file has pixels. A file without is refused by an ImageError
that names it; all others have the vector that they have alone, bit for bit. Pillow's globals stay as they are, and
bombs take little memory.
"""

import base64
import io
import json
import random
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import image_files
import pytest
import torch
from cli_support import environment, ps3c_main  # noqa: F401  (a fixture)
from PIL import Image, ImageFile, PngImagePlugin
from support import SEED, paths, trials

import ps3c

HERE = Path(__file__).resolve().parent
COUNT = trials(100)
MOST_BYTES = 100 << 20  # that all bombs together may add to the peak of memory
GLOBALS = (
    (Image, "MAX_IMAGE_PIXELS"),
    (ImageFile, "LOAD_TRUNCATED_IMAGES"),
    (ImageFile, "MAXBLOCK"),
    (PngImagePlugin, "MAX_TEXT_CHUNK"),
    (PngImagePlugin, "MAX_TEXT_MEMORY"),
)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(autouse=True)
def _globals():
    before = [getattr(module, name) for module, name in GLOBALS]
    yield
    assert [getattr(module, name) for module, name in GLOBALS] == before


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of one run; (path, has Pillow pixels for it?) in random order."""
    where = tmp_path_factory.mktemp("files")
    kinds = (("good", image_files.GOOD), ("malformed", image_files.MALFORMED))
    paths = []
    for kind, makers in kinds:
        for name, content in image_files.files(makers, COUNT, f"{SEED}/{kind}"):
            path = where / f"{kind}-{name}"
            path.write_bytes(content)
            paths.append(path)
    random.Random(SEED).shuffle(paths)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return where, {path: has_pixels(path) for path in paths}


def has_pixels(path) -> bool:
    """Does Pillow decode the file, within its limit of pixels, to a mode that converts to RGB?"""
    try:
        with Image.open(path) as image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                return False
            image.load()
            image.convert("RGB")
            return True
    except MemoryError:
        raise
    except Exception:
        return False


@pytest.fixture(scope="module")
def alone(folder, small):
    """Each file's vector alone, or its ImageError."""
    return {path: outcome(small, path) for path in folder[1]}


def outcome(encoder, source):
    """The vector of one image, or its ImageError."""
    try:
        return encoder.embed_images(source, progress=False).pooled[0]
    except ps3c.ImageError as error:
        return error


@pytest.fixture(scope="module")
def small(tiny_checkpoint):
    return ps3c.load(tiny_checkpoint, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def tiny_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    runpy.run_path(str(HERE.parents[1] / "examples" / "make_checkpoint.py"))["write_checkpoint"](path, tiny=True)
    return path


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.numpy().tobytes() == second.numpy().tobytes()


def test_alone(folder, alone, figures):
    for path, pixels in folder[1].items():
        result = alone[path]
        if not pixels and not isinstance(result, ps3c.ImageError):
            figures.failed(f"{path.name}: accepted, but Pillow has no pixels for it")
        elif pixels and isinstance(result, ps3c.ImageError):
            figures.failed(f"{path.name}: refused, but Pillow decodes it: {result}")
        elif not pixels and (result.name != str(path) or not 5 < len(result.reason) < 400 or "\n" in str(result)):
            figures.failed(f"{path.name}: refused as {str(result)[:500]!r}")
        elif pixels and not torch.isfinite(result).all():
            figures.failed(f"{path.name}: a vector that is not finite")
        else:
            figures.passed()
    refused = sum(isinstance(one, ps3c.ImageError) for one in alone.values())
    assert all(pixels for path, pixels in folder[1].items() if path.name.startswith("good"))
    assert refused > COUNT // 2
    figures.finish(refused=refused)


def sources(paths) -> list:
    """The files in turn as a path, bytes, a file object, base64 in a data: URL, a row of a data set."""
    made = []
    for number, path in enumerate(paths):
        content = path.read_bytes()
        url = "data:image/png;base64," + base64.b64encode(content).decode()
        row = {"bytes": content, "path": str(path)}
        made.append((path, content, io.BytesIO(content), bytearray(content), url, row)[number % 6])
    return made


def test_together_from_all_sources(folder, alone, small, figures):
    """One call with all of them: the refused ones are errors in order, the others' vectors are those of each alone."""
    paths = list(folder[1])
    given = sources(paths)
    # Pillow reads some files in another way than bytes: it maps them.
    each = [
        alone[path] if source is path else outcome(small, source) for path, source in zip(paths, given, strict=True)
    ]
    for size in (1, 7):
        features = small.embed_images(given, on_error="skip", batch_size=size, progress=False)
        vectors, errors = iter(zip(features.names, features.pooled, strict=True)), iter(features.errors)
        for number, (path, expected) in enumerate(zip(paths, each, strict=True)):
            names = (str(path), f"image {number}")
            if isinstance(expected, ps3c.ImageError):
                error = next(errors, None)
                same_error = error is not None and error.name in names and error.reason == expected.reason
                figures.passed() if same_error else figures.failed(f"{path.name}: {error!r}, alone {expected!r}")
            else:
                name, vector = next(vectors, (None, None))
                same_one = name in names and same(vector, expected)
                figures.passed() if same_one else figures.failed(f"{path.name}: another vector than alone; got {name}")
        if (next(errors, None), next(vectors, None)) != (None, None):
            figures.failed("more images or errors than files")
    figures.finish()


def test_processor(folder, small, figures):
    """What a caller opened with Pillow: pixels, or an exception that names the file; never another kind."""
    for path, pixels in folder[1].items():
        try:
            image = Image.open(path)
        except Exception:
            continue
        with image:
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                continue  # the caller was warned by Pillow
            try:
                values = small.processor(image)["pixel_values"][0]
            except ps3c.ImageError as error:
                if pixels and not image.mode.startswith("I;16"):
                    figures.failed(f"{path.name}: refused, but Pillow decodes it: {error}")
                elif error.name != str(path) or len(str(error)) > len(str(path)) + 400:
                    figures.failed(f"{path.name}: {str(error)[:500]}")
                else:
                    figures.passed()
            except Exception as error:
                figures.failed(f"{path.name}: {type(error).__name__}: {error}")
            else:
                whole = torch.isfinite(values).all() and tuple(values.shape[:1]) == (3,)
                figures.passed() if pixels and whole else figures.failed(f"{path.name}: has values")
    figures.finish()


def test_embed(folder, alone, ps3c_main, tiny_checkpoint, tmp_path, figures):
    """`ps3c embed FOLDER`: code 3, the refused files are listed with their reasons, the others are in OUT."""
    where, files = folder
    out = tmp_path / "out.npz"
    code, _, err = ps3c_main("embed", "-m", tiny_checkpoint, "--dtype", "float32", where, "-o", out)
    refused = {str(path): one.reason for path, one in alone.items() if isinstance(one, ps3c.ImageError)}
    listed = [json.loads(line) for line in open(f"{out}.errors.jsonl", encoding="utf-8")]
    if code != 3 or "Traceback" in err:
        figures.failed(f"exit code {code}: {err[-500:]}")
    if {entry["name"]: entry["error"] for entry in listed} != refused or len(listed) != len(refused):
        figures.failed(f"{len(listed)} files listed, expected {len(refused)} with the reasons of each alone")
    features = ps3c.load_features(out)
    if sorted(features.names) != sorted(str(path) for path in files if str(path) not in refused):
        figures.failed("another set of names in OUT")
    vectors = {str(path): one for path, one in alone.items()}
    for name, vector in zip(features.names, features.pooled, strict=True):
        figures.passed() if same(vector, vectors[name]) else figures.failed(f"{name}: another vector than alone")
    figures.finish(refused=len(refused))


BOMBS = """
import json, resource, sys, warnings
import image_files, ps3c
warnings.simplefilter("ignore")
encoder = ps3c.load(sys.argv[1], device="cpu", dtype="float32")
bombs = [content for _, content in image_files.files(image_files.BOMBS, int(sys.argv[2]), sys.argv[3])]
encoder.embed_images(image_files.saved(image_files.picture(__import__("random").Random(1)), "PNG"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
accepted = []
for number, bomb in enumerate(bombs):
    try:
        encoder.embed_images(bomb)
        accepted.append(number)
    except ps3c.ImageError:
        pass
print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, accepted]))
"""


def test_memory_of_bombs(tiny_checkpoint, figures):
    path = [str(HERE), str(HERE.parent), environment()["PYTHONPATH"], *paths()]
    command = [sys.executable, "-c", BOMBS, str(tiny_checkpoint), str(trials(32)), str(SEED)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=environment(PYTHONPATH=":".join(path))
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kilobytes, accepted = json.loads(done.stdout.splitlines()[-1])
    for number in range(trials(32)):
        figures.failed(f"bomb {number} was accepted") if number in accepted else figures.passed()
    if 1024 * kilobytes > MOST_BYTES:
        figures.failed(f"the peak of memory grew by {kilobytes >> 10} MiB")
    figures.finish(MiB_at_the_peak=kilobytes >> 10)
