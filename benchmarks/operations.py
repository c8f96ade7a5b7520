"""Measures each operation of the CPU backend separately, at the sizes of one look at a 4K image (so400m).

Operations run through the extension of tests/operations, which is built when the benchmark starts. It copies the
arguments first; only the backend's call is timed. Matrix products and attention are reported in GFLOP/s and as a share
of the GEMM ceiling: the best rate of a plain product of the MLP's shapes with torch or ps3c, measured in the same run.
The other operations are reported in GB/s of the memory that they must read and write. a_look is the number of calls per
look. If oneDNN is available (see README.md), each product also runs with oneDNN and the same epilogue, alternately.
Otherwise it is compared with a plain product of torch.

    python benchmarks/operations.py --rows gemm-fc1 attention --dtypes bfloat16
    python benchmarks/operations.py --onednn FOLDER --level avx2
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import common
import numpy as np
import torch
from products import OneDNN, gemm_arrays, gemm_ceiling, gemm_torch, random, seconds

from ps3c import _core

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
GEMMS = ("gemm-qkv", "gemm-proj", "gemm-fc1", "gemm-fc2")


# ---- the table -----------------------------------------------------------------------------------------------------


@dataclass
class Operation:
    """One row: a call that returns its seconds, and its work."""

    call: Callable[[], float]
    flops: int = 0
    bytes: int = 0
    a_look: float = 0  # calls per look; 0: the operation belongs to the selection or another pass
    peer: Callable[[], float] | None = None
    peer_name: str = ""


@dataclass
class Sizes:
    width: int = 1152
    heads: int = 16
    hidden: int = 4304
    depth: int = 27
    patch: int = 14
    low: int = 27  # side of the low-res grid
    scales: tuple = (756, 1512, 3780)
    tokens: int = 2560
    layers: int = 4  # of the selection
    conv: int = 512
    conv_grid: int = 54
    vocabulary: int = 32000


TINY = Sizes(
    width=64,
    heads=2,
    hidden=96,
    depth=2,
    low=3,
    scales=(84, 168),
    tokens=40,
    layers=2,
    conv=16,
    conv_grid=6,
    vocabulary=97,
)


class Table:
    """Creates the rows on request."""

    def __init__(self, sizes: Sizes, dtype: str, level: str | None, threads: int, onednn: OneDNN | None):
        self.sizes, self.dtype, self.onednn = sizes, dtype, onednn
        self.run = dict(dtype=dtype, level=level, threads=threads)
        self.size = BYTES[dtype]
        self.scales = [(scale, scale, scale // sizes.patch, scale // sizes.patch) for scale in sizes.scales]
        self.patches = sum(rows * cols for _, _, rows, cols in self.scales)
        chosen = np.random.default_rng(0).permutation(self.patches)[: sizes.tokens]
        self.positions = np.sort(chosen).astype(np.int32)[None]

    def timed(self, name, *arguments, **keywords) -> Callable[[], float]:
        return partial(seconds, name, *arguments, **keywords, **self.run)

    def gemm(self, n, k, tokens=None, a_look=0, act="none", residual=False, values_from=-1) -> Operation:
        tokens = tokens or self.sizes.tokens
        x, weight, bias = gemm_arrays(tokens, n, k, self.dtype)
        keywords = dict(act=act, values_from=values_from)
        if residual:
            keywords.update(residual=random((1, tokens, n), self.dtype), in_place=True)
        peer, name = None, ""
        if self.onednn is not None:
            peer, name = self.onednn.gemm(tokens, n, k, self.dtype, act == "gelu", residual), "oneDNN"
        if peer is None:
            peer, name = gemm_torch(tokens, n, k, common.DTYPES[self.dtype]), "torch, plain"
        return Operation(
            self.timed("gemm", x, weight, bias, **keywords),
            2 * tokens * n * k,
            a_look=a_look,
            peer=peer,
            peer_name=name,
        )

    def attention(self, tokens, cached, a_look=0, causal=False, segments=1) -> Operation:
        s = self.sizes
        q, k, v = (random((segments, tokens, s.width), self.dtype) for _ in range(3))
        keywords = {}
        if cached:
            keywords = dict(
                cached_k=random((1, cached, s.width), self.dtype), cached_v=random((1, cached, s.width), self.dtype)
            )
        call = self.timed("attention", q, k, v, heads=s.heads, causal=causal, fused=True, **keywords)
        shaped = [
            torch.randn(segments, s.heads, rows, s.width // s.heads, dtype=torch.float32).to(common.DTYPES[self.dtype])
            for rows in (tokens, cached + tokens, cached + tokens)
        ]
        peer = partial(common.stopwatch, lambda: torch.nn.functional.scaled_dot_product_attention(*shaped))
        work = 4 * segments * tokens * (cached + tokens) * s.width
        return Operation(call, work, a_look=a_look, peer=peer, peer_name="torch")

    def moved(self, count: int, name: str, *arguments, a_look=0, size=None, **keywords) -> Operation:
        """An operation that reads and writes `count` elements of the dtype (or of `size` bytes each)."""
        return Operation(self.timed(name, *arguments, **keywords), bytes=count * (size or self.size), a_look=a_look)

    # ---- rows -------------------------------------------------------------------------------------------------------

    def rows(self) -> dict[str, Callable[[], Operation]]:
        s, dtype, tokens, width = self.sizes, self.dtype, self.sizes.tokens, self.sizes.width
        low, conv, features = s.low**2, s.conv_grid**2, s.layers * s.width
        return {
            "gemm-qkv": lambda: self.gemm(3 * width, width, a_look=s.depth, values_from=2 * width),
            "gemm-proj": lambda: self.gemm(width, width, a_look=s.depth, residual=True),
            "gemm-fc1": lambda: self.gemm(s.hidden, width, a_look=s.depth, act="gelu"),
            "gemm-fc2": lambda: self.gemm(width, s.hidden, a_look=s.depth, residual=True),
            "attention": lambda: self.attention(tokens, low, a_look=s.depth),
            "layernorm": lambda: self.norm(tokens, width, 2 * s.depth),
            "patch-gather": lambda: self.gather(),
            "gemm-embed": lambda: self.gemm(width, 3 * s.patch**2, a_look=1),
            "position-add": lambda: self.position_add(),
            "to-rows": lambda: self.moved(
                2 * tokens * width,
                "to_rows",
                random((1, tokens, width), dtype),
                random((1, low + tokens, width), dtype),
                first_row=low,
                a_look=2,
            ),
            "attention-low": lambda: self.attention(low, 0),
            "gemm-fc1-low": lambda: self.gemm(s.hidden, width, tokens=low, act="gelu"),
            "gemm-fc2-low": lambda: self.gemm(width, s.hidden, tokens=low, residual=True),
            "gemm-select": lambda: self.gemm(features, features, tokens=low, act="gelu"),
            "gemm-conv": lambda: self.gemm(4 * s.conv, s.conv, tokens=conv, act="gelu"),
            "depthwise": lambda: self.moved(
                2 * conv * s.conv,
                "depthwise",
                random((1, conv, s.conv), dtype),
                random((s.conv, 1, 7, 7), dtype),
                random((s.conv,), dtype),
                s.conv_grid,
                s.conv_grid,
            ),
            "cosine": lambda: self.moved(
                low * width, "cosine", random((1, low, width), dtype), random((1, width), dtype)
            ),
            "max-pool": lambda: self.moved(
                conv + low, "max_pool", random((1, s.conv_grid, s.conv_grid), "float32"), s.low, s.low, size=4
            ),
            "probability": lambda: self.moved(2 * low, "probability", random((low,), "float32"), size=4),
            "expand": lambda: self.moved(
                self.scales[-1][2] ** 2,
                "expand",
                random((1, s.low, s.low), "float32"),
                self.scales[-1][2],
                self.scales[-1][3],
            ),
            "rank": lambda: self.moved(
                self.scales[-1][2] ** 2, "rank", random((1, *self.scales[-1][2:]), dtype), size=self.size + 4
            ),
            "assign-looks": lambda: self.assign_looks(),
            "attention-pool": lambda: self.moved(
                2 * tokens * width,
                "attention_pool",
                random((1, 1, width), dtype),
                random((1, tokens, 2 * width), dtype),
                heads=s.heads,
            ),
            "token-embedding": lambda: self.moved(
                16 * 64 * 2 * width,
                "token_embedding",
                np.random.default_rng(0).integers(0, s.vocabulary, (16, 64)),
                random((s.vocabulary, width), dtype),
                random((64, width), dtype),
            ),
            "attention-text": lambda: self.attention(64, 0, segments=16),
        }

    def norm(self, tokens: int, channels: int, a_look: int) -> Operation:
        weight, bias = random((channels,), self.dtype), random((channels,), self.dtype)
        return self.moved(
            2 * tokens * channels, "layernorm", random((1, tokens, channels), self.dtype), weight, bias, a_look=a_look
        )

    def gather(self) -> Operation:
        s, side = self.sizes, self.sizes.scales[-1]
        pixels = random((1, 3, side, side), self.dtype)
        return self.moved(
            s.tokens * 3 * s.patch**2, "patch_gather", pixels, s.patch, self.scales, positions=self.positions, a_look=1
        )

    def position_add(self) -> Operation:
        s = self.sizes
        residual = [random((rows * cols, s.width), self.dtype) for _, _, rows, cols in self.scales]
        return self.moved(
            3 * s.tokens * s.width,
            "position_add",
            random((1, s.tokens, s.width), self.dtype),
            random((s.low**2, s.width), self.dtype),
            self.scales,
            residual=residual,
            positions=self.positions,
            a_look=1,
        )

    def assign_looks(self) -> Operation:
        s = self.sizes
        generator = np.random.default_rng(0)
        ranks = [generator.permutation(rows * cols).astype(np.int32)[None] for _, _, rows, cols in self.scales]
        shares = [s.tokens * rows * cols // self.patches for _, _, rows, cols in self.scales]
        ends = np.array([[[share, 2 * share] for share in shares]], np.int32)
        return self.moved(self.patches, "assign_looks", ranks, self.scales, ends, size=4 + self.size)


ROWS = {
    **dict.fromkeys(GEMMS, "a matrix product of a block, with its epilogue"),
    "attention": "2560 queries; keys: 729 cached and 2560 own",
    "layernorm": "2560 tokens of 1152 channels",
    "patch-gather": "2560 chosen patches, resampled from the image",
    "gemm-embed": "patches to tokens",
    "position-add": "rows of the position tables, resampled",
    "to-rows": "tokens to their rows in the output",
    "attention-low": "729 tokens",
    "gemm-fc1-low": "729 tokens",
    "gemm-fc2-low": "729 tokens",
    "gemm-select": "selection features",
    "gemm-conv": "1x1 convolutions of the selection's network",
    "depthwise": "7x7, 54 x 54 positions",
    "cosine": "features with a prompt",
    "max-pool": "54 x 54 to 27 x 27",
    "probability": "of 729 logits",
    "expand": "probabilities to the largest scale's grid",
    "rank": "the largest scale's probabilities",
    "assign-looks": "ranks to the positions of two looks",
    "attention-pool": "one query over 2560 tokens",
    "token-embedding": "16 texts of 64 tokens",
    "attention-text": "16 texts of 64 tokens",
}


def block_summary(report: common.Report, dtype: str, times: dict[str, float], ceiling: float, sizes: Sizes) -> None:
    """Reports the time and rate of one block, if all its operations were measured."""
    parts = {name: seconds for name, seconds in times.items() if name in (*GEMMS, "attention", "layernorm")}
    if len(parts) == 6:
        block = sum(seconds * (2 if name == "layernorm" else 1) for name, seconds in parts.items())
        keys = sizes.low**2 + sizes.tokens
        products = 2 * sizes.tokens * (4 * sizes.width**2 + 2 * sizes.width * sizes.hidden)
        work = products + 4 * sizes.tokens * keys * sizes.width
        rate = 1e-9 * work / block
        report.note(
            f"{dtype}: one block of {sizes.tokens} own and {sizes.low**2} cached tokens, sum of its operations: "
            f"{1e3 * block:.1f} ms, {rate:.0f} GFLOP/s, {rate / ceiling:.3f} of the ceiling"
        )


def main() -> None:
    options = common.parser(__doc__, ROWS, list(ROWS))
    options.add_argument(
        "--level", choices=_core.cpu_levels(), help="instruction set of ps3c and oneDNN (default: the best)"
    )
    options.add_argument(
        "--onednn",
        type=Path,
        metavar="FOLDER",
        default=os.environ.get("PS3C_ONEDNN"),
        help="folder of oneDNN's headers and library (default: the folder PS3C_ONEDNN)",
    )
    arguments = common.parse(options, ROWS)
    limits = {"avx2": "AVX2", "avx512": "AVX512_CORE", "avx512bf16": "AVX512_CORE_BF16"}
    if arguments.level in limits:  # oneDNN reads it when it is loaded
        os.environ["ONEDNN_MAX_CPU_ISA"] = limits[arguments.level]
    columns = dict(
        operation=16, dtype=9, ms=9, gflops=8, gbytes=8, ceiling=8, a_look=7, peer=13, peer_gflops=11, ratio=7
    )
    report = common.Report(arguments, columns)
    sizes = TINY if arguments.tiny else Sizes()

    with tempfile.TemporaryDirectory() as scratch:
        onednn = None
        if arguments.onednn:
            try:
                onednn = OneDNN(Path(arguments.onednn), Path(scratch))
            except OSError as error:
                report.note(f"oneDNN skipped: {error}")
        else:
            report.note("oneDNN skipped: no --onednn; products are compared with torch's plain product")
        for dtype in arguments.dtypes:
            ceiling = gemm_ceiling(common.DTYPES[dtype], sizes.tokens, sizes.width, sizes.hidden, arguments.runs)
            report.note(f"{dtype}: GEMM ceiling {ceiling['gflops']:.0f} GFLOP/s, measured with {ceiling['by']}")
            table = Table(sizes, dtype, arguments.level, arguments.threads, onednn)
            measure(arguments, report, table, ceiling["gflops"])


def measure(arguments, report: common.Report, table: Table, ceiling: float) -> None:
    made, times = table.rows(), {}
    results: list[dict] = []
    for name in arguments.rows:
        operation = made[name]()
        calls = {"ps3c": operation.call, **({"peer": operation.peer} if operation.peer else {})}
        timings = common.alternate(calls, arguments.runs + 1, arguments.seconds / 3, lambda call: call(), most=100)
        times[name] = best = timings["ps3c"].best
        row = dict(operation=name, dtype=table.dtype, ms=1e3 * best, seconds=best, a_look=operation.a_look or None)
        if operation.flops:
            row.update(gflops=1e-9 * operation.flops / best, ceiling=1e-9 * operation.flops / best / ceiling)
        else:
            row.update(gbytes=1e-9 * operation.bytes / best)
        if operation.peer:
            other = timings["peer"].best
            row.update(peer=operation.peer_name, peer_gflops=1e-9 * operation.flops / other, ratio=other / best)
            getattr(operation.peer, "free", lambda: None)()
        report.row(**row)
        results.append({**row, "a_look": operation.a_look})
    look = sum(row["seconds"] * row["a_look"] for row in results)
    block_summary(report, table.dtype, times, ceiling, table.sizes)
    if look and all(name in times for name in (*GEMMS, "attention", "layernorm", "patch-gather")):
        shares = {row["operation"]: row["seconds"] * row["a_look"] / look for row in results if row["a_look"]}
        other = sum(share for name, share in shares.items() if not name.startswith(("gemm", "attention")))
        report.note(
            f"{table.dtype}: one look, sum of its operations: {look:.3f} s; "
            + ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
            + f"; neither product nor attention: {100 * other:.1f} %"
        )


if __name__ == "__main__":
    main()
