/* Attention of float16 and bfloat16 on the tensor cores; the other cases are in attention_float32.cu. */
#include "attention.cuh"

namespace
{

/* The head dims of published models (64, 72, 80) have shapes of their own; others use the next larger shape, padded
 * with zeros. Wide heads use smaller tiles, to fit registers and shared memory. */
template <class T> ps3c_status launch(const ps3c_run *run, const ps3c_attention_args *args)
{
    const int64_t dim = args->head_dim;
    if (dim <= 32)
        return attention_flash_launch<T, 32, 2, 64, true>(run, args);
    if (dim <= 64)
        return attention_flash_launch<T, 64, 2, 64, true>(run, args);
    if (dim <= 72)
        return attention_flash_launch<T, 72, 2, 64, true>(run, args);
    if (dim <= 80)
        return attention_flash_launch<T, 80, 2, 64, true>(run, args);
    if (dim <= 96)
        return attention_flash_launch<T, 96, 2, 64, false>(run, args);
    if (dim <= 128)
        return attention_flash_launch<T, 128, 2, 32, false>(run, args);
    return attention_flash_launch<T, 256, 1, 32, false>(run, args);
}

} // namespace

extern "C" ps3c_status ps3c_attention_cuda(const ps3c_run *run, const ps3c_attention_args *args)
{
    if (run->dtype == PS3C_FLOAT32 || args->head_dim > 256)
        return ps3c_attention_float32_cuda(run, args);
    if (run->dtype == PS3C_FLOAT16)
        return launch<ps3c_half>(run, args);
    return launch<ps3c_bf16>(run, args);
}
