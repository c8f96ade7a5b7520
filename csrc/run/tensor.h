/* Views of the caller's tensors, and the one check that every run makes on them. */
#ifndef PS3C_TENSOR_H
#define PS3C_TENSOR_H

#include "../contract/error.h"

enum { PS3C_ANY = -1 }; /* a dimension of any size, or any dtype */

/* What a tensor must be. */
typedef struct ps3c_tensor_rule {
    int dtype; /* a ps3c_dtype, or PS3C_ANY */
    ps3c_device device;
    int ndim;
    const int64_t *shape; /* [ndim], PS3C_ANY allowed; NULL: any shape */
    bool contiguous;
} ps3c_tensor_rule;

/* Checks a tensor. name, and index unless it is negative, name it in the message: "prompt", "hidden_states[1]".
 * VALUE error: no tensor (NULL), another shape. TYPE error: another dtype, not contiguous. RUNTIME error: another
 * device. */
ps3c_status ps3c_tensor_check(ps3c_context *context, const char *name, int64_t index, const ps3c_tensor *tensor,
                              const ps3c_tensor_rule *rule);
/* The same for an input that a plan may not want: VALUE error if it is there without being wanted, or missing. */
ps3c_status ps3c_tensor_check_optional(ps3c_context *context, const char *name, bool wanted, const ps3c_tensor *tensor,
                                       const ps3c_tensor_rule *rule);

bool ps3c_tensor_is_contiguous(const ps3c_tensor *tensor);
/* Entries [first, first + count) of the first dimension. */
ps3c_tensor ps3c_tensor_slice(const ps3c_tensor *tensor, int64_t first, int64_t count);

enum { PS3C_SHAPE_BYTES = 200 };
/* "(1, 3, 378, 378)"; PS3C_ANY as "any". Returns text. */
const char *ps3c_shape_text(int ndim, const int64_t *shape, char text[PS3C_SHAPE_BYTES]);

#endif
