"""Estimates FLOP, bytes and time of each kernel of a pass over one image on a GPU (a roofline model).

    python scripts/roofline.py [--tflops 790] [--tbytes 4.3] [--attention 320]

Prints the Markdown tables of docs/performance.md, for the published SigLIP trunk (so400m) in bfloat16 at batch 1. The
time of a kernel is the larger of two times: FLOP divided by the rate of its kind, and bytes divided by the bandwidth.
Every operand is counted once as read from or written to memory, although much of it stays in the L2 cache between
kernels. Gaps between kernel launches are not counted.
"""

import argparse

WIDTH, DEPTH, HIDDEN, PATCH, LOW, LOOK, SELECT = 1152, 27, 4304, 588, 729, 2560, 4
PITCH, ELEMENT = 592, 2  # padded length of a patch's row in elements; bytes of bfloat16
CONV_TOKENS, CONV_WIDTH, CONV_PATCH = 54 * 54, 512, 3 * 28 * 28


def product(name, times, m, n, k, residual=False):
    """x (m, k), weight (n, k), y (m, n)."""
    elements = m * k + n * k + m * n * (2 if residual else 1)
    return name, times, 2 * m * n * k, elements * ELEMENT, "gemm"


def moved(name, times, elements, size=ELEMENT):
    return name, times, 0, elements * size, "memory"


def attention(times, queries, cached):
    keys = queries + cached
    elements = (2 * queries + 2 * keys) * WIDTH
    return "attention", times, 4 * queries * keys * WIDTH, elements * ELEMENT, "attention"


def blocks(tokens, cached):
    return [
        moved("layernorm", 2 * DEPTH, 2 * tokens * WIDTH),
        product("qkv", DEPTH, tokens, 3 * WIDTH, WIDTH),
        attention(DEPTH, tokens, cached),
        product("proj + residual", DEPTH, tokens, WIDTH, WIDTH, residual=True),
        product("fc1 + bias", DEPTH, tokens, HIDDEN, WIDTH),
        moved("exact GELU, in place", DEPTH, 2 * tokens * HIDDEN),
        product("fc2 + residual", DEPTH, tokens, WIDTH, HIDDEN, residual=True),
    ]


def embedding(tokens, taps):
    """Gather, projection, positions. taps: rows of the position table that are read for a token."""
    return [
        moved("patch gather", 1, tokens * (PATCH + PITCH)),
        product("patch embedding", 1, tokens, WIDTH, PITCH),
        moved("positions", 1, tokens * WIDTH * (2 + taps)),
    ]


def low_res():
    wide = SELECT * WIDTH
    selection = [
        product("selection fc1, fc2", 1, LOW, wide + WIDTH, wide),
        moved("selection GELU, layernorm", 1, 4 * LOW * wide),
        moved("stem gather", 1, CONV_TOKENS * (CONV_PATCH * 2)),
        product("stem", 1, CONV_TOKENS, CONV_WIDTH, CONV_PATCH),
        moved("depthwise 7 x 7", 3, 3 * CONV_TOKENS * CONV_WIDTH),
        product("convolution MLPs", 3, CONV_TOKENS, 8 * CONV_WIDTH, CONV_WIDTH),
        product("last convolution", 1, CONV_TOKENS, WIDTH, CONV_WIDTH),
        moved("ranking, 87,480 probabilities", 1, 2 * 5 * 87480, 8),
    ]
    return embedding(LOW, 1) + blocks(LOW, 0) + selection


def look():
    return embedding(LOOK, 17) + blocks(LOOK, LOW) + [moved("rows to their place, 2 layers", 2, 2 * LOOK * WIDTH)]


def table(kernels, rates):
    rows = ["| kernel | times | GFLOP | MB | bound by | microseconds, all |", "| --- | --- | --- | --- | --- | --- |"]
    total = flop = 0
    for name, times, work, size, kind in kernels:
        compute = work / (rates[kind] * 1e12) if work else 0
        memory = size / (rates["memory"] * 1e12)
        seconds = max(compute, memory)
        bound = kind if compute > memory else "memory"
        rows.append(
            f"| {name} | {times} | {work / 1e9:.1f} | {size / 1e6:.1f} | {bound} | {times * seconds * 1e6:.0f} |"
        )
        total += times * seconds
        flop += times * work
    rows.append(f"| all | | {flop / 1e9:.0f} | | | **{total * 1e6:.0f}** |")
    return "\n".join(rows), total, flop


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tflops", type=float, default=790, help="rate of bfloat16 products")
    parser.add_argument("--tbytes", type=float, default=4.3, help="bytes read and written a second, in 10^12")
    parser.add_argument(
        "--attention", type=float, default=320, help="useful TFLOP/s of mma.sync attention, head dim 72"
    )
    arguments = parser.parse_args()
    rates = {"gemm": arguments.tflops, "attention": arguments.attention, "memory": arguments.tbytes}
    for title, kernels in (("Low resolution and selection", low_res()), ("One look", look())):
        text, total, flop = table(kernels, rates)
        print(
            f"**{title}** ({flop / 1e12:.2f} TFLOP, {total * 1e3:.2f} ms, "
            f"{flop / total / 1e12:.0f} TFLOP/s)\n\n{text}\n"
        )


if __name__ == "__main__":
    main()
