"""kill -9 of `ps3c embed`, at the lines of its code and at random times, for each kind of output, with and without
results of an earlier run.

After the kill, the output is absent or whole: its rows are the first ones, with the right bits. `--resume` then ends
with the rows, the order and the bits of a run that nobody disturbed. No lock refuses it, and no other file remains.
Some runs with --resume are killed too.
"""

import json
import os
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from forked import Lines, alone, ended, fork, photographs, prepare, to_file, write_checkpoint
from support import SEED, trials

OUTPUTS = {"npz": ["out.npz"], "others": ["out.parquet", "out.safetensors", "out"]}
IMAGES = 5
RENAMING = ("_check_target", "_rename_new")
WRITING = ("replacing", "temporary_folder", "_locked", "_write_npz", "_write_safetensors", "_write_parquet", *RENAMING)
HIDDEN = re.compile(r"\.ps3c-[0-9a-f]{16}")


@pytest.mark.parametrize("group", OUTPUTS)
def test_kill_and_resume(figures, tmp_path, group):
    if group == "others":
        pytest.importorskip("pyarrow")
    alone(figures, "test_kill:kills", tmp_path, trials(8), *OUTPUTS[group])
    figures.finish()


# ---- in the prepared process -----------------------------------------------------------------------------------------


class Embed:
    """The command, its inputs, and the rows that it must end with."""

    def __init__(self, folder: Path, encoder, images: list[str], out: str):
        import ps3c

        self.ps3c, self.folder, self.images, self.out = ps3c, folder, images, out
        whole = folder / "whole"
        assert self.run(whole, self.images) == 3
        self.rows, self.listing = self.read(whole), self.list(whole)
        self.errors = (whole / f"{out}.errors.jsonl").read_text()

    def run(self, where: Path, images: list[str], *options: str, seconds: float | None = None, line: int = -1) -> int:
        """Runs the command in a child: its exit code. It is killed after so many seconds, or before that line."""
        where.mkdir(exist_ok=True)
        start, begun = os.pipe()
        child = fork(self._command, where, images, options, line, begun)
        os.close(begun)
        os.read(start, 1)  # the command begins, or the child has ended
        os.close(start)
        begin = time.monotonic()
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        code = ended(child)
        self.seconds = time.monotonic() - begin
        return code

    def _command(self, where: Path, images: list[str], options: list[str], line: int, begun: int) -> int:
        from ps3c.cli import _outputs, main

        to_file(where.with_suffix(".log"))
        # A file is written after each image: the clock stands still at the moment of the next write.
        _outputs.Output.EVERY, _outputs.time = 0.0, SimpleNamespace(monotonic=lambda: 0.0)
        tokens = [] if self.out.endswith(".parquet") else ["--tokens", "--looks", "1"]
        command = ["embed", *images, "-m", "model", "-o", str(where / self.out), "--batch-size", "1"]
        lines = Lines(line, signal.SIGKILL, where.with_suffix(".lines"))
        os.write(begun, b".")
        sys.settrace(lines.trace)
        code = main([*command, *tokens, *options])
        sys.settrace(None)
        lines.write()
        return code

    def lines(self, where: Path) -> list[str]:
        """The functions of the last run's lines."""
        return json.loads(where.with_suffix(".lines").read_text())

    def read(self, where: Path) -> list:
        """(name, [bytes of each tensor]) of each row. ValueError if a file is not whole."""
        path = where / self.out
        rows = []
        for file in sorted(path.glob("[0-9]*")) if path.is_dir() else [path] * path.exists():
            found = self.ps3c.load_features(file)
            tensors = [found.pooled, found.tokens, found.positions, found.look]
            for row, name in enumerate(found.names):
                bits = [tensor[row].contiguous().numpy().tobytes() for tensor in tensors if tensor is not None]
                rows.append((name, found.sizes[row], bits))
        return rows

    def list(self, where: Path) -> list[str]:
        return sorted(str(path.relative_to(where)) for path in where.rglob("*"))


