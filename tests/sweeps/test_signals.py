"""SIGINT at random moments of a load, a forward, a text forward, and a forward with large ground-truth maps.

KeyboardInterrupt is raised, and the next call of the same process gives the right bits. The time from SIGINT to
KeyboardInterrupt is a figure: it depends on how busy the machine is. The library installs no signal handler, and its
module imports no function that ends the process.
"""

import os
import random
import re
import select
import shutil
import signal
import subprocess
import time
import traceback
from pathlib import Path

import pytest
from forked import ROOT, SECONDS, alone, ended, fork, photographs, prepare, write_checkpoint
from support import SEED, trials

# A trunk of 768 channels. Its looks have up to 784 tokens, so batches of them make products of 10^10 operations.
BASE = dict(
    model_name="vit_base_patch16_siglip_224",
    hidden_size=768,
    img_size=None,
    ps3_scales=[224, 448, 896],
    select_based_on_layer=[0, 3, 6, 11],
    max_select_num=784,
    highres_selection_module_kernel_size=28,
    highres_selection_module_hidden_dim=128,
    highres_selection_module_out_dim=128,
)
BASE_TEXT = dict(vocab_size=32000, output_dim=768, prompt_proj_dim=768, width=768, heads=12, layers=4)


@pytest.mark.parametrize("size", ["large", "maps"])
def test_interrupted_calls(figures, tmp_path, size):
    alone(figures, "test_signals:calls", tmp_path, size, trials(8))
    figures.finish()


def test_no_handler_is_installed(figures, tmp_path):
    alone(figures, "test_signals:handlers", tmp_path)
    figures.finish()


# ---- calls, in the prepared process ----------------------------------------------------------------------------------


MOST_MILLISECONDS = 3000  # far more than was ever seen (131): the operation hears it, not only the next one


def calls(tally, folder, size, count):
    folder, large = Path(folder), size == "large"
    torch, ps3c = prepare()
    write_checkpoint(folder / "model", BASE if large else None, BASE_TEXT if large else None)
    encoder = ps3c.load(folder / "model", device="cpu", dtype="float32")
    vision = encoder.model.vision_model

    def pixels(images, side):
        return torch.rand(images, 3, side, side, generator=torch.Generator().manual_seed(1))

    hidden = {"output_hidden_states": True}  # which looks need

    def maps(shape, *strided):
        given = torch.ones(shape).expand(4, *strided)
        return vision(pixels(4, 64), num_look_close=1, gt_selection_maps=given, **hidden)

    def loaded():
        return ps3c.load(folder / "model").model.vision_model.state_dict()["trunk.norm.weight"].float()

    # What is interrupted, and what must then be right.
    pairs = {
        "load": (loaded, loaded),
        "forward": (
            lambda: vision(pixels(2, 896), num_look_close=4, **hidden),
            lambda: vision(pixels(1, 224), num_look_close=0, **hidden).last_hidden_state,
        ),
        "text": (
            lambda: encoder.embed_texts([f"boat {number}" for number in range(64)], batch_size=64),
            lambda: encoder.embed_texts("a red boat").pooled,
        ),
        "maps": (lambda: maps((1, 1, 1), 1, 2**36), lambda: maps((1, 8, 8), 8, 8).last_hidden_state),
    }
    for name in ("load", "forward", "text") if large else ("maps",):
        for busy in (False, True):
            interrupt(tally, torch, ps3c, f"{name}, {'busy' if busy else 'alone'}", *pairs[name], busy, int(count))


def raised_by_us(error: BaseException | None) -> bool:
    """Is the innermost frame of Python code in ps3c?"""
    return error is None or str(ROOT / "ps3c") in traceback.extract_tb(error.__traceback__)[-1].filename


