/* Probability of selection: softmax over {clamp(5 x, -10, 10), 0}, rounded to the run's dtype but kept in float32. */
#include "cuda.cuh"

namespace
{

constexpr int THREADS = 128;

template <class T> __global__ void __launch_bounds__(THREADS) probability(ps3c_probability_args args)
{
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < args.count; i += (int64_t)gridDim.x * THREADS) {
        const float x = args.highres ? (args.logits[i] + args.highres[i]) / 2.0f : args.logits[i];
        float z = x * 5.0f;
        z = z < -10.0f ? -10.0f : z > 10.0f ? 10.0f : z; /* keeps NaN */
        const float most = z > 0.0f ? z : 0.0f, yes = expf(z - most), no = expf(0.0f - most);
        args.probs[i] = ps3c_to_float(ps3c_from_float<T>(yes / (yes + no)));
    }
}

template <class T> ps3c_status launch(const ps3c_run *run, const ps3c_probability_args *args)
{
    PS3C_CUDA_LAUNCH(run, "probability", (probability<T>), ps3c_cuda_blocks(args->count, THREADS), THREADS, 0, *args);
    return PS3C_OK;
}

} // namespace

extern "C" ps3c_status ps3c_probability_cuda(const ps3c_run *run, const ps3c_probability_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return launch<T>(run, args));
}
