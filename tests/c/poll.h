/* The engine's ps3c_context_poll, for tests of kernels without the engine. */
#ifndef PS3C_TESTS_POLL_H
#define PS3C_TESTS_POLL_H

#include <stdbool.h>

extern int test_polls;        /* how often it was called; only the thread that called a kernel polls */
extern bool test_interrupted; /* what it reports */

#endif