def interrupt(tally, torch, ps3c, name, call, other, busy, count):
    """A child repeats a call until it is interrupted, then makes the other call, and tells both.

    An interrupt can be lost in another package: torch asks whether a tensor is a sequence, and takes KeyboardInterrupt
    for a no, then raises an error of its own. That trial ends there too, and is counted.
    """
    start, told = os.pipe()

    def child():
        torch.set_grad_enabled(False)
        torch.set_num_threads(1 if busy else 2)
        right = other()
        for _ in range(count):
            try:
                os.write(told, b"b")
                while True:
                    call()
            except KeyboardInterrupt:
                end = b"interrupted"
            except ps3c.CheckpointError as error:
                if raised_by_us(error.__cause__):
                    raise
                end = b"lost"
            at = time.monotonic_ns()
            same = torch.equal(other(), right)
            os.write(told, b"%-12s%020d" % (end if same else b"wrong", at))

    def spin():
        while True:
            pass

    def answer(length):
        """What the child tells; nothing if it has ended."""
        ready = select.select([start], [], [], SECONDS)[0]
        return os.read(start, length) if ready else b"nothing: it hangs"

    process = fork(child, seconds=count * SECONDS)
    os.close(told)
    spinning = fork(spin, seconds=count * SECONDS) if busy else None
    chance, late, lost, good = random.Random(SEED), [], 0, True
    for number in range(count):
        good = tally.check(answer(1) == b"b", f"{name}, trial {number}: the child does not begin")
        if not good:
            break
        time.sleep(chance.uniform(0.0, 0.5))
        sent = time.monotonic_ns()
        os.kill(process, signal.SIGINT)
        said = answer(32)
        good = tally.check(said[:12].strip() in (b"interrupted", b"lost"), f"{name}, trial {number}: SIGINT: {said}")
        if not good:
            break
        lost += said.startswith(b"lost")
        late.append((int(said[12:]) - sent) / 1e6)
    if spinning:
        os.kill(spinning, signal.SIGKILL)
        ended(spinning)
    if not good:
        os.kill(process, signal.SIGKILL)
    code = ended(process)
    os.close(start)
    if lost:
        tally.count("interrupts lost in other packages", lost)
    tally.check(code == 0 or not good, f"{name}: the child ended with {code}")
    late.sort()
    tally.check(not late or late[-1] < MOST_MILLISECONDS, f"{name}: heard after {late[-1:]} ms")
    shares = [late[min(int(share * len(late)), len(late) - 1)] for share in (0.5, 0.99, 1.0)] if late else []
    tally.facts[f"{name}: p50, p99, max [ms]"] = " ".join(f"{value:.0f}" for value in shares)


# ---- handlers --------------------------------------------------------------------------------------------------------


def caught() -> str:
    """The signals that this process handles, as the kernel says."""
    return re.search(r"SigCgt:\s*(\w+)", Path("/proc/self/status").read_text())[1]


def handlers(tally, folder):
    """Neither an import nor a call installs a handler. A command installs handlers only while it runs."""
    import torch  # noqa: F401 - its handlers are its own
    import transformers  # noqa: F401

    before = caught(), [signal.getsignal(number) for number in signal.valid_signals()]

    def check(when):
        now = caught(), [signal.getsignal(number) for number in signal.valid_signals()]
        tally.check(now == before, f"{when}: signals {before[0]} became {now[0]}")

    import ps3c
    import ps3c.cli

    check("after the import")
    folder = Path(folder)
    write_checkpoint(folder / "model")
    model = ps3c.load(folder / "model", device="cpu", dtype="float32")
    check("after a load")
    images = photographs(folder, 2)
    model.embed_images(images, looks="all")
    model.embed_texts("a boat")
    check("after forwards")
    tally.check(
        ps3c.cli.main(["embed", *images, "-m", str(folder / "model"), "-o", str(folder / "a.npz")]) == 0, "embed"
    )
    check("after a command")


def test_imported_functions(figures):
    """The built module does not import what ends the process or handles signals."""
    if shutil.which("nm") is None:
        pytest.skip("nm is not installed")
    if "PS3C_COVERAGE" in os.environ:
        pytest.skip("gcov brings functions of its own into the module")
    import ps3c._core

    listed = subprocess.run(["nm", "-D", "--undefined-only", ps3c._core.__file__], capture_output=True, text=True)
    names = {line.split()[-1].split("@")[0] for line in listed.stdout.splitlines()}
    ends = {"exit", "_exit", "_Exit", "quick_exit", "abort", "__assert_fail", "__assert", "Py_Exit", "Py_FatalError"}
    handles = {"signal", "sigaction", "sigset", "bsd_signal", "siginterrupt", "longjmp", "setitimer", "alarm"}
    assert "PyErr_CheckSignals" in names, "nm lists no names"
    for name in sorted(ends | handles):
        if name in names:
            figures.failed(f"_core imports {name}")
        else:
            figures.passed()
    figures.finish(names_of_the_module=len(names))
