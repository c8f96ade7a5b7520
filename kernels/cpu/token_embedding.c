/* Embedding of token ids and positions; the class token after them. */
#include <inttypes.h>

#include "tokens.h"

ps3c_status ps3c_token_embedding(const ps3c_run *run, const ps3c_token_embedding_args *args)
{
    const ps3c_activation *out = args->out;
    const int64_t length = args->ids->shape[1];
    for (int64_t s = 0; s < out->segments; s++)
        for (int64_t t = 0; t < length; t++) {
            int64_t id = ps3c_tensor_id(args->ids, args->first + s, t);
            if (id < 0 || id >= args->vocab_size)
                return ps3c_fail(run->context, PS3C_ERROR_VALUE,
                                 "ids[%" PRId64 "][%" PRId64 "]: got %" PRId64
                                 ", expected a token id from 0 to %" PRId64,
                                 args->first + s, t, id, args->vocab_size - 1);
        }
    ps3c_activation_clear(out, run->dtype);
    for (int64_t s = 0; s < out->segments; s++)
        for (int64_t t = 0; t < out->tokens; t++) {
            int64_t row = t < length ? ps3c_tensor_id(args->ids, args->first + s, t) * out->channels : 0;
            for (int64_t c = 0; c < out->channels; c++)
                ps3c_set(out, run->dtype, s, t, c,
                         ps3c_load(run->dtype, t < length ? args->table : args->class_token, row + c) +
                             ps3c_load(run->dtype, args->positions, t * out->channels + c));
        }
    return PS3C_OK;
}

PS3C_CPU_EVERY_LEVEL(token_embedding)
