/* One token of each segment: the first, the last, or the one at the first greatest id. One warp per segment. */
#include "tokens.cuh"

namespace
{

struct pool_args {
    ps3c_cuda_ids ids; /* ARGMAX */
    ps3c_text_pool pool;
    int64_t segments, tokens, channels, pitch;
};

/* Each lane finds the first greatest of every 32nd id; then lanes are compared: the greater id wins, the earlier of
 * equals. */
__device__ __forceinline__ int64_t first_greatest(const ps3c_cuda_ids &ids, int64_t text)
{
    int64_t best = threadIdx.x % 32 < ids.length ? threadIdx.x % 32 : 0;
    int64_t greatest = ps3c_cuda_id(ids, text, best);
#pragma unroll 1
    for (int64_t t = best + 32; t < ids.length; t += 32) {
        const int64_t id = ps3c_cuda_id(ids, text, t);
        if (id > greatest) {
            greatest = id;
            best = t;
        }
    }
    for (int lane = 16; lane; lane /= 2) {
        const int64_t other = __shfl_xor_sync(0xffffffffu, greatest, lane);
        const int64_t other_best = __shfl_xor_sync(0xffffffffu, best, lane);
        if (other > greatest || (other == greatest && other_best < best)) {
            greatest = other;
            best = other_best;
        }
    }
    return best;
}

template <class T>
__global__ void __launch_bounds__(PS3C_ROW_WARPS * 32, 8) pool_tokens(pool_args a, const T *x, T *out)
{
    for (int64_t s = ps3c_cuda_first_row(); s < a.segments; s += ps3c_cuda_row_step()) {
        int64_t token = a.pool == PS3C_POOL_LAST ? a.tokens - 1 : 0;
        if (a.pool == PS3C_POOL_ARGMAX)
            token = first_greatest(a.ids, s);
        ps3c_cuda_copy_row(out + s * a.pitch, x + (s * a.tokens + token) * a.pitch, a.channels, a.pitch, true);
    }
}

template <class T> ps3c_status launch(const ps3c_run *run, const ps3c_pool_tokens_args *args)
{
    pool_args a = {};
    if (args->pool == PS3C_POOL_ARGMAX)
        a.ids = ps3c_cuda_ids_of(args->ids, args->first);
    a.pool = args->pool;
    a.segments = args->x->segments;
    a.tokens = args->x->tokens;
    a.channels = args->x->channels;
    a.pitch = ps3c_pitch(a.channels);
    if (a.segments)
        PS3C_CUDA_LAUNCH_ROWS(run, "pool_tokens", (pool_tokens<T>), a.segments, a, (const T *)args->x->data,
                              (T *)args->out->data);
    return PS3C_OK;
}

} // namespace

extern "C" ps3c_status ps3c_pool_tokens_cuda(const ps3c_run *run, const ps3c_pool_tokens_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return launch<T>(run, args));
}
