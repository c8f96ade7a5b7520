"""How far an operation may be from the exact result, in one table.

An operation computes in float32 and rounds once to the run's dtype. So against a float64 result `want`

    |got - want| <= error + rounding(dtype) * (|want| + error),    error = ARITHMETIC[operation] * magnitude

where the magnitude, computed by each test, is what the float32 arithmetic works on: the sum of |products| for a dot
product, the greatest tap for a resampled pixel. Two levels, both within that of `want`, may differ by twice it.
"""

# Half a unit in the last place, relative, and half of the smallest step near zero.
ROUNDING = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
SMALLEST = {"float32": 2.0**-150, "float16": 2.0**-25, "bfloat16": 2.0**-134}

UNIT = 2.0**-24

ARITHMETIC = {
    # Sums of up to 576 float32 products at a time, then sums of those; random signs make it far less than 576 units.
    # Measured: 3.5 units. GELU by polynomial: 1e-7 of max(1, |x|).
    "gemm": 6 * UNIT,
    # exp by polynomial (1.5e-7), scores and sums in float32; the magnitude contains the size of the scores.
    "attention": 8 * UNIT,
    # 16-bit types: each weight of a value may be rounded to the type before its product.
    "attention_float16": 8 * UNIT + ROUNDING["float16"],
    "attention_bfloat16": 8 * UNIT + ROUNDING["bfloat16"],
    # Two sums over the channels, a square root, a division; GELU as above.
    "layernorm": 8 * UNIT,
    "l2_normalize": 8 * UNIT,
    # Sixteen products; torch's own float32 result differs in the order of its sums.
    "patch_gather": 8 * UNIT,
    # Two passes of up to 4 * scale products; as above.
    "position_add": 12 * UNIT,
    # 49 products.
    "depthwise": 8 * UNIT,
    "cosine": 12 * UNIT,
    # Two exponentials and a division, of arguments up to 10.
    "probability": 24 * UNIT,
    # Softmax over tokens of one query.
    "attention_pool": 12 * UNIT,
    # One product, one sum.
    "blend": 2 * UNIT,
}
