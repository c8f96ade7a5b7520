"""Two processes that write one output: the second is refused, and no rows are lost."""

import os
import signal
import subprocess
import sys

import pytest
from cli_support import environment, error_line, ps3c_main  # noqa: F401  (a fixture)

import ps3c
from ps3c.cli import _lock
from ps3c.features import files

HOLDER = """
import sys, time
from ps3c.cli._lock import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def embed(ps3c_main, tiny_checkpoint):
    return lambda *arguments: ps3c_main("embed", "-m", tiny_checkpoint, "--dtype", "float32", *arguments)


@pytest.fixture
def holder():
    """Starts a process that holds the lock of a path, as a running `ps3c embed` does."""
    running = []

    def start(path):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True, env=environment()
        )
        running.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.mark.parametrize("name", ["out.npz", "out.safetensors", "out"])
@pytest.mark.parametrize("option", [None, "--force", "--resume"])
def test_the_second_writer_is_refused(embed, holder, image_files, tmp_path, name, option):
    out = tmp_path / name
    first = holder(out)
    code, stdout, err = embed(image_files[0], "-o", out, *([option] if option else []))
    assert (code, stdout) == (1, "")
    assert f"{out}: another ps3c embed (process {first.pid} on " in error_line(err)
    assert not out.exists() and not os.path.exists(f"{out}.errors.jsonl")


def test_two_commands_at_a_time(embed, image_files, tiny_checkpoint, tmp_path):
    """Both start on a new output. Whichever comes second is refused and leaves the other's rows alone."""
    out = tmp_path / "out.npz"
    command = [sys.executable, "-m", "ps3c", "embed", "-m", tiny_checkpoint, "-o", out]
    both = [
        subprocess.Popen([*command, image], stderr=subprocess.PIPE, text=True, env=environment())
        for image in image_files[:2]
    ]
    said = [process.communicate(timeout=120)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 1], said
    assert ps3c.load_features(out).names == [str(image_files[codes.index(0)])]
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_other_names_of_one_output(embed, holder, image_files, tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    holder(real / "out.npz")
    assert embed(image_files[0], "-o", link / "out.npz")[0] == 1
    holder(real)
    assert embed(image_files[0], "-o", link)[0] == 1
    assert embed(image_files[0], "-o", f"{real}/")[0] == 1
    assert embed(image_files[0], "-o", real / "other.npz")[0] == 0


def test_a_stale_lock_refuses_nobody(embed, holder, image_files, tmp_path):
    out = tmp_path / "out.npz"
    process = holder(out)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.path.exists(_lock.lock_file(str(out)))
    code, _, err = embed(image_files[0], "-o", out)
    assert code == 0, err
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_a_name_of_greatest_length(embed, image_files, tmp_path):
    assert embed(image_files[0], "-o", tmp_path / ("n" * 230 + ".npz"))[0] == 0


def test_a_lock_file_that_cannot_be_opened(embed, image_files, tmp_path):
    out = tmp_path / "out.npz"
    os.symlink(tmp_path / "elsewhere", _lock.lock_file(str(out)))
    code, _, err = embed(image_files[0], "-o", out)
    assert code == 1 and "lock file" in error_line(err)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("command", ["text", "embed"])
def test_a_file_that_appears_during_the_run(ps3c_main, tiny_checkpoint, image_files, tmp_path, monkeypatch, command):
    """Another program's file is not replaced either."""
    out = tmp_path / "out.npz"
    check_target = files._check_target

    def check(path, overwrite):
        check_target(path, overwrite)
        out.write_text("mine")  # after the last check

    monkeypatch.setattr(files, "_check_target", check)
    what = "a ship" if command == "text" else image_files[0]
    code, _, err = ps3c_main(command, what, "-m", tiny_checkpoint, "-o", out)
    assert code == 1 and "exists" in error_line(err)
    assert out.read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_the_lock_of_one_process_ends_with_its_block(tmp_path):
    path = str(tmp_path / "out")
    for _ in range(3):
        with _lock.locked(path):
            with pytest.raises(Exception, match="another ps3c embed"), _lock.locked(path):
                pass
    assert not list(tmp_path.iterdir())


def test_many_that_take_turns(tmp_path):
    """The lock file is removed and created again all the time: never do two processes hold the lock."""
    code = """
import os, sys, time
from ps3c.cli._errors import CommandError
from ps3c.cli._lock import locked
end, count = time.monotonic() + 2, 0
while time.monotonic() < end:
    try:
        with locked(sys.argv[1]):
            os.close(os.open(sys.argv[1] + ".alone", os.O_CREAT | os.O_EXCL))
            os.unlink(sys.argv[1] + ".alone")
            count += 1
    except CommandError:
        pass
print(count)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    several = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) for _ in range(4)]
    counts = [int(process.communicate(timeout=60)[0]) for process in several]
    assert all(process.returncode == 0 for process in several) and sum(counts) > 10
    assert not list(tmp_path.iterdir())
