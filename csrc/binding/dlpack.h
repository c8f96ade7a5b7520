/* The part of DLPack's ABI that this binding uses. DLPack shares tensors between libraries without a copy.
 *
 * Source: the public description of the protocol (dmlc.github.io/dlpack, version 1.3). The names are our own. The
 * memory layouts are those of the protocol, which are fixed for major version 1. Version 0 is the unversioned managed
 * tensor of torch below 2.9. */
#ifndef PS3C_BINDING_DLPACK_H
#define PS3C_BINDING_DLPACK_H

#include <stdint.h>

enum { PS3C_DL_CPU = 1, PS3C_DL_CUDA = 2 }; /* device types; others are rejected */
enum {
    PS3C_DL_INT = 0,
    PS3C_DL_UINT = 1,
    PS3C_DL_FLOAT = 2,
    PS3C_DL_BFLOAT = 4,
    PS3C_DL_COMPLEX = 5,
    PS3C_DL_BOOL = 6
};

typedef struct ps3c_dl_tensor {
    void *data;
    struct {
        int32_t type;
        int32_t id;
    } device;
    int32_t ndim;
    struct {
        uint8_t code;
        uint8_t bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape;       /* [ndim]; may be NULL if ndim is 0 */
    int64_t *strides;     /* [ndim], in elements; NULL: contiguous (before version 1.2) */
    uint64_t byte_offset; /* distance from data to the first element */
} ps3c_dl_tensor;

/* The unversioned tensor, in a capsule named "dltensor". The consumer renames the capsule to "used_dltensor" and then
 * owns the tensor: it calls deleter(self) exactly once. deleter may be NULL. */
typedef struct ps3c_dl_managed {
    ps3c_dl_tensor tensor;
    void *producer;
    void (*deleter)(struct ps3c_dl_managed *self);
} ps3c_dl_managed;

typedef struct ps3c_dl_version {
    uint32_t major, minor;
} ps3c_dl_version;

enum { PS3C_DL_READ_ONLY = 1, PS3C_DL_IS_COPIED = 2 }; /* flags of a versioned tensor */

/* The versioned tensor. With another major version, only version and deleter may be used. */
typedef struct ps3c_dl_versioned {
    ps3c_dl_version version;
    void *producer;
    void (*deleter)(struct ps3c_dl_versioned *self);
    uint64_t flags;
    ps3c_dl_tensor tensor;
} ps3c_dl_versioned;

/* The C exchange API. It is in a capsule named "dlpack_exchange_api", the attribute __dlpack_c_exchange_api__ of a
 * tensor's type. It is valid until the process ends. Its functions return 0, or -1 with a Python exception set. None of
 * them synchronises a stream. */
typedef struct ps3c_dl_exchange {
    ps3c_dl_version version;
    struct ps3c_dl_exchange *older;
    int (*allocate)(ps3c_dl_tensor *prototype, ps3c_dl_versioned **out, void *error_context,
                    void (*set_error)(void *error_context, const char *kind, const char *message));
    int (*managed_from_object)(void *object, ps3c_dl_versioned **out);
    int (*managed_to_object)(ps3c_dl_versioned *tensor, void **out);
    int (*tensor_from_object)(void *object,
                              ps3c_dl_tensor *out); /* borrows; valid while the GIL is held; may be NULL */
    int (*current_stream)(int32_t device_type, int32_t device_id, void **stream);
} ps3c_dl_exchange;

#endif
