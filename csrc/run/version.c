/* The library's version. */
#include "../ps3c.h"

#define TEXT_OF(value) #value
#define TEXT(value) TEXT_OF(value)

const char *ps3c_version(void)
{
    return TEXT(PS3C_VERSION_MAJOR) "." TEXT(PS3C_VERSION_MINOR) "." TEXT(PS3C_VERSION_PATCH);
}
