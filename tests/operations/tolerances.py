"""The tolerances of all operations against the exact result, in one table.

An operation computes in float32 and rounds once to the run's dtype. So against a float64 result `want`

    |got - want| <= error + rounding(dtype) * (|want| + error),    error = ARITHMETIC[operation] * magnitude

where the magnitude, computed by each test, is what the float32 arithmetic works on: the sum of |products| for a dot
product, the greatest tap for a resampled pixel. So two levels may differ from each other by twice this bound.
"""

# Half a unit in the last place, relative, and half of the smallest step near zero.
ROUNDING = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
SMALLEST = {"float32": 2.0**-150, "float16": 2.0**-25, "bfloat16": 2.0**-134}

UNIT = 2.0**-24

ARITHMETIC = {
    # float32 sums of up to 576 products, then sums of these sums. The worst case is 576 units, but with random signs
    # the rounding errors mostly cancel (3.7 units measured). GELU by polynomial: 1e-7 of max(1, |x|).
    "gemm": 6 * UNIT,
    # exp by polynomial (1.5e-7), scores and sums in float32; the magnitude contains the size of the scores.
    "attention": 8 * UNIT,
    # Two sums over the channels, a square root, a division; GELU as above.
    "layernorm": 6 * UNIT,
    # A sum of squares, a square root, a division.
    "l2_normalize": 8 * UNIT,
    # Sixteen products; torch's own float32 result differs in the order of its sums.
    "patch_gather": 8 * UNIT,
    # Two passes of up to 4 * scale products; as above.
    "position_add": 4 * UNIT,
    # 49 products.
    "depthwise": 6 * UNIT,
    # Three sums over the channels.
    "cosine": 4 * UNIT,
    # An argument of up to 10, rounded, makes 10 units of its exponential.
    "probability": 16 * UNIT,
    # As attention, for one query.
    "attention_pool": 4 * UNIT,
    # One product, one sum.
    "blend": 2 * UNIT,
}

# Attention multiplies values by softmax weights that it may round to the run's dtype before: relative to sum p |v|.
ATTENTION_WEIGHTS = {"float32": 0.0, "float16": ROUNDING["float16"], "bfloat16": ROUNDING["bfloat16"]}
