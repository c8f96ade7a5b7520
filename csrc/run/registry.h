/* Looks up the backends that the program registered. */
#ifndef PS3C_REGISTRY_H
#define PS3C_REGISTRY_H

#include "../contract/backend.h"
#include "../contract/error.h"

/* The source registered for a device type, or NULL. */
const ps3c_backend_source *ps3c_registered_source(ps3c_device_type type);
/* "cpu" or "cuda"; "unknown" for a value outside the enumeration. Static memory. */
const char *ps3c_device_name(ps3c_device_type type);

#endif
