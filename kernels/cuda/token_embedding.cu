/* Rows of the embedding table by token id, plus positions.
 *
 * An id outside the vocabulary cannot be reported as an error: that would need a device synchronisation. Its row
 * becomes NaN, which propagates to all results of that text; nothing outside the table is read. */
#include "tokens.cuh"

#include <cmath>

namespace
{

struct embed_args {
    ps3c_cuda_ids ids;
    int64_t rows, tokens, channels, pitch, vocab_size;
    bool wide; /* rows of table, positions and class token are 16-byte aligned */
};

template <class T>
__global__ void __launch_bounds__(PS3C_ROW_WARPS * 32)
    embed(embed_args a, const T *table, const T *positions, const T *class_token, T *out)
{
    const int lane = threadIdx.x % 32;
    for (int64_t row = ps3c_cuda_first_row(); row < a.rows; row += ps3c_cuda_row_step()) {
        const int64_t text = row / a.tokens, token = row % a.tokens;
        const int64_t id = token < a.ids.length ? ps3c_cuda_id(a.ids, text, token) : 0;
        const bool known = id >= 0 && id < a.vocab_size;
        const T *from = token < a.ids.length ? table + (known ? id : 0) * a.channels : class_token;
        for (int64_t c = lane * PS3C_WIDE<T>; c < a.pitch; c += 32 * PS3C_WIDE<T>) {
            const int64_t valid = a.channels - c;
            const ps3c_wide<T> v = ps3c_cuda_load(from + c, valid, a.wide);
            const ps3c_wide<T> p = ps3c_cuda_load(positions + token * a.channels + c, valid, a.wide);
            ps3c_wide<T> sum;
#pragma unroll
            for (int j = 0; j < PS3C_WIDE<T>; j++)
                sum.at[j] =
                    ps3c_from_float<T>(known || j >= valid ? ps3c_to_float(v.at[j]) + ps3c_to_float(p.at[j]) : NAN);
            *(ps3c_wide<T> *)(out + row * a.pitch + c) = sum;
        }
    }
}

template <class T> ps3c_status launch(const ps3c_run *run, const ps3c_token_embedding_args *args)
{
    embed_args a = {};
    a.ids = ps3c_cuda_ids_of(args->ids, args->first);
    a.rows = args->out->segments * args->out->tokens;
    a.tokens = args->out->tokens;
    a.channels = args->out->channels;
    a.pitch = ps3c_pitch(a.channels);
    a.vocab_size = args->vocab_size;
    a.wide = ps3c_cuda_wide(args->table, a.channels, sizeof(T)) &&
             ps3c_cuda_wide(args->positions, a.channels, sizeof(T)) &&
             ps3c_cuda_wide(args->class_token, a.channels, sizeof(T));
    if (a.rows)
        PS3C_CUDA_LAUNCH_ROWS(run, "token_embedding", (embed<T>), a.rows, a, (const T *)args->table,
                              (const T *)args->positions, (const T *)args->class_token, (T *)args->out->data);
    return PS3C_OK;
}

} // namespace

extern "C" ps3c_status ps3c_token_embedding_cuda(const ps3c_run *run, const ps3c_token_embedding_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return launch<T>(run, args));
}
