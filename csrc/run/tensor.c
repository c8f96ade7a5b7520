/* Tensor views: dtype names, shape checks, slices. */
#include "tensor.h"

#include <stdio.h>
#include <string.h>

size_t ps3c_dtype_bytes(ps3c_dtype dtype)
{
    switch (dtype) {
    case PS3C_FLOAT64:
    case PS3C_INT64:
        return 8;
    case PS3C_FLOAT32:
    case PS3C_INT32:
        return 4;
    case PS3C_FLOAT16:
    case PS3C_BFLOAT16:
    case PS3C_INT16:
        return 2;
    default:
        return 1;
    }
}

const char *ps3c_dtype_name(ps3c_dtype dtype)
{
    static const char *const names[] = {"float32", "float16", "bfloat16", "float64", "bool",
                                        "uint8",   "int8",    "int16",    "int32",   "int64"};
    return (unsigned)dtype < sizeof names / sizeof *names ? names[dtype] : "unknown";
}

bool ps3c_tensor_is_contiguous(const ps3c_tensor *tensor)
{
    int64_t expected = 1;
    for (int i = tensor->ndim - 1; i >= 0; i--) {
        if (tensor->shape[i] != 1 && tensor->strides[i] != expected)
            return false;
        expected *= tensor->shape[i];
    }
    return true;
}

void ps3c_shape_text(int ndim, const int64_t *shape, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "(");
    for (int i = 0; i < ndim && used < size; i++) {
        const char *comma = i + 1 < ndim ? ", " : ndim == 1 ? "," : "";
        if (shape[i] < 0)
            used += (size_t)snprintf(text + used, size - used, "any%s", comma);
        else
            used += (size_t)snprintf(text + used, size - used, "%lld%s", (long long)shape[i], comma);
    }
    if (used < size)
        snprintf(text + used, size - used, ")");
}

ps3c_status ps3c_tensor_check(ps3c_context *context, const char *name, const ps3c_tensor *tensor, ps3c_dtype dtype,
                              ps3c_device device, int ndim, const int64_t *shape)
{
    char got[160], expected[160];
    bool same;
    if (!tensor || (!tensor->data && tensor->ndim >= 0 && ndim > 0 && shape[0] != 0))
        return ps3c_fail(context, PS3C_ERROR_VALUE, "%s: missing", name);
    same = tensor->ndim == ndim;
    for (int i = 0; same && i < ndim; i++)
        same = shape[i] < 0 || tensor->shape[i] == shape[i];
    if (!same) {
        ps3c_shape_text(tensor->ndim, tensor->shape, got, sizeof got);
        ps3c_shape_text(ndim, shape, expected, sizeof expected);
        return ps3c_fail(context, PS3C_ERROR_VALUE, "%s: got shape %s, expected %s", name, got, expected);
    }
    if (tensor->dtype != dtype)
        return ps3c_fail(context, PS3C_ERROR_TYPE, "%s: got dtype %s, expected %s", name,
                         ps3c_dtype_name(tensor->dtype), ps3c_dtype_name(dtype));
    if (tensor->device.type != device.type || tensor->device.index != device.index)
        return ps3c_fail(context, PS3C_ERROR_TYPE, "%s: got a tensor on %s:%d, expected %s:%d", name,
                         tensor->device.type == PS3C_CUDA ? "cuda" : "cpu", (int)tensor->device.index,
                         device.type == PS3C_CUDA ? "cuda" : "cpu", (int)device.index);
    return PS3C_OK;
}

ps3c_status ps3c_tensor_check_contiguous(ps3c_context *context, const char *name, const ps3c_tensor *tensor,
                                         ps3c_dtype dtype, ps3c_device device, int ndim, const int64_t *shape)
{
    char text[160], strides[160];
    PS3C_TRY(ps3c_tensor_check(context, name, tensor, dtype, device, ndim, shape));
    if (ps3c_tensor_is_contiguous(tensor))
        return PS3C_OK;
    ps3c_shape_text(tensor->ndim, tensor->shape, text, sizeof text);
    ps3c_shape_text(tensor->ndim, tensor->strides, strides, sizeof strides);
    return ps3c_fail(context, PS3C_ERROR_TYPE, "%s: got shape %s with strides %s, expected a contiguous tensor", name,
                     text, strides);
}

ps3c_tensor ps3c_tensor_slice(const ps3c_tensor *tensor, int64_t first, int64_t count)
{
    ps3c_tensor slice = *tensor;
    slice.data = (char *)tensor->data + first * tensor->strides[0] * (int64_t)ps3c_dtype_bytes(tensor->dtype);
    slice.shape[0] = count;
    return slice;
}
