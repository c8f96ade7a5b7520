/* The context's fields, for the engine alone. */
#ifndef PS3C_CONTEXT_H
#define PS3C_CONTEXT_H

#include "../contract/backend.h"
#include "../contract/error.h"

struct ps3c_context {
    char message[1024];
    int threads;            /* 0: OpenMP's choice */
    const char *level;      /* static memory; NULL: the best */
    char unknown_level[32]; /* what PS3C_CPU_LEVEL held, when it names no level here */
    int (*interrupt)(void *data);
    void *interrupt_data;
};

#define PS3C_DEFAULT_WORKSPACE ((size_t)256 << 20) /* bytes, of backends that have no default of their own */

/* Bytes of workspace that a plan without a limit of its own stays under: what PS3C_WORKSPACE_LIMIT says, else the
 * backend's default. VALUE error when the variable holds no number. */
ps3c_status ps3c_context_workspace_limit(ps3c_context *context, const ps3c_backend *backend, int32_t device_index,
                                         size_t *limit);

/* Threads that a CPU run may use at most, whatever a context asks: scratch is planned for that many. */
int ps3c_threads_limit(void);
/* Threads of a run of this context, at least 1. */
int ps3c_context_threads(const ps3c_context *context, int limit);
/* The backend for a device; RUNTIME error when there is none. */
ps3c_status ps3c_context_backend(ps3c_context *context, ps3c_device device, const ps3c_backend **backend);
/* PS3C_OK, or ERROR_INTERRUPTED when the interrupt function says so. */
ps3c_status ps3c_context_poll(ps3c_context *context);

#endif
