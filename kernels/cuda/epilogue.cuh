/* The part of a product's epilogue that cuBLASLt does not have: activations, layer scale, zeros in padding channels. */
#ifndef PS3C_EPILOGUE_CUH
#define PS3C_EPILOGUE_CUH

#include "cuda.cuh"

/* y[:, channel : channel + n] = act(in) * scale + residual, for `rows` rows; padding channels that follow are zeroed.
 * Elements of the run's dtype, float32 arithmetic. Pitches are multiples of PS3C_CHUNK. */
struct ps3c_epilogue {
    int64_t rows, n;
    const void *in; /* may be y + channel */
    int64_t in_pitch;
    ps3c_activation_function act;
    const void *scale;    /* [n] or NULL */
    const void *residual; /* NULL, or rows like in; may be y + channel */
    int64_t residual_pitch;
    void *y;
    int64_t y_channels, channel; /* channel: even */
};

ps3c_status ps3c_epilogue_cuda(const ps3c_run *run, const ps3c_epilogue *epilogue);

/* Zeroes the padding channels of `rows` rows of `channels` channels. */
ps3c_status ps3c_zero_pads_cuda(const ps3c_run *run, void *y, int64_t rows, int64_t channels);

#endif