def kills(tally, folder, count, *outputs):
    torch, ps3c = prepare()
    from ps3c.cli import _model

    folder = Path(folder)
    write_checkpoint(folder / "model")
    images = photographs(folder, IMAGES)
    images.insert(2, str(folder / "broken.png"))
    Path(images[2]).write_text("no image")
    encoder = ps3c.load(folder / "model", device="cpu", dtype="float32")
    encoder.embed_images(images[:1], looks=1)
    _model.load = lambda arguments: encoder
    for out in outputs:
        (folder / f"of {out}").mkdir()
        kills_of(tally, Embed(folder / f"of {out}", encoder, images, out), int(count))


def kills_of(tally, embed, count):
    folder, out, chance = embed.folder, embed.out, random.Random(SEED)
    early = folder / "early"
    embed.run(early, embed.images[:2])
    moments = {}
    for earlier in (False, True):  # how long an undisturbed run takes, in seconds and in lines
        where = folder / f"measured {earlier}"
        if earlier:
            shutil.copytree(early, where)
        embed.run(where, embed.images, *["--resume"] * earlier)
        functions = embed.lines(where)
        writing = [line for line, function in enumerate(functions) if function in WRITING]
        renaming = [line for line in writing if functions[line] in RENAMING]
        moments[earlier] = embed.seconds, [renaming, writing, range(len(functions))]
    for number in range(2 * count):
        earlier, by_time = number % 2 == 1, number % 4 >= 2
        seconds, lines = moments[earlier]
        where = folder / f"trial {number}"
        if earlier:
            shutil.copytree(early, where)
        line = chance.choice(lines[number // 4 % 3])
        moment = {"seconds": chance.uniform(0, 0.8 * seconds)} if by_time else {"line": line}
        say = f"{out}, earlier results {earlier}, killed at {moment}"
        for again in range(1 + (number % 3 == 0)):
            code = embed.run(where, embed.images, *["--resume"] * (again or earlier), **moment)
            after_kill(tally, embed, where, code, by_time and not again, say)
            moment = {"line": chance.choice(lines[1])}
        code = embed.run(where, embed.images, "--resume")
        log = where.with_suffix(".log").read_text()[-600:]
        if tally.check(code == 3, f"{say}: --resume ended with {code}: {log}"):
            found = embed.read(where)
            tally.check(found == embed.rows, f"{say}: other rows: {[row[0] for row in found]}")
            tally.check(embed.list(where) == embed.listing, f"{say}: files {embed.list(where)}")
            tally.check((where / f"{out}.errors.jsonl").read_text() == embed.errors, f"{say}: other errors")
        shutil.rmtree(where)


def after_kill(tally, embed, where, code, by_time, say):
    """The output is whole at any moment. Counts where the kill fell."""
    try:
        rows = embed.read(where)
    except Exception as error:
        tally.check(False, f"{say}: a file is not whole: {error}")
        return
    tally.check(rows == embed.rows[: len(rows)], f"{say}: rows {[row[0] for row in rows]}")
    tally.check(code in (-signal.SIGKILL, 3), f"{say}: ended with {code}")
    tally.count("kills")
    locked = any(path.suffix == ".lock" for path in where.iterdir())
    hidden = [path for path in where.rglob(".ps3c-*") if HIDDEN.fullmatch(path.name)]
    if code != -signal.SIGKILL:
        tally.count("after_the_end")
    elif len(rows) == len(embed.rows):
        tally.count("after_the_last_write")
    elif locked:
        tally.count("midway")
    else:
        tally.count("before_the_lock")
    if hidden:
        tally.count("during_a_write")
        files = [path for folder in hidden for path in folder.glob("new*")]
        if files and files[0].stat().st_size and not by_time and embed.lines(where)[-1] in ("replacing", *RENAMING):
            tally.count("between_writing_and_renaming")
