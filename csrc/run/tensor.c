/* Tensor views: dtype names, shape checks, slices. */
#include "tensor.h"

#include "registry.h"

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
        expected = (int64_t)((uint64_t)expected * (uint64_t)tensor->shape[i]); /* a broadcast size may be huge */
    }
    return true;
}

static const char *write_sizes(int ndim, const int64_t *sizes, bool any, char text[PS3C_SHAPE_BYTES])
{
    const size_t size = PS3C_SHAPE_BYTES;
    size_t used = (size_t)snprintf(text, size, "(");
    for (int i = 0; i < ndim && used < size; i++) {
        const char *comma = i + 1 < ndim ? ", " : ndim == 1 ? "," : "";
        if (any && sizes[i] == PS3C_ANY)
            used += (size_t)snprintf(text + used, size - used, "any%s", comma);
        else
            used += (size_t)snprintf(text + used, size - used, "%lld%s", (long long)sizes[i], comma);
    }
    if (used < size)
        snprintf(text + used, size - used, ")");
    return text;
}

const char *ps3c_shape_text(int ndim, const int64_t *shape, char text[PS3C_SHAPE_BYTES])
{
    return write_sizes(ndim, shape, true, text);
}

const char *ps3c_sizes_text(int ndim, const int64_t *sizes, char text[PS3C_SHAPE_BYTES])
{
    return write_sizes(ndim, sizes, false, text);
}

static bool has_shape(const ps3c_tensor *tensor, const ps3c_tensor_rule *rule)
{
    if (!rule->shape)
        return true;
    if (tensor->ndim != rule->ndim)
        return false;
    for (int i = 0; i < rule->ndim; i++)
        if (rule->shape[i] != PS3C_ANY && rule->shape[i] != tensor->shape[i])
            return false;
    return true;
}

static bool is_empty(const ps3c_tensor *tensor)
{
    for (int i = 0; i < tensor->ndim; i++)
        if (tensor->shape[i] == 0)
            return true;
    return false;
}

static ps3c_status wrong_device(ps3c_context *context, const char *name, const ps3c_tensor *tensor,
                                const ps3c_tensor_rule *rule)
{
    return ps3c_fail(context, PS3C_ERROR_RUNTIME, "%s: got a tensor on %s:%d, expected %s:%d, where the weights are",
                     name, ps3c_device_name(tensor->device.type), (int)tensor->device.index,
                     ps3c_device_name(rule->device.type), (int)rule->device.index);
}

ps3c_status ps3c_tensor_check(ps3c_context *context, const char *name, int64_t index, const ps3c_tensor *tensor,
                              const ps3c_tensor_rule *rule)
{
    char label[PS3C_NAME_BYTES + 32], got[PS3C_SHAPE_BYTES], expected[PS3C_SHAPE_BYTES];
    const bool has_rank = tensor && tensor->ndim >= 0 && tensor->ndim <= PS3C_MAX_DIMS;
    if (has_rank && has_shape(tensor, rule) && (rule->dtype == PS3C_ANY || (int)tensor->dtype == rule->dtype) &&
        tensor->device.type == rule->device.type && tensor->device.index == rule->device.index &&
        (!rule->contiguous || ps3c_tensor_is_contiguous(tensor)) && (tensor->data || is_empty(tensor)))
        return PS3C_OK;
    if (index < 0)
        snprintf(label, sizeof label, "%s", name);
    else
        snprintf(label, sizeof label, "%s[%lld]", name, (long long)index);
    if (tensor && !has_rank)
        return ps3c_fail(context, PS3C_ERROR_VALUE, "%s: got %d dimensions, expected 0 to %d", label, (int)tensor->ndim,
                         PS3C_MAX_DIMS);
    if (!tensor || (!tensor->data && !is_empty(tensor)))
        return ps3c_fail(context, PS3C_ERROR_VALUE, "%s: got no tensor, expected one", label);
    if (tensor->device.type != rule->device.type || tensor->device.index != rule->device.index)
        return wrong_device(context, label, tensor, rule);
    if (rule->dtype != PS3C_ANY && (int)tensor->dtype != rule->dtype)
        return ps3c_fail(context, PS3C_ERROR_TYPE, "%s: got %s, expected %s", label, ps3c_dtype_name(tensor->dtype),
                         ps3c_dtype_name((ps3c_dtype)rule->dtype));
    if (!has_shape(tensor, rule))
        return ps3c_fail(context, PS3C_ERROR_VALUE, "%s: got shape %s, expected %s", label,
                         ps3c_sizes_text(tensor->ndim, tensor->shape, got),
                         ps3c_shape_text(rule->ndim, rule->shape, expected));
    return ps3c_fail(context, PS3C_ERROR_TYPE, "%s: got strides %s for shape %s, expected a contiguous tensor", label,
                     ps3c_sizes_text(tensor->ndim, tensor->strides, expected),
                     ps3c_sizes_text(tensor->ndim, tensor->shape, got));
}

ps3c_status ps3c_tensor_check_optional(ps3c_context *context, const char *name, bool wanted, const ps3c_tensor *tensor,
                                       const ps3c_tensor_rule *rule)
{
    if (wanted)
        return ps3c_tensor_check(context, name, PS3C_ANY, tensor, rule);
    if (!tensor)
        return PS3C_OK;
    return ps3c_fail(context, PS3C_ERROR_VALUE, "%s: got a tensor, expected none: the plan was made without it", name);
}

ps3c_tensor ps3c_tensor_slice(const ps3c_tensor *tensor, int64_t first, int64_t count)
{
    ps3c_tensor slice = *tensor;
    slice.data = (char *)tensor->data + first * tensor->strides[0] * (int64_t)ps3c_dtype_bytes(tensor->dtype);
    slice.shape[0] = count;
    return slice;
}
