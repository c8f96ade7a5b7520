/* The fields of a context. Only the engine and the binding read them. */
#ifndef PS3C_CONTEXT_H
#define PS3C_CONTEXT_H

#include "../contract/backend.h"
#include "../contract/error.h"

struct ps3c_context {
    char message[1024];       /* of the last error */
    int threads;              /* 0: the default */
    const char *level;        /* static memory; NULL: the best */
    char unknown_level[32];   /* value of PS3C_CPU_LEVEL if it names no available level, else "" */
    char invalid_threads[32]; /* value of PS3C_NUM_THREADS if it is no number of threads, else "" */
    int (*interrupt)(void *data);
    void *interrupt_data;
};

#define PS3C_DEFAULT_WORKSPACE ((size_t)256 << 20) /* bytes, for backends without a default */

/* Sets *limit to the workspace limit, in bytes, of a plan whose request has none: the environment variable
 * PS3C_WORKSPACE_LIMIT, else the backend's default. ERROR_VALUE if the variable is not a number of bytes. */
ps3c_status ps3c_context_workspace_limit(ps3c_context *context, const ps3c_backend *backend, int32_t device_index,
                                         size_t *limit);

/* The most threads that a CPU run uses, whatever its context requests: the processors (processors.h), or
 * PS3C_NUM_THREADS if that is more. Scratch is planned for this number. */
int ps3c_threads_limit(void);
/* Number of threads of a run of this context: at least 1, at most limit. */
int ps3c_context_threads(const ps3c_context *context, int limit);
/* Sets *backend (static memory) for a device. ERROR_RUNTIME if there is none; ERROR_VALUE for an unknown
 * PS3C_CPU_LEVEL. */
ps3c_status ps3c_context_backend(ps3c_context *context, ps3c_device device, const ps3c_backend **backend);

#endif
