/* DLPack's ABI, as far as this binding uses it: tensors lent between libraries without a copy.
 *
 * Written from the public description of the protocol (dmlc.github.io/dlpack, version 1.3). Names are ours, layouts
 * are the protocol's and fixed for major version 1; version 0 is the unversioned managed tensor of torch below 2.9.
 */
#ifndef PS3C_BINDING_DLPACK_H
#define PS3C_BINDING_DLPACK_H

#include <stdint.h>

enum { PS3C_DL_CPU = 1, PS3C_DL_CUDA = 2 }; /* device types; others are refused */
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
    int64_t *shape;       /* [ndim], may be NULL when ndim is 0 */
    int64_t *strides;     /* [ndim] in elements; NULL: contiguous (before 1.2) */
    uint64_t byte_offset; /* from data to the first element */
} ps3c_dl_tensor;

/* Unversioned; travels in a capsule named "dltensor". The consumer renames the capsule to "used_dltensor" and then
 * owns the tensor: it calls deleter(self), once, when it is done. deleter may be NULL. */
typedef struct ps3c_dl_managed {
    ps3c_dl_tensor tensor;
    void *producer;
    void (*deleter)(struct ps3c_dl_managed *self);
} ps3c_dl_managed;

typedef struct ps3c_dl_version {
    uint32_t major, minor;
} ps3c_dl_version;

/* With another major version only deleter may be used. */
typedef struct ps3c_dl_versioned {
    ps3c_dl_version version;
    void *producer;
    void (*deleter)(struct ps3c_dl_versioned *self);
    uint64_t flags;
    ps3c_dl_tensor tensor;
} ps3c_dl_versioned;

/* The C exchange API: a capsule named "dlpack_exchange_api", attribute __dlpack_c_exchange_api__ of a tensor's type.
 * It lives as long as the process. Functions return 0, or -1 with a Python exception set; none waits for a stream. */
typedef struct ps3c_dl_exchange {
    ps3c_dl_version version;
    struct ps3c_dl_exchange *older;
    int (*allocate)(ps3c_dl_tensor *prototype, ps3c_dl_versioned **out, void *error_context,
                    void (*set_error)(void *error_context, const char *kind, const char *message));
    int (*managed_from_object)(void *object, ps3c_dl_versioned **out);
    int (*managed_to_object)(ps3c_dl_versioned *tensor, void **out);
    int (*tensor_from_object)(void *object, ps3c_dl_tensor *out); /* borrowed while the GIL is held; may be NULL */
    int (*current_stream)(int32_t device_type, int32_t device_id, void **stream);
} ps3c_dl_exchange;

#endif
