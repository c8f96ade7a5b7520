/* Low-resolution probabilities at the grid of one scale: see kernels/cpu/expand.c.
 *
 * With ground truth, a warp has one cell of the first high-res grid: it resizes the map there once, then writes
 * every patch that the cell covers. Smoothing reads and rewrites the written map, one block per image, with 36 means
 * in shared memory; it needs no scratch. */
#include "ground_truth.cuh"

namespace
{

template <class T> struct expand_args {
    const float *probs;
    T *out;
    int64_t batch, in_rows, in_cols, rows, cols, gt_rows, gt_cols;
};

/* ---- nearest ----------------------------------------------------------------------------------------------------- */

constexpr int ROW_THREADS = 128;

/* A block writes one row of one image at a time. */
template <class T> __global__ void __launch_bounds__(ROW_THREADS) expand_rows(expand_args<T> args)
{
    for (int64_t i = blockIdx.x; i < args.batch * args.rows; i += gridDim.x) {
        const int64_t b = i / args.rows, y = i - b * args.rows;
        const float *probs =
            args.probs + (b * args.in_rows + ps3c_nearest_source(args.in_rows, args.rows, y)) * args.in_cols;
        for (int64_t x = threadIdx.x; x < args.cols; x += ROW_THREADS)
            args.out[i * args.cols + x] = ps3c_from_float<T>(probs[ps3c_nearest_source(args.in_cols, args.cols, x)]);
    }
}

/* ---- ground truth ------------------------------------------------------------------------------------------------ */

constexpr int CELLS = 8; /* warps of a block */

/* 1 where gt > 0, the probability where gt <= 0, and 0 where gt is NaN. Computed by the reference's products, so that a
 * NaN probability stays NaN. */
__device__ __forceinline__ float with_ground_truth(float gt, float prob)
{
    return (float)(gt > 0.0f) + (float)(gt <= 0.0f) * prob;
}

template <class T> __global__ void __launch_bounds__(CELLS * 32) expand_cells(expand_args<T> args, ps3c_tensor gt)
{
    PS3C_SHARED(ps3c_floats4, buffers, [CELLS][8]);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int64_t cells = args.gt_rows * args.gt_cols;
    for (int64_t i = (int64_t)blockIdx.x * CELLS + warp; i < args.batch * cells; i += (int64_t)gridDim.x * CELLS) {
        const int64_t b = i / cells, row = (i - b * cells) / args.gt_cols, col = i - b * cells - row * args.gt_cols;
        const ps3c_window rows = ps3c_nearest_window(args.gt_rows, args.rows, row);
        const ps3c_window cols = ps3c_nearest_window(args.gt_cols, args.cols, col);
        const int64_t patches = rows.count * cols.count;
        const float *probs = args.probs + b * args.in_rows * args.in_cols;
        T *out = args.out + b * args.rows * args.cols;
        if (patches == 0)
            continue;
        const float truth = ps3c_ground_truth(gt, b, args.gt_rows, args.gt_cols, row, col, buffers[warp][0].at);
        for (int64_t j = lane; j < patches; j += 32) {
            const int64_t y = rows.first + j / cols.count, x = cols.first + j % cols.count;
            const float prob = probs[ps3c_nearest_source(args.in_rows, args.rows, y) * args.in_cols +
                                     ps3c_nearest_source(args.in_cols, args.cols, x)];
            /* Rounded first: the reference multiplies values of the dtype. */
            out[y * args.cols + x] =
                ps3c_from_float<T>(with_ground_truth(truth, ps3c_to_float(ps3c_from_float<T>(prob))));
        }
    }
}

/* ---- smoothing --------------------------------------------------------------------------------------------------- */

constexpr int SIDE = 6, SMOOTH_WARPS = SIDE * SIDE / 2;

/* Area to 6 x 6, rounded, nearest back; in place. A block has one image. */
template <class T> __global__ void __launch_bounds__(SMOOTH_WARPS * 32) smooth(T *maps, int64_t rows, int64_t cols)
{
    PS3C_SHARED(ps3c_floats4, buffers, [SMOOTH_WARPS][8]);
    PS3C_SHARED(float, means, [SIDE * SIDE]);
    const int warp = threadIdx.x / 32;
    T *map = maps + blockIdx.x * rows * cols;
    for (int i = warp; i < SIDE * SIDE; i += SMOOTH_WARPS) {
        const float mean =
            ps3c_area_mean(ps3c_adaptive_window(rows, SIDE, i / SIDE), ps3c_adaptive_window(cols, SIDE, i % SIDE),
                           buffers[warp][0].at, [&](int64_t y, int64_t x) { return ps3c_to_float(map[y * cols + x]); });
        if (threadIdx.x % 32 == 0)
            means[i] = mean;
    }
    __syncthreads();
    for (int64_t y = warp; y < rows; y += SMOOTH_WARPS) {
        const float *row = means + ps3c_nearest_source(SIDE, rows, y) * SIDE;
        for (int64_t x = threadIdx.x % 32; x < cols; x += 32)
            map[y * cols + x] = ps3c_from_float<T>(row[ps3c_nearest_source(SIDE, cols, x)]);
    }
}

/* ---- launches ---------------------------------------------------------------------------------------------------- */

template <class T> ps3c_status expand(const ps3c_run *run, const ps3c_expand_args *args)
{
    const int64_t rows = args->out->shape[1], cols = args->out->shape[2];
    T *out = (T *)args->out->data;
    const expand_args<T> in = {args->probs, out,  args->batch,   args->in_rows, args->in_cols,
                               rows,        cols, args->gt_rows, args->gt_cols};
    if (args->gt)
        PS3C_CUDA_LAUNCH(run, "expand", (expand_cells<T>),
                         ps3c_cuda_blocks(args->batch * args->gt_rows * args->gt_cols, CELLS), CELLS * 32, 0, in,
                         *args->gt);
    else
        PS3C_CUDA_LAUNCH(run, "expand", (expand_rows<T>), ps3c_cuda_blocks(args->batch * rows, 1), ROW_THREADS, 0, in);
    if (args->smooth)
        PS3C_CUDA_LAUNCH(run, "expand", (smooth<T>), (unsigned)args->batch, SMOOTH_WARPS * 32, 0, out, rows, cols);
    return PS3C_OK;
}

} // namespace

extern "C" ps3c_status ps3c_expand_cuda(const ps3c_run *run, const ps3c_expand_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return expand<T>(run, args));
}
