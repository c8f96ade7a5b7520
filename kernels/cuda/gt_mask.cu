/* Which tokens of the only look have ground truth. A warp has one token, resizing the ground truth at its patch alone:
 * a patch is in a look once, so nothing is done twice. */
#include "ground_truth.cuh"

namespace
{

constexpr int WARPS = 8, IMAGE_THREADS = 256;

struct mask_scales {
    int64_t count;
    int64_t rows[PS3C_MAX_SCALES], cols[PS3C_MAX_SCALES], first[PS3C_MAX_SCALES];
};

__global__ void __launch_bounds__(WARPS * 32) mask_tokens(ps3c_tensor gt, mask_scales scales, const int32_t *positions,
                                                          int64_t batch, int64_t tokens, uint8_t *mask)
{
    PS3C_SHARED(ps3c_floats4, buffers, [WARPS][8]);
    const int warp = threadIdx.x / 32;
    for (int64_t i = (int64_t)blockIdx.x * WARPS + warp; i < batch * tokens; i += (int64_t)gridDim.x * WARPS) {
        int64_t position = positions[i], scale = scales.count - 1;
        while (scale > 0 && position < scales.first[scale])
            scale--;
        position -= scales.first[scale];
        const int64_t rows = scales.rows[scale], cols = scales.cols[scale];
        const float truth =
            ps3c_ground_truth(gt, i / tokens, rows, cols, position / cols, position % cols, buffers[warp][0].at);
        if (threadIdx.x % 32 == 0)
            mask[i] = truth != 0.0f;
    }
}

/* All 1 where an image has none. A block has one image. */
__global__ void __launch_bounds__(IMAGE_THREADS) mask_all_if_none(int64_t tokens, uint8_t *masks)
{
    uint8_t *mask = masks + blockIdx.x * tokens;
    int any = 0;
    for (int64_t t = threadIdx.x; t < tokens; t += IMAGE_THREADS)
        any |= mask[t];
    any = __syncthreads_or(any);
    for (int64_t t = threadIdx.x; t < tokens; t += IMAGE_THREADS)
        if (!any)
            mask[t] = 1;
}

} // namespace

extern "C" ps3c_status ps3c_gt_mask_cuda(const ps3c_run *run, const ps3c_gt_mask_args *args)
{
    mask_scales scales = {args->num_scales, {}, {}, {}};
    if (args->batch * args->tokens == 0)
        return PS3C_OK;
    for (int64_t i = 0; i < args->num_scales; i++) {
        scales.rows[i] = args->scales[i].rows;
        scales.cols[i] = args->scales[i].cols;
        scales.first[i] = args->scales[i].first;
    }
    PS3C_CUDA_LAUNCH(run, "gt_mask", mask_tokens, ps3c_cuda_blocks(args->batch * args->tokens, WARPS), WARPS * 32, 0,
                     *args->gt, scales, args->positions, args->batch, args->tokens, args->mask);
    PS3C_CUDA_LAUNCH(run, "gt_mask", mask_all_if_none, (unsigned)args->batch, IMAGE_THREADS, 0, args->tokens,
                     args->mask);
    return PS3C_OK;
}
