/* The check of the caller's tensors, used by every run, and operations on views. */
#ifndef PS3C_TENSOR_H
#define PS3C_TENSOR_H

#include "../contract/error.h"

enum { PS3C_ANY = -1 }; /* a dimension of any size, or any dtype */

/* The required properties of a tensor. */
typedef struct ps3c_tensor_rule {
    int dtype; /* ps3c_dtype or PS3C_ANY */
    ps3c_device device;
    int ndim;
    const int64_t *shape; /* [ndim], each a size or PS3C_ANY; NULL: any shape and ndim */
    bool contiguous;
} ps3c_tensor_rule;

/* Checks a tensor. The message calls it name, or name[index] if index >= 0: "prompt", "hidden_states[1]". ERROR_VALUE:
 * tensor or its data is NULL, or another shape. ERROR_TYPE: another dtype, or not contiguous. ERROR_RUNTIME: another
 * device. */
ps3c_status ps3c_tensor_check(ps3c_context *context, const char *name, int64_t index, const ps3c_tensor *tensor,
                              const ps3c_tensor_rule *rule);
/* The same for an optional tensor, which the plan expects if `wanted`. If it is not wanted, it must be NULL:
 * ERROR_VALUE. */
ps3c_status ps3c_tensor_check_optional(ps3c_context *context, const char *name, bool wanted, const ps3c_tensor *tensor,
                                       const ps3c_tensor_rule *rule);

bool ps3c_tensor_is_contiguous(const ps3c_tensor *tensor);
/* A view of entries [first, first + count) of the first dimension. */
ps3c_tensor ps3c_tensor_slice(const ps3c_tensor *tensor, int64_t first, int64_t count);

enum { PS3C_SHAPE_BYTES = 200 };
/* Writes the shape as "(1, 3, 378, 378)", PS3C_ANY as "any". Returns text. */
const char *ps3c_shape_text(int ndim, const int64_t *shape, char text[PS3C_SHAPE_BYTES]);
/* The same of sizes or strides that a caller gave, where -1 is a number. */
const char *ps3c_sizes_text(int ndim, const int64_t *sizes, char text[PS3C_SHAPE_BYTES]);

#endif
