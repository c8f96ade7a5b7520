/* How engine and kernels report errors: they return a status and leave a message in the context. */
#ifndef PS3C_ERROR_H
#define PS3C_ERROR_H

#include "../ps3c.h"

/* Writes the message into the context (truncated to its buffer) and returns status. If context is NULL, it only returns
 * status. */
ps3c_status ps3c_fail(ps3c_context *context, ps3c_status status, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

/* Calls the context's interrupt function, if there is one. ERROR_INTERRUPTED if it returns non-zero. Only the thread
 * that called the engine may poll. context may be NULL. */
ps3c_status ps3c_context_poll(ps3c_context *context);

/* Returns the call's status from the calling function unless it is PS3C_OK. */
#define PS3C_TRY(call)                        \
    do {                                      \
        ps3c_status ps3c_try_status = (call); \
        if (ps3c_try_status != PS3C_OK)       \
            return ps3c_try_status;           \
    } while (0)

#endif
