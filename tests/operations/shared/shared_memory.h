/* Memory that both the host and a device access, and waiting for the device. Tests of operations need these; the engine
 * does not. */
#ifndef PS3C_TESTS_SHARED_MEMORY_H
#define PS3C_TESTS_SHARED_MEMORY_H

#include "../../../csrc/contract/backend.h"
#include "../../../csrc/contract/error.h"

enum { PS3C_SHARED_ALIGNMENT = 256 }; /* bytes; required by CUDA activations, CPU activations need 64 */

/* Errors: ERROR_MEMORY, or ERROR_RUNTIME with the driver's name of the error. The functions of a device need its
 * context to be current on the calling thread, as it is between the backend's begin() and end(). */
typedef struct ps3c_shared_memory {
    ps3c_status (*allocate)(ps3c_context *context, size_t bytes, void **memory); /* aligned to PS3C_SHARED_ALIGNMENT */
    ps3c_status (*release)(ps3c_context *context, void *memory);
    ps3c_status (*wait)(ps3c_context *context); /* until all enqueued work is done */
} ps3c_shared_memory;

/* Sets *found: ordinary memory for the CPU and the CPU emulator of CUDA, page-locked memory of the driver for a GPU.
 * Call it after the device's backend was found, because that opens the CUDA library. ERROR_RUNTIME if the driver
 * cannot be opened. */
ps3c_status ps3c_shared_memory_find(ps3c_context *context, ps3c_device_type type, const ps3c_shared_memory **found);

#endif
