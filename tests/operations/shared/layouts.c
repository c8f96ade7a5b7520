/* See layouts.h. */
#include "layouts.h"

#include "../../../kernels/cpu/cpu.h"

/* ---- cpu: panels of 48 tokens, in pairs of 16-bit channels; described in kernels/cpu/cpu.h ---------------------- */

static int64_t cpu_room(const ps3c_activation *x) { return ps3c_panels(x->tokens) * PS3C_PANEL; }

static int64_t cpu_padded_channels(const ps3c_activation *x, ps3c_dtype dtype)
{
    return ps3c_is16(dtype) ? (x->channels + 1) / 2 * 2 : x->channels;
}

/* ---- cuda: rows, padded to 8 channels; kernels/cuda/cuda.cuh ---------------------------------------------------- */

static int64_t cuda_padded_channels(const ps3c_activation *x, ps3c_dtype dtype)
{
    (void)dtype;
    return (x->channels + 7) / 8 * 8;
}

static int64_t cuda_element(const ps3c_activation *x, ps3c_dtype dtype, int64_t segment, int64_t token, int64_t channel,
                            bool values)
{
    (void)values;
    return (segment * x->tokens + token) * cuda_padded_channels(x, dtype) + channel;
}

static int64_t cuda_room(const ps3c_activation *x) { return x->tokens; }

/* ---- both ----------------------------------------------------------------------------------------------------- */

const ps3c_layout *ps3c_layout_of(ps3c_device_type type)
{
    static const ps3c_layout layouts[] = {
        [PS3C_CPU] = {.element = ps3c_element, .room = cpu_room, .padded_channels = cpu_padded_channels},
        [PS3C_CUDA] = {.element = cuda_element, .room = cuda_room, .padded_channels = cuda_padded_channels},
    };
    return &layouts[type];
}

float ps3c_layout_read(ps3c_dtype dtype, const void *data, int64_t i) { return ps3c_load(dtype, data, i); }

void ps3c_layout_write(ps3c_dtype dtype, void *data, int64_t i, float value) { ps3c_store(dtype, data, i, value); }
