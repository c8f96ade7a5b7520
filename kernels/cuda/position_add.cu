/* Position embeddings of each token's patch, added in place.
 *
 * The resampled table is not stored. A token's row of it needs 4 x 4 table rows (more if the table shrinks), which are
 * in cache because neighbouring tokens use them too; and a table edited in place is used as it is now. As in torch's
 * separable kernel, columns are resampled first, then rows, in float32. The sum with token and residual is rounded
 * once.
 *
 * One warp per token, its lanes along the channels. Each lane holds the weight of one tap of the token (32 taps at a
 * time, which is all of them unless a table shrinks more than sevenfold); the warp reads them by shuffle. */
#include "resample.cuh"
#include "tokens.cuh"

namespace
{

struct add_args {
    ps3c_cuda_scales scales;
    const void *residual[PS3C_MAX_SCALES]; /* NULL: none */
    int64_t residual_grid[PS3C_MAX_SCALES];
    const int32_t *positions;
    int64_t rows, tokens, channels, pitch, grid;
    bool crop;
};

/* A lane's part of the sum. */
template <class T> struct part {
    float at[PS3C_WIDE<T>];
};

template <class T>
__device__ __forceinline__ void add_weighted(part<T> *sum, float weight, const T *from, int64_t valid, bool wide)
{
    const ps3c_wide<T> v = ps3c_cuda_load(from, valid, wide);
#pragma unroll
    for (int j = 0; j < PS3C_WIDE<T>; j++)
        sum->at[j] = __fmaf_rn(weight, ps3c_to_float(v.at[j]), sum->at[j]);
}

/* Taps along one axis; `own` is the weight of tap `lane` of the current 32. */
struct axis {
    ps3c_cuda_antialias taps;
    float own;
};

__device__ __forceinline__ axis axis_of(int64_t grid, int64_t size, int64_t i)
{
    axis a;
    a.taps = ps3c_cuda_antialias_taps(grid, size, i);
    a.own = ps3c_cuda_antialias_weight(a.taps, threadIdx.x % 32);
    return a;
}

/* Weight of tap j. j is the same in the whole warp and must go up from 0. */
__device__ __forceinline__ float axis_weight(axis *a, int j)
{
    if (j % 32 == 0 && a->taps.count > 32)
        a->own = ps3c_cuda_antialias_weight(a->taps, j + (int)(threadIdx.x % 32));
    return __shfl_sync(0xffffffffu, a->own, j % 32);
}

/* sum += these channels of the resampled table's row. table: at the lane's first channel. */
template <class T, bool WIDE>
__device__ __forceinline__ void add_resampled(part<T> *sum, axis *y, axis *x, const T *table, const add_args &a,
                                              int64_t valid)
{
    part<T> row = {};
    for (int j = 0; j < y->taps.count; j++) {
        const T *from = table + ((y->taps.first + j) * a.grid + x->taps.first) * a.channels;
        part<T> line = {};
#pragma unroll WIDE ? 4 : 1
        for (int i = 0; i < x->taps.count; i++)
            add_weighted<T>(&line, axis_weight(x, i), from + i * a.channels, valid, WIDE);
        const float weight = axis_weight(y, j);
#pragma unroll
        for (int k = 0; k < PS3C_WIDE<T>; k++)
            row.at[k] = __fmaf_rn(weight, line.at[k], row.at[k]);
    }
#pragma unroll
    for (int k = 0; k < PS3C_WIDE<T>; k++)
        sum->at[k] += row.at[k];
}

/* WIDE: rows of table and residuals are 16-byte aligned. */
template <class T, bool WIDE>
__global__ void __launch_bounds__(PS3C_ROW_WARPS * 32, 5) add_positions(add_args a, const T *table, T *x)
{
    const int lane = threadIdx.x % 32;
    for (int64_t row = ps3c_cuda_first_row(); row < a.rows; row += ps3c_cuda_row_step()) {
        const ps3c_cuda_patch at = ps3c_cuda_locate(a.scales, a.positions, a.tokens, row);
        const ps3c_scale *scale = &a.scales.at[at.scale];
        const int64_t size = scale->rows > scale->cols ? scale->rows : scale->cols;
        const bool as_it_is = a.crop || size == a.grid;
        const T *residual = (const T *)a.residual[at.scale];
        if (residual)
            residual += (at.row * a.residual_grid[at.scale] + at.col) * a.channels;
        axis across = {}, down = {};
        if (!as_it_is) {
            across = axis_of(a.grid, size, at.col);
            down = axis_of(a.grid, size, at.row);
        }
        for (int64_t begin = 0; begin < a.pitch; begin += 32 * PS3C_WIDE<T>) { /* the same for every lane */
            const int64_t c = begin + lane * PS3C_WIDE<T>, valid = a.channels - c;
            ps3c_wide<T> *own = (ps3c_wide<T> *)(x + row * a.pitch + c), v = {};
            part<T> sum;
            if (c < a.pitch)
                v = *own;
#pragma unroll
            for (int k = 0; k < PS3C_WIDE<T>; k++)
                sum.at[k] = ps3c_to_float(v.at[k]);
            if (as_it_is)
                add_weighted<T>(&sum, 1.0f, table + (at.row * a.grid + at.col) * a.channels + c, valid, WIDE);
            else
                add_resampled<T, WIDE>(&sum, &down, &across, table + c, a, valid);
            if (residual)
                add_weighted<T>(&sum, 1.0f, residual + c, valid, WIDE);
#pragma unroll
            for (int k = 0; k < PS3C_WIDE<T>; k++)
                v.at[k] = ps3c_from_float<T>(k < valid ? sum.at[k] : 0.0f);
            if (c < a.pitch)
                *own = v;
        }
    }
}

template <class T> ps3c_status launch(const ps3c_run *run, const ps3c_position_add_args *args)
{
    add_args a = {};
    bool wide = ps3c_cuda_wide(args->table, args->x->channels, sizeof(T));
    a.scales = ps3c_cuda_scales_of(args->scales, args->num_scales);
    for (int64_t i = 0; args->residual && i < args->num_scales; i++) {
        a.residual[i] = args->residual[i];
        a.residual_grid[i] = args->residual[i] ? args->residual_grid[i] : 0;
        wide = wide && ps3c_cuda_wide(args->residual[i], args->x->channels, sizeof(T));
    }
    a.positions = args->positions;
    a.rows = args->x->segments * args->x->tokens;
    a.tokens = args->x->tokens;
    a.channels = args->x->channels;
    a.pitch = ps3c_pitch(a.channels);
    a.grid = args->grid;
    a.crop = args->crop;
    const T *table = (const T *)args->table;
    T *x = (T *)args->x->data;
    if (a.rows && wide)
        PS3C_CUDA_LAUNCH_ROWS(run, "position_add", (add_positions<T, true>), a.rows, a, table, x);
    else if (a.rows)
        PS3C_CUDA_LAUNCH_ROWS(run, "position_add", (add_positions<T, false>), a.rows, a, table, x);
    return PS3C_OK;
}

} // namespace

extern "C" ps3c_status ps3c_position_add_cuda(const ps3c_run *run, const ps3c_position_add_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return launch<T>(run, args));
}
