/* Memory that the host and a device both reach, and waiting for the device: what a test of one operation needs and the
 * engine does not. */
#ifndef PS3C_TESTS_SHARED_MEMORY_H
#define PS3C_TESTS_SHARED_MEMORY_H

#include "../../../csrc/contract/backend.h"
#include "../../../csrc/contract/error.h"

enum { PS3C_SHARED_ALIGNMENT = 256 }; /* what CUDA activations need; CPU ones need 64 */

/* Errors: MEMORY, or RUNTIME with the driver's name for it. A device's functions need its context to be current on the
 * calling thread, as it is between the backend's begin() and end(). */
typedef struct ps3c_shared_memory {
    ps3c_status (*allocate)(ps3c_context *context, size_t bytes, void **memory); /* on PS3C_SHARED_ALIGNMENT */
    ps3c_status (*release)(ps3c_context *context, void *memory);
    ps3c_status (*wait)(ps3c_context *context); /* until the device has done all that was enqueued */
} ps3c_shared_memory;

/* Ordinary memory for the CPU and for CUDA kernels that run on it; page-locked memory of the driver for a GPU. Call it
 * after the device's backend was found, which opens the CUDA library. RUNTIME error if the driver cannot be opened. */
ps3c_status ps3c_shared_memory_find(ps3c_context *context, ps3c_device_type type, const ps3c_shared_memory **found);

#endif
