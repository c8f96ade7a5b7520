/* One engine call: its context, and the check of signals while the GIL is released. */
#include "binding.h"

#include <time.h>

/* The engine calls the interrupt function between layers, but signals are checked only at this interval. The reason:
 * acquiring the GIL can take a switch interval (5 ms) if other Python threads are busy. */
#define PS3C_SIGNAL_INTERVAL_NS INT64_C(50000000)

static int64_t ps3c_monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The interrupt function. It runs on the thread that called the engine, without the GIL. Returns non-zero if a signal
 * handler raised an exception. */
static int ps3c_call_interrupt(void *data)
{
    ps3c_call *call = data;
    int64_t now = ps3c_monotonic_ns();
    if (now < call->next_check)
        return 0;
    call->next_check = now + PS3C_SIGNAL_INTERVAL_NS;
    PyEval_RestoreThread(call->thread);
    int raised = PyErr_CheckSignals();
    call->thread = PyEval_SaveThread();
    return raised;
}

int ps3c_call_begin(ps3c_call *call, int threads, const char *level)
{
    *call = (ps3c_call){.context = ps3c_context_create()};
    if (call->context == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    ps3c_status status = PS3C_OK;
    if (threads > 0)
        status = ps3c_context_set_threads(call->context, threads);
    if (status == PS3C_OK && level != NULL)
        status = ps3c_context_set_cpu_level(call->context, level);
    if (status != PS3C_OK) {
        ps3c_python_error(call->context, status);
        goto fail;
    }
    call->next_check = ps3c_monotonic_ns() + PS3C_SIGNAL_INTERVAL_NS;
    ps3c_context_set_interrupt(call->context, ps3c_call_interrupt, call);
    return 0;
fail:
    ps3c_call_end(call);
    return -1;
}

void ps3c_call_end(ps3c_call *call)
{
    ps3c_context_free(call->context);
    call->context = NULL;
}
