/* Which tokens of the only look have ground truth. One warp per token resizes the ground truth at the token's patch; a
 * look has a patch only once, so no value is computed twice.
 *
 * An image has no ground truth if its tokens' values sum to 0 (the reference's rule). The signs of the values decide
 * that, unless there are both positive and negative ones: then the image's block computes the values again and sums
 * them. */
#include "ground_truth.cuh"

namespace
{

constexpr int WARPS = 8, IMAGE_WARPS = 32;

enum sign : uint8_t { NONE = 0, POSITIVE = 1, NEGATIVE = 2, NOT_A_NUMBER = 4 };

struct mask_args {
    ps3c_tensor gt;
    const int32_t *positions;
    uint8_t *mask;
    int64_t batch, tokens, num_scales;
    int64_t rows[PS3C_MAX_SCALES], cols[PS3C_MAX_SCALES], first[PS3C_MAX_SCALES];
};

/* Computed by all lanes of a warp. */
__device__ __forceinline__ float value_of(const mask_args &args, int64_t image, int64_t token, float *buffer)
{
    int64_t position = args.positions[image * args.tokens + token], scale = args.num_scales - 1;
    while (scale > 0 && position < args.first[scale])
        scale--;
    position -= args.first[scale];
    const int64_t rows = args.rows[scale], cols = args.cols[scale];
    return ps3c_ground_truth(args.gt, image, rows, cols, position / cols, position % cols, buffer);
}

__global__ void __launch_bounds__(WARPS * 32) mark_signs(mask_args args)
{
    PS3C_SHARED(ps3c_floats4, buffers, [WARPS][8]);
    const int warp = threadIdx.x / 32;
    const int64_t count = args.batch * args.tokens;
    for (int64_t i = (int64_t)blockIdx.x * WARPS + warp; i < count; i += (int64_t)gridDim.x * WARPS) {
        const int64_t image = i / args.tokens;
        const float value = value_of(args, image, i - image * args.tokens, buffers[warp][0].at);
        if (threadIdx.x % 32 == 0)
            args.mask[i] = value > 0.0f ? POSITIVE : value < 0.0f ? NEGATIVE : value == 0.0f ? NONE : NOT_A_NUMBER;
    }
}

/* Signs to 0/1; all 1 if the image has no ground truth. One block per image. */
__global__ void __launch_bounds__(IMAGE_WARPS * 32) mask_by_signs(mask_args args)
{
    PS3C_SHARED(ps3c_floats4, buffers, [IMAGE_WARPS][8]);
    PS3C_SHARED(float, values, [IMAGE_WARPS]);
    const int warp = threadIdx.x / 32;
    uint8_t *mask = args.mask + blockIdx.x * args.tokens;
    int signs = 0;
    for (int64_t t = threadIdx.x; t < args.tokens; t += IMAGE_WARPS * 32)
        signs |= mask[t];
    const bool positive = __syncthreads_or(signs & POSITIVE), negative = __syncthreads_or(signs & NEGATIVE);
    const bool nan = __syncthreads_or(signs & NOT_A_NUMBER);
    bool none = !positive && !negative && !nan;
    if (positive && negative && !nan) {
        double sum = 0.0; /* in every thread, in the order of tokens */
        for (int64_t t = 0; t < args.tokens; t += IMAGE_WARPS) {
            const float value =
                t + warp < args.tokens ? value_of(args, blockIdx.x, t + warp, buffers[warp][0].at) : 0.0f;
            if (threadIdx.x % 32 == 0)
                values[warp] = value;
            __syncthreads();
            for (int i = 0; i < IMAGE_WARPS; i++)
                sum += values[i];
            __syncthreads();
        }
        none = sum == 0.0;
    }
    for (int64_t t = threadIdx.x; t < args.tokens; t += IMAGE_WARPS * 32)
        mask[t] = none || mask[t] != NONE;
}

} // namespace

extern "C" ps3c_status ps3c_gt_mask_cuda(const ps3c_run *run, const ps3c_gt_mask_args *args)
{
    mask_args in = {*args->gt, args->positions, args->mask, args->batch, args->tokens, args->num_scales, {}, {}, {}};
    if (args->batch * args->tokens == 0)
        return PS3C_OK;
    for (int64_t i = 0; i < args->num_scales; i++) {
        in.rows[i] = args->scales[i].rows;
        in.cols[i] = args->scales[i].cols;
        in.first[i] = args->scales[i].first;
    }
    PS3C_CUDA_LAUNCH(run, "gt_mask", mark_signs, ps3c_cuda_blocks(args->batch * args->tokens, WARPS), WARPS * 32, 0,
                     in);
    PS3C_CUDA_LAUNCH(run, "gt_mask", mask_by_signs, (unsigned)args->batch, IMAGE_WARPS * 32, 0, in);
    return PS3C_OK;
}
