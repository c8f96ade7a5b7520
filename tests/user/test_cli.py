"""The whole `ps3c` command: help, exit codes, stdout and stderr. Every subcommand runs once in a separate process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from cli_support import environment, error_line, ps3c_main, run, spawn  # noqa: F401  (a fixture)

SUBCOMMANDS = ["models", "info", "embed", "text", "search", "look", "bench", "check", "doctor", "demo"]
HEAVY = ("torch", "numpy", "transformers", "PIL", "matplotlib", "gradio", "pyarrow")


def test_help_imports_nothing_heavy():
    """--help of ps3c and of every subcommand, in one process: exit code 0, and no torch in it."""
    program = f"""
import sys
sys.argv = ["/usr/bin/ps3c", "--help"]
from ps3c.cli import main
for words in [[], *[[name] for name in {SUBCOMMANDS}]]:
    assert main([*words, "--help"]) == 0, words
print([name for name in {HEAVY} if name in sys.modules])
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment())
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "[]"
    for name in SUBCOMMANDS:
        assert f"usage: ps3c {name}" in ended.stdout


def test_module_form_imports_nothing_heavy():
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ps3c", "--help"], capture_output=True, text=True, env=environment()
    )
    assert ended.returncode == 0 and "exit codes" in ended.stdout
    assert not [name for name in HEAVY if f"| {name}\n" in ended.stderr or f" {name}\n" in ended.stderr]


@pytest.mark.parametrize(
    "argv, original, running",
    [
        (["/usr/local/bin/ps3c", "info"], ["python", "/usr/local/bin/ps3c", "info"], True),
        (["-m", "info"], ["python", "-m", "ps3c", "info"], True),
        (["-m"], ["python", "-X", "dev", "-m", "ps3c"], True),
        (["-m"], ["python", "-m", "mine.train"], False),
        (["train.py", "-m", "ps3c"], ["python", "train.py", "-m", "ps3c"], False),
        ([""], ["python"], False),
        ([], ["python"], False),
    ],
)
def test_who_is_the_command(monkeypatch, argv, original, running):
    from ps3c import _command

    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", original)
    assert _command.is_running() is running


