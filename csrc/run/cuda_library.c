/* Finds and opens the library of the CUDA backend. The CPU backend needs neither the library nor a driver. */
#define _GNU_SOURCE /* dladdr */
#include "cuda_library.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME "libps3c_cuda.so"

/* The open library, protected by a lock; all contexts of the process share it. After a failure the next call tries
 * again. */
static struct {
    pthread_mutex_t lock;
    const ps3c_cuda_library *library;
} opened = {PTHREAD_MUTEX_INITIALIZER, NULL};

static ps3c_status fail(ps3c_context *context, ps3c_status status, const char *sentence)
{
    return ps3c_fail(context, status, "%s", sentence);
}

/* Writes the path of the library in the folder of the file that contains this code. False if there is no such file or
 * the path is too long. */
static bool beside_us(char *path, size_t size)
{
    Dl_info info;
    const char *slash;
    if (!dladdr((const void *)&opened, &info) || !info.dli_fname || !(slash = strrchr(info.dli_fname, '/')))
        return false;
    const int folder = (int)(slash - info.dli_fname),
              length = snprintf(path, size, "%.*s/" NAME, folder, info.dli_fname);
    FILE *file = length > 0 && (size_t)length < size ? fopen(path, "rb") : NULL;
    if (file)
        fclose(file);
    return file != NULL;
}

static ps3c_status open_library(ps3c_context *context, const ps3c_cuda_library **library)
{
    static const ps3c_cuda_host host = {PS3C_CUDA_ABI, sizeof(ps3c_backend), fail};
    char path[PATH_MAX];
    const char *asked = getenv("PS3C_CUDA_LIBRARY");
    const char *name = asked && *asked ? asked : beside_us(path, sizeof path) ? path : NAME;
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *reason = dlerror();
        return ps3c_fail(
            context, PS3C_ERROR_RUNTIME,
            "device: got a CUDA tensor, but ps3c's CUDA library cannot be opened (%s); build ps3c where nvcc "
            "is (PS3C_CUDA=1 pip install -v says what is amiss), or use tensors on the CPU",
            reason ? reason : name);
    }
    ps3c_cuda_open_function *open;
    *(void **)&open = dlsym(handle, "ps3c_cuda_open");
    *library = open ? open(&host) : NULL;
    if (*library)
        return PS3C_OK;
    dlclose(handle);
    return ps3c_fail(context, PS3C_ERROR_RUNTIME,
                     "device: got a CUDA tensor, but %s belongs to another build of ps3c; install ps3c anew", name);
}

ps3c_status ps3c_cuda_library_find(ps3c_context *context, const ps3c_cuda_library **library)
{
    ps3c_status status = PS3C_OK;
    pthread_mutex_lock(&opened.lock);
    if (!opened.library)
        status = open_library(context, &opened.library);
    *library = opened.library;
    pthread_mutex_unlock(&opened.lock);
    return status;
}

bool ps3c_cuda_on_host(void)
{
    bool on_host;
    pthread_mutex_lock(&opened.lock);
    on_host = opened.library && opened.library->host_memory;
    pthread_mutex_unlock(&opened.lock);
    return on_host;
}

static ps3c_status find_backend(ps3c_context *context, int32_t device_index, const char *level,
                                const ps3c_backend **backend)
{
    const ps3c_cuda_library *library;
    (void)level;
    PS3C_TRY(ps3c_cuda_library_find(context, &library));
    PS3C_TRY(library->check_device(context, device_index));
    *backend = library->backend;
    return PS3C_OK;
}

const ps3c_backend_source ps3c_cuda_source = {.find = find_backend};
