/* See shared_memory.h. */
#include "shared_memory.h"

#include <dlfcn.h>
#include <stdlib.h>

#include "../../../csrc/run/cuda_library.h"

/* ---- ordinary memory ------------------------------------------------------------------------------------------ */

static ps3c_status host_allocate(ps3c_context *context, size_t bytes, void **memory)
{
    if (posix_memalign(memory, PS3C_SHARED_ALIGNMENT, bytes) == 0)
        return PS3C_OK;
    return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for %zu bytes", bytes);
}

static ps3c_status host_release(ps3c_context *context, void *memory)
{
    (void)context;
    free(memory);
    return PS3C_OK;
}

static ps3c_status host_wait(ps3c_context *context)
{
    (void)context;
    return PS3C_OK;
}

/* ---- a GPU's: the CUDA driver's own functions ------------------------------------------------------------------- */

/* CUresult is an int; 0: CUDA_SUCCESS, 2: CUDA_ERROR_OUT_OF_MEMORY. cuda.h maps cuMemAllocHost to its _v2. The memory
 * is aligned to a page. Addresses are unified on every 64-bit Linux: the device reaches it by the same pointer. */
enum { DRIVER_SUCCESS = 0, DRIVER_OUT_OF_MEMORY = 2 };

static struct driver {
    void *handle;
    int (*allocate)(void **memory, size_t bytes);
    int (*release)(void *memory);
    int (*wait)(void);
    int (*name)(int error, const char **name);
} driver; /* written once, with the GIL held */

static ps3c_status check(ps3c_context *context, const char *function, int result)
{
    const char *name = NULL;

    if (result == DRIVER_SUCCESS)
        return PS3C_OK;
    if (driver.name(result, &name) != DRIVER_SUCCESS || !name)
        name = "an error without a name";
    return ps3c_fail(context, result == DRIVER_OUT_OF_MEMORY ? PS3C_ERROR_MEMORY : PS3C_ERROR_RUNTIME, "%s: %s (%d)",
                     function, name, result);
}

static ps3c_status driver_allocate(ps3c_context *context, size_t bytes, void **memory)
{
    *memory = NULL;
    return check(context, "cuMemAllocHost", driver.allocate(memory, bytes));
}

static ps3c_status driver_release(ps3c_context *context, void *memory)
{
    return check(context, "cuMemFreeHost", driver.release(memory));
}

static ps3c_status driver_wait(ps3c_context *context) { return check(context, "cuCtxSynchronize", driver.wait()); }

static ps3c_status open_driver(ps3c_context *context)
{
    static const char *const names[] = {"cuMemAllocHost_v2", "cuMemFreeHost", "cuCtxSynchronize", "cuGetErrorName"};
    struct driver found = {0};
    void **const functions[] = {(void **)&found.allocate, (void **)&found.release, (void **)&found.wait,
                                (void **)&found.name};

    if (driver.handle)
        return PS3C_OK;
    found.handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!found.handle)
        return ps3c_fail(context, PS3C_ERROR_RUNTIME, "the CUDA driver cannot be opened: %s", dlerror());
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        *functions[i] = dlsym(found.handle, names[i]);
        if (!*functions[i]) {
            dlclose(found.handle);
            return ps3c_fail(context, PS3C_ERROR_RUNTIME, "the CUDA driver has no %s", names[i]);
        }
    }
    driver = found;
    return PS3C_OK;
}

/* ---- which ------------------------------------------------------------------------------------------------------ */

ps3c_status ps3c_shared_memory_find(ps3c_context *context, ps3c_device_type type, const ps3c_shared_memory **found)
{
    static const ps3c_shared_memory host = {host_allocate, host_release, host_wait};
    static const ps3c_shared_memory device = {driver_allocate, driver_release, driver_wait};

    if (type == PS3C_CPU || ps3c_cuda_on_host()) {
        *found = &host;
        return PS3C_OK;
    }
    *found = &device;
    return open_driver(context);
}
