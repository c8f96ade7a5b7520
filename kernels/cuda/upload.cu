/* Host arrays as kernel parameters. */
#include "upload.cuh"

#include <cstring>

namespace
{

constexpr int WORDS = 896; /* 3584 bytes; every architecture allows 4096 bytes of parameters */

struct words {
    uint32_t at[WORDS];
};

__global__ void write_words(uint32_t *out, words in, int count)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count)
        out[i] = in.at[i];
}

} // namespace

ps3c_status ps3c_cuda_upload(const ps3c_run *run, const char *operation, void *device, const void *host, size_t bytes)
{
    const size_t total = bytes / 4;
    for (size_t first = 0; first < total; first += WORDS) {
        const int count = (int)(total - first < (size_t)WORDS ? total - first : (size_t)WORDS);
        words in = {};
        memcpy(in.at, (const uint32_t *)host + first, (size_t)count * 4);
        PS3C_CUDA_LAUNCH(run, operation, write_words, ps3c_cuda_blocks(count, 128), 128, 0, (uint32_t *)device + first,
                         in, count);
    }
    return PS3C_OK;
}
