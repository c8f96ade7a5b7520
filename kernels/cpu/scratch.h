/* Scratch of each thread of GEMM and attention, large enough for every level and shape. A task uses the entry of its
 * thread (threads.h). Sizes are multiples of 64 bytes. */
#ifndef PS3C_CPU_SCRATCH_H
#define PS3C_CPU_SCRATCH_H

#include "cpu.h"

enum {
    PS3C_GEMM_ROWS = 640,         /* maximum outputs of a task; 320 to 640 are equally fast (measured) */
    PS3C_GEMM_ROWS_ROUNDED = 656, /* rounded up to whole tiles of any level, and to 16 */
    PS3C_GEMM_SLICE = 576,        /* words of the reduction in one partial sum */
    PS3C_GEMM_WIDE_PANELS = 2,    /* panels of a task that converts its weights: one conversion for both */
    PS3C_MAX_TILE_ROWS = 8,

    PS3C_ATTENTION_HEAD_DIM = 256,  /* maximum of the fast version */
    PS3C_ATTENTION_PANELS = 6,      /* maximum panels of keys per softmax block */
    PS3C_ATTENTION_WIDE_ROWS = 576, /* maximum channels times panels of a converted block */
};

typedef struct ps3c_gemm_scratch {
    float sums[PS3C_GEMM_ROWS_ROUNDED * PS3C_PANEL];              /* partial sums between slices of the reduction */
    float x[PS3C_GEMM_WIDE_PANELS][PS3C_GEMM_SLICE * PS3C_PANEL]; /* a slice of x, converted */
    float weight[PS3C_MAX_TILE_ROWS * PS3C_GEMM_SLICE];           /* one tile's rows of weights, converted */
    float bias[PS3C_GEMM_ROWS_ROUNDED], scale[PS3C_GEMM_ROWS_ROUNDED];
} ps3c_gemm_scratch;

typedef struct ps3c_attention_scratch {
    float out[PS3C_ATTENTION_HEAD_DIM * PS3C_PANEL]; /* sum of weighted values */
    float max[PS3C_PANEL], scaled_max[PS3C_PANEL], sum[PS3C_PANEL], decay[PS3C_PANEL];
    float scores[PS3C_ATTENTION_PANELS * PS3C_PANEL * PS3C_PANEL];
    float query[PS3C_ATTENTION_HEAD_DIM * PS3C_PANEL]; /* converted to float32, like the next two: */
    float keys[PS3C_ATTENTION_WIDE_ROWS * PS3C_PANEL], values[PS3C_ATTENTION_WIDE_ROWS * PS3C_PANEL];
    ps3c_word tail[PS3C_ATTENTION_HEAD_DIM]; /* the last value of an odd number of them, per channel */
} ps3c_attention_scratch;

#endif
