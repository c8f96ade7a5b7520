/* The multiply-add tile that GEMM and attention share: c[rows][lanes] = A[rows][depth] B[depth][lanes].
 *
 * A is broadcast, one word at a time, and may have any strides; B is panel rows of 48 words; c is float32 rows of 48.
 * A tile is TILE_ROWS x TILE_VECTORS accumulators. Together with B's vectors and one of A they fill the register file:
 * AVX-512 8 x 3 of 32 registers (a whole panel), AVX2 6 x 2 of 16, baseline 4 x 3 of 16. So there are at most half as
 * many loads as multiply-adds, and the loop is limited by the multipliers, even if the operands come from L2.
 */
#ifndef PS3C_CPU_TILE_H
#define PS3C_CPU_TILE_H

#include "simd.h"

enum { TILE_ROWS = PS3C_TILE_ROWS, TILE_VECTORS = PS3C_TILE_VECTORS };
_Static_assert(TILE_ROWS <= 8 && (TILE_VECTORS == 2 || TILE_VECTORS == 3),
               "tile_rows, gemm.c and attention.c have these");
_Static_assert(VECTOR == 4 || VECTOR == 8 || VECTOR == 16, "blocks are of 16 tokens");

typedef struct tile_operands {
    /* A(r, k) = a[r * row + k * step]. The reduction has `stretches` stretches of `depth` words (the last one: `last`).
     * They are `stride` words apart in A and contiguous in B. */
    const ps3c_word *a;
    int64_t row, step, depth, stretches, last, stride;
    const ps3c_word *b;
    float *c;
    bool add;           /* add c after the tile's own sum: smaller rounding error */
    const float *scale; /* [48] or NULL: add c * scale instead */
    float *max;         /* [48] or NULL: becomes the maximum of itself and the tile's columns */
} tile_operands;

/* acc + a b; native: both are words of bfloat16 pairs. */
INLINE vfloat tile_multiply(bool native, vfloat acc, vfloat a, vfloat b)
{
#if PS3C_BF16_NATIVE
    if (native)
        return v_dot_bf16(acc, a, b);
#endif
    (void)native;
    return v_fma(a, b, acc);
}

/* One tile; rows, vectors, native and prefetch are constants. prefetch: prefetches the next eight rows of A, one
 * word of each in turn (1 to 2 % faster, measured). */
INLINE void tile(int rows, int vectors, bool native, bool prefetch, const tile_operands *o)
{
    vfloat acc[TILE_ROWS][TILE_VECTORS];
    const ps3c_word *a = o->a, *b = o->b;
    const int64_t row = o->row, step = o->step;
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int j = 0; j < vectors; j++)
            acc[r][j] = v_splat(0);
    }
    for (int64_t s = 0; s < o->stretches; s++, a += o->stride) {
        const ps3c_word *ak = a;
        int64_t depth = s + 1 < o->stretches ? o->depth : o->last;
        for (int64_t k = 0; k < depth; k++, ak += step, b += PS3C_PANEL) {
            vfloat vb[TILE_VECTORS];
            UNROLL
            for (int j = 0; j < vectors; j++)
                vb[j] = v_load(b + VECTOR * j);
            if (prefetch)
                __builtin_prefetch((const char *)a + ((rows + (k & 7)) * row + k) * 4, 0, 3);
            UNROLL
            for (int r = 0; r < rows; r++) {
                vfloat va = (vfloat)v_splat_word(ak[r * row]);
                UNROLL
                for (int j = 0; j < vectors; j++)
                    acc[r][j] = tile_multiply(native, acc[r][j], va, vb[j]);
            }
        }
    }
    UNROLL
    for (int j = 0; j < vectors; j++) {
        vfloat max = o->max ? v_load(o->max + VECTOR * j) : v_splat(0);
        vfloat scale = o->scale ? v_load(o->scale + VECTOR * j) : v_splat(1);
        UNROLL
        for (int r = 0; r < rows; r++) {
            float *c = o->c + r * PS3C_PANEL + VECTOR * j;
            if (o->add)
                acc[r][j] = v_fma(v_load(c), scale, acc[r][j]);
            v_store(c, acc[r][j]);
            max = v_max(max, acc[r][j]);
        }
        if (o->max)
            v_store(o->max + VECTOR * j, max);
    }
}

/* The same for a number of rows known only at run time, 1 .. TILE_ROWS. */
INLINE void tile_rows(int rows, int vectors, bool native, const tile_operands *o)
{
    switch (rows) {
#define CASE(n)                                                      \
    case n:                                                          \
        if (n <= TILE_ROWS)                                          \
            tile(n <= TILE_ROWS ? n : 1, vectors, native, false, o); \
        break;
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#undef CASE
    }
}

#endif
