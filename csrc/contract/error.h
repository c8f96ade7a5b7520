/* How engine and kernels report errors: a status, and a sentence left in the call's context. */
#ifndef PS3C_ERROR_H
#define PS3C_ERROR_H

#include "../ps3c.h"

/* Leaves the sentence in the context (truncated to its buffer) and returns status. context may be NULL. */
ps3c_status ps3c_fail(ps3c_context *context, ps3c_status status, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

/* Returns from the caller with any status but PS3C_OK. */
#define PS3C_TRY(call)                        \
    do {                                      \
        ps3c_status ps3c_try_status = (call); \
        if (ps3c_try_status != PS3C_OK)       \
            return ps3c_try_status;           \
    } while (0)

#endif