def test_version(ps3c_main):
    import ps3c

    assert ps3c_main("--version") == (0, f"ps3c {ps3c.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "COMMAND"),
        (["paint"], "paint"),
        (["info"], "MODEL"),
        (["models", "x"], "x"),
        (["embed", "a.jpg", "-m", "x"], "-o"),
        (["embed", "a.jpg", "-m", "x", "-o", "a.csv"], "a.csv"),
        (["embed", "a.jpg", "-m", "x", "-o", "a.parquet", "--resume", "--force"], "--resume"),
        (["embed", "a.jpg", "-m", "x", "-o", "a.parquet", "--tokens"], ".parquet"),
        (["embed", "a.jpg", "-m", "x", "-o", "a.npz", "--looks", "2"], "--tokens"),
        (["embed", "a.jpg", "-m", "x", "-o", "a.npz", "--text", "boat"], "--tokens"),
        (["embed", "a.jpg", "-m", "x", "-o", "a.npz", "--looks", "1", "--num-tokens", "5"], "not allowed"),
        (["embed", "a.jpg", "-m", "x", "-o", "a.npz", "--looks", "-1"], "-1"),
        (["embed", "a.jpg", "-m", "x", "-o", "a.npz", "--looks", "some"], "some"),
        (["embed", "a.jpg", "-m", "x", "-o", "a.npz", "--batch-size", "0"], "0"),
        (["embed", "a.jpg", "-m", "x", "-o", "a.npz", "--dtype", "int8"], "int8"),
        (["text", "a", "-m", "x", "-o", "a.txt"], "a.txt"),
        (["text", "a", "-m", "x", "--device", "tpu"], "tpu"),
        (["look", "a.jpg", "-m", "x", "-o", "a.xyz"], "a.xyz"),
        (["demo", "-m", "x", "--port", "70000"], "70000"),
    ],
)
def test_usage_errors(ps3c_main, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = ps3c_main(*arguments)
    assert (code, out) == (2, "")
    assert words in error_line(err)
    assert not list(tmp_path.iterdir())


def test_no_colours_but_on_a_terminal(monkeypatch):
    from ps3c.cli import _console

    class Terminal:
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert _console.painted("x", "red", Terminal()) == "\033[31mx\033[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert _console.painted("x", "red", Terminal()) == "x"


# ---- every subcommand as a process ----------------------------------------------------------------------------------


def test_model_unusable(tmp_path):
    code, out, err = run("info", tmp_path)
    assert (code, out) == (4, "")
    assert str(tmp_path) in error_line(err) and "config.json" in err


def test_embed_with_a_bad_image(tiny_checkpoint, image_files, tmp_path):
    """Names come from stdin, and one is not an image. It is listed, the others are encoded, and the exit code is 3."""
    bad, out_file = tmp_path / "bad.jpg", tmp_path / "out.safetensors"
    bad.write_text("no image")
    names = "\n".join(map(str, [image_files[0], bad, image_files[1]]))
    code, out, err = run("embed", "-", "-m", tiny_checkpoint, "-o", out_file, "--json", input=names)
    assert code == 3
    assert json.loads(out)["images"] == 2
    assert "1 failed" in err and "Traceback" not in err
    [line] = (tmp_path / "out.safetensors.errors.jsonl").read_text().splitlines()
    assert json.loads(line)["name"] == str(bad) and "not an image" in json.loads(line)["error"]
    import ps3c

    assert ps3c.load_features(out_file).names == [str(image_files[0]), str(image_files[1])]


def test_interrupted(tiny_checkpoint, image_files, tmp_path):
    """Ctrl-C: exit code 130, one line on stderr, a valid output, and --resume continues it."""
    names = [tmp_path / f"{i:05}.jpg" for i in range(5000)]
    for name in names:
        name.symlink_to(image_files[0])
    out_file = tmp_path / "out.npz"
    # A shell's background job has Ctrl-C ignored, and so would a child of a test run in one.
    process = spawn(
        "embed",
        tmp_path,
        "-m",
        tiny_checkpoint,
        "-o",
        out_file,
        "-v",
        "--batch-size",
        1,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    line = process.stderr.readline()
    assert "loaded" in line, line + process.stderr.read()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == "", err
    assert "--resume encodes the missing ones" in err
    import ps3c

    done = len(ps3c.load_features(out_file))
    assert 0 < done < 5000
    assert sorted(path.name for path in tmp_path.glob("*out.npz*")) == ["out.npz"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_text_to_a_full_disk(tiny_checkpoint):
    with open("/dev/full", "w") as full:
        process = spawn("text", "a red boat", "-m", tiny_checkpoint, stdout=full)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert error_line(err) == "no space left on the disk"
    assert len(err.splitlines()) == 1


def test_search_look_and_check(tiny_checkpoint, encoder, image_files, tmp_path):
    features = tmp_path / "all.npz"
    encoder.embed_images(image_files).save(features)
    code, out, err = run("search", features, "-m", tiny_checkpoint, "--text", "a red boat", "-n", 2)
    assert code == 0, err
    lines = out.splitlines()
    assert len(lines) == 2 and lines[0].split()[1] in map(str, image_files)

    pytest.importorskip("matplotlib", reason="ps3c look needs the extra plot")
    code, out, err = run("look", image_files[0], "-m", tiny_checkpoint, "-o", tmp_path / "look.png")
    assert (code, out) == (0, ""), err
    assert (tmp_path / "look.png").read_bytes().startswith(b"\x89PNG")

    code, out, err = run("check", "--threads", 1)
    assert code == 0, err
    assert "all within their tolerance" in err and "failed" not in out and "C-RADIO, low resolution" in out


def test_bench(tiny_checkpoint):
    code, out, err = run("bench", "-m", tiny_checkpoint, "--runs", 1, "--seconds", 0, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert [row["what"] for row in report["rows"]] == ["low resolution", "1 look", "2 looks", "text"]
    assert [row["tokens"] for row in report["rows"]] == [16, 96, 176, 32]
    assert all(row["best_s"] > 0 and row["per_second"] > 0 for row in report["rows"])


def test_doctor():
    code, out, err = run("doctor", "--json")
    assert code == 0, err
    report = json.loads(out)
    from ps3c import _core

    assert report["level"] == _core.cpu_level() and report["packages"]["torch"]
    assert (report["cuda"] == "usable") == (_core.cuda_error() is None)
    assert "tensor, but" not in report["cuda"]


def test_default_of_max_pixels():
    from PIL import Image

    code, out, _ = run("embed", "--help")
    assert code == 0 and f"Pillow's limit, {Image.MAX_IMAGE_PIXELS:,})" in " ".join(out.split())


def test_demo_at_a_taken_port(tiny_checkpoint):
    pytest.importorskip("gradio", reason="ps3c demo needs the extra demo")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        code, out, err = run("demo", "-m", tiny_checkpoint, "--port", port)
    assert (code, out) == (1, "")
    assert f"port {port}" in error_line(err)
