/* Loads the CUDA backend from libps3c_cuda.so, when a CUDA device is used for the first time. */
#ifndef PS3C_CUDA_LIBRARY_H
#define PS3C_CUDA_LIBRARY_H

#include "../contract/backend.h"
#include "../contract/error.h"

/* Sets *library (static memory) and opens it on the first call; it stays open. The file is the one that the
 * environment variable PS3C_CUDA_LIBRARY names, else libps3c_cuda.so in the folder of the module or program that
 * contains the engine, else libps3c_cuda.so on the loader's search path. ERROR_RUNTIME with a message that says what
 * is missing. */
ps3c_status ps3c_cuda_library_find(ps3c_context *context, const ps3c_cuda_library **library);

/* True if the CPU emulator is loaded. Then device memory is host memory. */
bool ps3c_cuda_on_host(void);

#endif
