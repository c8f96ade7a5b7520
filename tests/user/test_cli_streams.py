"""`ps3c` with closed, broken or strange streams, and under python -W error."""

import os
import subprocess
import sys

import pytest
from cli_support import environment, error_line


@pytest.fixture
def shell(tiny_checkpoint, image_files, tmp_path):
    """Runs a shell line in which {ps3c} is the command, {m} the model and {image} a file: (code, stdout, stderr)."""

    def run(line, **more):
        words = {"ps3c": f"{sys.executable} -m ps3c", "m": tiny_checkpoint, "image": image_files[0], "t": tmp_path}
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line.format(**words)}"],
            capture_output=True,
            env=environment(),
            timeout=120,
            **more,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


@pytest.mark.parametrize(
    "line, code",
    [
        ("{ps3c} info {m} >&-", 1),
        ("{ps3c} info {m} --json >&- 2>&-", 1),
        ("{ps3c} info {t}/nowhere 2>&-", 4),
        ("{ps3c} info {t}/nowhere >&- 2>&-", 4),
        ("{ps3c} embed {image} -m {m} -o {t}/out.npz <&- >&- 2>&-", 0),
        ("{ps3c} embed - -m {m} -o {t}/out.npz <&-", 2),
        ("{ps3c} text - -m {m} <&-", 2),
        ("{ps3c} frob >&- 2>&-", 2),
    ],
)
def test_closed_streams(shell, line, code, tmp_path):
    got, _, err = shell(line)
    assert got == code and "Traceback" not in err and err.count("error") <= 1
    if code == 1 and err:
        assert error_line(err) == "stdout is closed, so the result cannot be printed"
    if "embed {image}" in line:  # its messages went nowhere, not into a file
        import ps3c

        assert len(ps3c.load_features(tmp_path / "out.npz")) == 1


def test_a_reader_that_ends_early(shell):
    """`| head` has what it wanted: no error."""
    code, out, err = shell("seq 3000 | {ps3c} text - -m {m} | head -n 1")
    assert code == 0 and out.startswith('{{"text": "1"'.replace("{{", "{")) and err == ""
    code, out, err = shell("(echo {image}; seq 40) | {ps3c} embed - -m {m} -o {t}/out.npz 2>&1 | head -n 1")
    assert code == 3 and out.startswith("ps3c: warning: ")  # the work went on


def test_bytes_on_stdin_do_not_reach_the_terminal(shell):
    strange = b"".join(b"\x1b]0;owned\x07\x9b2J\r\xff" + bytes([65 + i % 26]) * i + b"\n" for i in range(1, 500))
    code, out, err = shell("{ps3c} embed - -m {m} -o {t}/out.npz", input=strange)
    assert code == 3 and len(err.splitlines()) < 30 and len(err) < 20_000
    assert all(character.isprintable() or character == "\n" for character in out + err)
    assert "more images that fail are only listed in" in err and " failed, listed in" in err
    code, out, err = shell("{ps3c} text - -m {m}", input=strange)
    assert code == 2 and error_line(err) == "TEXT: got bytes on stdin that are not UTF-8, expected text"


def test_names_with_control_characters(shell, image_files, tmp_path):
    name = os.fsencode(tmp_path / "a\x1b[31m\u009b.jpg")
    os.link(image_files[0], name)
    assert shell("{ps3c} embed {t} -m {m} -o {t}/out.npz")[0] == 0
    code, out, _ = shell("{ps3c} search {t}/out.npz -m {m} --text 'a dog'")
    assert code == 0 and "a\\x1b[31m\\x9b.jpg" in out and "\x1b" not in out and "\x9b" not in out


@pytest.mark.parametrize(
    "line", ["info {m}", "text 'a dog' -m {m}", "embed {image} -m {m} -o {t}/out.npz --tokens --looks 1", "doctor"]
)
def test_warnings_as_errors(shell, line):
    code, _, err = shell(f"{sys.executable} -W error -m ps3c {line}")
    assert code == 0 and "Traceback" not in err and "warning:" not in err, err
