/* torch's adaptive_max_pool2d, one output per thread: windows have only a few values. */
#include "ground_truth.cuh"

namespace
{

constexpr int THREADS = 128;

__global__ void __launch_bounds__(THREADS) max_pool(ps3c_max_pool_args args)
{
    const int64_t count = args.batch * args.rows * args.cols;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (int64_t)gridDim.x * THREADS) {
        const int64_t line = i / args.cols, b = line / args.rows;
        const ps3c_window y = ps3c_adaptive_window(args.in_rows, args.rows, line - b * args.rows);
        const ps3c_window x = ps3c_adaptive_window(args.in_cols, args.cols, i - line * args.cols);
        const float *in = args.in + (b * args.in_rows + y.first) * args.in_cols + x.first;
        float most = -INFINITY;
        for (int64_t row = 0; row < y.count; row++)
            for (int64_t col = 0; col < x.count; col++) {
                const float v = in[row * args.in_cols + col];
                if (v > most || v != v) /* a NaN stays: no value compares greater */
                    most = v;
            }
        args.out[i] = most;
    }
}

} // namespace

extern "C" ps3c_status ps3c_max_pool_cuda(const ps3c_run *run, const ps3c_max_pool_args *args)
{
    const int64_t count = args->batch * args->rows * args->cols;
    PS3C_CUDA_LAUNCH(run, "max_pool", max_pool, ps3c_cuda_blocks(count, THREADS), THREADS, 0, *args);
    return PS3C_OK;
}
