/* Mask of the keys that a text's class token may see: index 0, and i where ids[i - 1] is not padding. */
#include "tokens.cuh"

namespace
{

constexpr int THREADS = 128;

__global__ void __launch_bounds__(THREADS)
    class_mask(ps3c_cuda_ids ids, int64_t segments, int64_t pad_id, uint8_t *mask)
{
    const int64_t tokens = ids.length + 1, step = (int64_t)gridDim.x * THREADS;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < segments * tokens; i += step) {
        const int64_t text = i / tokens, token = i % tokens;
        mask[i] = token == 0 || ps3c_cuda_id(ids, text, token - 1) != pad_id;
    }
}

} // namespace

extern "C" ps3c_status ps3c_class_mask_cuda(const ps3c_run *run, const ps3c_class_mask_args *args)
{
    const ps3c_cuda_ids ids = ps3c_cuda_ids_of(args->ids, args->first);
    const int64_t count = args->segments * (ids.length + 1);
    if (count)
        PS3C_CUDA_LAUNCH(run, "class_mask", class_mask, ps3c_cuda_blocks(count, THREADS), THREADS, 0, ids,
                         args->segments, args->pad_id, args->mask);
    return PS3C_OK;
}
