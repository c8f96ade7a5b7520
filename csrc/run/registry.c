/* The registry of backends. The engine finds its kernels here and calls none of them by name. */
#include "registry.h"

#include <stddef.h>

static const char *const names[] = {"cpu", "cuda"};
enum { TYPES = sizeof names / sizeof *names };

static const ps3c_backend_source *sources[TYPES];

void ps3c_register_backend(ps3c_device_type type, const ps3c_backend_source *source)
{
    if ((unsigned)type < TYPES)
        sources[type] = source;
}

const ps3c_backend_source *ps3c_registered_source(ps3c_device_type type)
{
    return (unsigned)type < TYPES ? sources[type] : NULL;
}

const char *ps3c_device_name(ps3c_device_type type) { return (unsigned)type < TYPES ? names[type] : "unknown"; }

const char *const *ps3c_cpu_levels(void)
{
    static const char *const none[] = {NULL};
    const ps3c_backend_source *cpu = ps3c_registered_source(PS3C_CPU);
    return cpu && cpu->levels ? cpu->levels() : none;
}
