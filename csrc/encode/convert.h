/* Conversion of arrays between floating dtypes, rounded to nearest, ties to even. */
#ifndef PS3C_CONVERT_H
#define PS3C_CONVERT_H

#include "../ps3c.h"

/* Converts `count` values. from: float32, float16, bfloat16 or float64, at any address; to: float32, float16 or
 * bfloat16. Values out of range become infinite; a NaN stays one. out must not overlap values. */
void ps3c_convert(ps3c_dtype from, const void *values, ps3c_dtype to, void *out, int64_t count);

#endif
