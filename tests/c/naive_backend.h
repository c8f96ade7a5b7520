/* A backend of the plain C operations, for tests of the engine. */
#ifndef PS3C_NAIVE_BACKEND_H
#define PS3C_NAIVE_BACKEND_H

#include "check.h"

static ps3c_status find_naive(ps3c_context *context, int32_t device_index, const char *level,
                              const ps3c_backend **found)
{
#define NAIVE(op) .op = ps3c_##op##_naive,
    static const ps3c_backend backend = {.name = "naive",
                                         .activation_bytes = ps3c_cpu_activation_bytes,
                                         .scratch_bytes = ps3c_cpu_scratch_bytes,
                                         .begin = ps3c_cpu_begin,
                                         .end = ps3c_cpu_end,
                                         PS3C_OPERATIONS(NAIVE) PS3C_HOST_OPERATIONS(NAIVE)};
    (void)context, (void)device_index, (void)level;
    *found = &backend;
    return PS3C_OK;
}

static const char *const *naive_levels(void)
{
    static const char *const names[] = {"naive", NULL};
    return names;
}
static const ps3c_backend_source naive_source = {.find = find_naive, .levels = naive_levels};

#endif
