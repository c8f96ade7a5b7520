/* Views of the caller's tensors, and the checks that every run makes on them. */
#ifndef PS3C_TENSOR_H
#define PS3C_TENSOR_H

#include "../contract/error.h"

bool ps3c_tensor_is_contiguous(const ps3c_tensor *tensor);
/* Checks rank, shape (-1: any), dtype and device; VALUE or TYPE error that names the argument. */
ps3c_status ps3c_tensor_check(ps3c_context *context, const char *name, const ps3c_tensor *tensor, ps3c_dtype dtype,
                              ps3c_device device, int ndim, const int64_t *shape);
/* The same, and contiguous. */
ps3c_status ps3c_tensor_check_contiguous(ps3c_context *context, const char *name, const ps3c_tensor *tensor,
                                         ps3c_dtype dtype, ps3c_device device, int ndim, const int64_t *shape);
/* Entries [first, first + count) of the first dimension. */
ps3c_tensor ps3c_tensor_slice(const ps3c_tensor *tensor, int64_t first, int64_t count);
/* "(1, 3, 378, 378)"; -1 as "any". */
void ps3c_shape_text(int ndim, const int64_t *shape, char *text, size_t size);

#endif
