"""SIGINT, SIGTERM and SIGHUP at random moments of `ps3c embed` and `ps3c demo`.

The command ends with 130, 143 or 129 and one line. It leaves no temporary folder, no lock, no half output. `ps3c embed`
keeps every row that it had finished.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from forked import HUNG, SECONDS, Lines, alone, ended, fork, photographs, prepare, to_file, write_checkpoint
from support import SEED, trials


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_embed(figures, tmp_path, name):
    alone(figures, "test_signalled_commands:embeds", tmp_path, name, trials(14))
    figures.finish()


def test_page(figures, tmp_path):
    pytest.importorskip("gradio")
    alone(figures, "test_signalled_commands:pages", tmp_path, trials(4))
    figures.finish()


# ---- in the prepared process ----------------------------------------------------------------------------------------


def check_end(tally, code: int, name: str, log: str, say: str):
    wanted = {
        "SIGINT": (130, "ps3c: interrupted"),
        "SIGTERM": (143, "ps3c: terminated"),
        "SIGHUP": (129, "ps3c: terminated"),
    }
    tally.check(code == wanted[name][0], f"{say}: {'it hung' if code == HUNG else f'ended with {code}'}: {log[-800:]}")
    last = log.splitlines()[-1:]
    tally.check(last == [wanted[name][1]] and "Traceback" not in log, f"{say}: said {log[-800:]}")


def embeds(tally, folder, name, count):
    folder, chance = Path(folder), random.Random(SEED)
    torch, ps3c = prepare()
    from ps3c.cli import _model, _outputs, main

    write_checkpoint(folder / "model")
    images = photographs(folder, 8)
    encoder = ps3c.load(folder / "model", device="cpu", dtype="float32")
    rows = dict(zip(images, encoder.embed_images(images).pooled))
    _model.load = lambda arguments: encoder

    def child(where, out, begun, line):
        to_file(where / "log")
        _outputs.Output.EVERY, _outputs.time = 0.0, SimpleNamespace(monotonic=lambda: 0.0)
        add = _outputs.Output.add

        def tell(self, features):
            add(self, features)
            with open(where / "added", "a") as file:
                file.write("\n".join([*features.names, ""]))

        _outputs.Output.add = tell
        lines = Lines(line, getattr(signal, name), where / "lines")
        os.write(begun, b".")
        if line is not None:
            sys.settrace(lines.trace)
        code = main(["embed", *images, "-m", "model", "-o", str(where / out), "--batch-size", "1"])
        sys.settrace(None)
        if line == -1:
            lines.write()
        return code

    duration = total = None
    for number in range(-2, int(count)):
        where = folder / f"trial {number}"
        where.mkdir()
        start, begun = os.pipe()
        line = None if number % 2 == 0 else -1 if number < 0 else chance.randrange(total)
        out = ("out.npz", "out")[number // 2 % 2]
        process = fork(child, where, out, begun, line)
        os.read(start, 1)
        begin = time.monotonic()
        if number >= 0 and line is None:
            time.sleep(chance.uniform(0.002, 0.9 * duration))
            os.kill(process, getattr(signal, name))
        code = ended(process)
        os.close(start)
        os.close(begun)
        say, log = f"{name} in embed, trial {number}, line {line}", (where / "log").read_text()
        if number < 0:
            duration = duration or time.monotonic() - begin
            total = len(json.loads((where / "lines").read_text())) if line else 0
            tally.check(code == 0, f"{say}: ended with {code}: {log}")
        elif code == 0 and f"{len(images)} of {len(images)}" in log:
            tally.count("after_the_end")
        else:
            check_end(tally, code, name, log, say)
            tally.count("interrupted")
        path = where / out
        files = sorted(path.iterdir()) if path.is_dir() else [path] * path.exists()
        found = [(row, vector) for file in files for row, vector in zip(*named(ps3c.load_features(file)))]
        added = (where / "added").read_text().splitlines() if (where / "added").exists() else []
        kept = [row for row, _ in found]
        tally.check(kept[: len(added)] == added, f"{say}: kept {len(kept)} of {len(added)} finished rows")
        tally.check(all(torch.equal(vector, rows[row]) for row, vector in found), f"{say}: other bits")
        left = [one.name for one in where.rglob("*") if one.name.startswith(".")]
        tally.check(not left, f"{say}: left {left}")
        shutil.rmtree(where)


def named(features):
    return features.names, features.pooled


def pages(tally, folder, count):
    """`ps3c demo`: during the start, and when it serves."""
    folder, chance = Path(folder), random.Random(SEED)
    torch, ps3c = prepare()
    import gradio  # noqa: F401 - the children have it imported

    from ps3c.cli import _model, main

    write_checkpoint(folder / "model")
    encoder = ps3c.load(folder / "model", device="cpu", dtype="float32")
    _model.load = lambda arguments: encoder

    def child(where, begun):
        to_file(where / "log")
        import tempfile

        os.environ["TMPDIR"] = tempfile.tempdir = str(where / "temporary")
        os.write(begun, b".")
        return main(["demo", "-m", "model", "--port", "0"])

    duration = None
    for number in range(-1, 2 * int(count)):
        name = ("SIGINT", "SIGTERM")[number // 2 % 2]
        where = folder / f"trial {number}"
        (where / "temporary").mkdir(parents=True)
        start, begun = os.pipe()
        process = fork(child, where, begun)
        os.read(start, 1)
        begin = time.monotonic()
        if number % 2:  # until it serves
            while "serves" not in (where / "log").read_text() and time.monotonic() < begin + SECONDS:
                time.sleep(0.01)
            duration = duration or time.monotonic() - begin
        else:
            time.sleep(chance.uniform(0.01, 0.6 * duration))
        serves = "serves" in (where / "log").read_text()
        os.kill(process, getattr(signal, name))
        code, log = ended(process), (where / "log").read_text()
        os.close(start)
        os.close(begun)
        say = f"{name} in demo, trial {number}"
        check_end(tally, code, name, log, say)
        tally.count("while_it_served" if serves else "during_the_start")
        left = [one.name for one in (where / "temporary").iterdir()]
        tally.check(not left, f"{say}: left {left}")
        shutil.rmtree(where)
