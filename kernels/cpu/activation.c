/* Sizes of the CPU backend's memory: activations and scratch. */
#include "scratch.h"
#include "block_scratch.h"

/* a * b; SIZE_MAX if it overflows or if a or b is SIZE_MAX. */
static size_t multiply(size_t a, size_t b)
{
    size_t product;
    return a == SIZE_MAX || b == SIZE_MAX || __builtin_mul_overflow(a, b, &product) ? SIZE_MAX : product;
}

static size_t greater(size_t a, size_t b) { return a > b ? a : b; }

size_t ps3c_cpu_activation_bytes(ps3c_dtype dtype, int64_t segments, int64_t tokens, int64_t channels)
{
    size_t panels;
    if (segments < 0 || tokens < 0 || channels < 0 || tokens > INT64_MAX - PS3C_PANEL || channels == INT64_MAX)
        return SIZE_MAX;
    /* A panel's row is 192 bytes, so every size is a multiple of 64. */
    panels = multiply((size_t)segments, (size_t)ps3c_panels(tokens));
    return multiply(panels, multiply((size_t)ps3c_channel_words(dtype, channels), PS3C_PANEL * sizeof(ps3c_word)));
}

static size_t floats(int64_t count) { return multiply((size_t)count, sizeof(float)); }

/* The maximum over the operations that use run->scratch: one line each. */
size_t ps3c_cpu_scratch_bytes(ps3c_dtype dtype, int threads, int64_t tokens, int64_t channels, int64_t positions)
{
    size_t each = threads > 0 ? (size_t)threads : 1, bytes = 0;
    (void)dtype;
    bytes = greater(bytes, multiply(each, sizeof(ps3c_gemm_scratch)));
    bytes = greater(bytes, multiply(each, sizeof(ps3c_attention_scratch)));
    /* LayerNorm: weight and bias as float32 */
    bytes = greater(bytes, multiply((size_t)channels, 2 * sizeof(float)));
    /* attention, naive: a head's output per thread, float64 */
    bytes = greater(bytes, multiply(each, multiply((size_t)channels + 8, sizeof(double))));
    /* The other operations: block_scratch.h. Their plain versions never need more. */
    if (tokens > INT64_MAX / 256 || channels > INT64_MAX / 256 || positions > INT64_MAX / 256)
        return SIZE_MAX;
    bytes = greater(bytes, multiply(each, floats(ps3c_position_add_floats(channels))));
    bytes = greater(bytes, multiply(each, floats(ps3c_depthwise_floats(PS3C_DEPTHWISE_COLS))));
    bytes = greater(bytes, multiply(each, floats(ps3c_attention_pool_floats(tokens))));
    bytes = greater(bytes, floats(ps3c_rank_floats(positions)));
    return bytes > SIZE_MAX - 63 ? SIZE_MAX : (bytes + 63) / 64 * 64;
}
