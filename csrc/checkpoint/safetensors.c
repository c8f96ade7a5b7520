/* Reads the header of a safetensors file. Nothing that it says is believed before it was held against the file. */
#include "safetensors.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *word;
    int dtype, bits;
} dtypes[] = {
    {"F32", PS3C_FLOAT32, 32},
    {"F16", PS3C_FLOAT16, 16},
    {"BF16", PS3C_BFLOAT16, 16},
    {"F64", PS3C_FLOAT64, 64},
    {"BOOL", PS3C_BOOL, 8},
    {"U8", PS3C_UINT8, 8},
    {"I8", PS3C_INT8, 8},
    {"I16", PS3C_INT16, 16},
    {"I32", PS3C_INT32, 32},
    {"I64", PS3C_INT64, 64},
    {"U16", -1, 16},
    {"U32", -1, 32},
    {"U64", -1, 64},
    {"F8_E4M3", -1, 8},
    {"F8_E5M2", -1, 8},
    {"F8_E8M0", -1, 8},
    {"F4", -1, 4},
    {"F6_E2M3", -1, 6},
    {"F6_E3M2", -1, 6},
    {"C64", -1, 64},
};

#define REFUSE(...) ps3c_fail(context, PS3C_ERROR_CHECKPOINT, __VA_ARGS__)

/* Fills shape; *elements: their product. */
static ps3c_status read_shape(ps3c_context *context, const char *file, const char *tensor, const ps3c_json *shape,
                              ps3c_stored *stored, int64_t *elements)
{
    *elements = 1;
    if (shape == NULL || shape->kind != PS3C_JSON_ARRAY)
        return REFUSE("%s is damaged: %s has no shape", file, tensor);
    if (shape->count > PS3C_MAX_DIMS)
        return REFUSE("%s: %s: got %u dimensions, expected at most %d", file, tensor, shape->count, PS3C_MAX_DIMS);
    for (const ps3c_json *size = ps3c_json_first(shape); size != NULL; size = ps3c_json_next(shape, size)) {
        char shown[PS3C_JSON_SHOWN];
        if (size->kind != PS3C_JSON_INTEGER || size->integer < 0)
            return REFUSE("%s is damaged: %s: got a size of %s, expected 0 or more", file, tensor,
                          ps3c_json_show(size, shown));
        if (__builtin_mul_overflow(*elements, size->integer, elements))
            return REFUSE("%s is damaged: %s: its shape has more elements than memory", file, tensor);
        stored->shape[stored->ndim++] = size->integer;
    }
    return PS3C_OK;
}

/* Reads data_offsets [begin, end) and holds them against the bytes that dtype and shape need. */
static ps3c_status read_place(ps3c_context *context, const ps3c_mapped *file, size_t data, const char *tensor,
                              const ps3c_json *offsets, int64_t elements, int bits, ps3c_stored *stored)
{
    const ps3c_json *begin = NULL, *end = NULL;
    int64_t needed;
    if (offsets != NULL && offsets->kind == PS3C_JSON_ARRAY && offsets->count == 2) {
        begin = ps3c_json_first(offsets);
        end = ps3c_json_next(offsets, begin);
    }
    if (begin == NULL || begin->kind != PS3C_JSON_INTEGER || end->kind != PS3C_JSON_INTEGER || begin->integer < 0 ||
        end->integer < begin->integer)
        return REFUSE("%s is damaged: %s has no data_offsets [begin, end]", file->name, tensor);
    if (__builtin_mul_overflow(elements, (int64_t)bits, &needed) || needed % 8 != 0)
        return REFUSE("%s is damaged: %s: its shape has no whole number of bytes", file->name, tensor);
    needed /= 8;
    if (end->integer - begin->integer != needed)
        return REFUSE("%s is damaged: %s: got data_offsets of %lld bytes, expected %lld, as dtype and shape need",
                      file->name, tensor, (long long)(end->integer - begin->integer), (long long)needed);
    const size_t room = file->size - data;
    if ((uint64_t)end->integer > room)
        return REFUSE("%s is truncated or damaged: %s ends at byte %lld of %zu", file->name, tensor,
                      (long long)end->integer, room);
    stored->data = file->data + data + begin->integer;
    stored->bytes = (size_t)needed;
    return PS3C_OK;
}

static ps3c_status read_tensor(ps3c_context *context, const ps3c_mapped *file, size_t data, const ps3c_json *entry,
                               ps3c_stored *stored)
{
    char tensor[PS3C_JSON_SHOWN], shown[PS3C_JSON_SHOWN];
    const ps3c_json *dtype = ps3c_json_member(entry, "dtype");
    int64_t elements;
    ps3c_json_quote(entry->key, tensor);
    if (entry->kind != PS3C_JSON_OBJECT || dtype == NULL || dtype->kind != PS3C_JSON_STRING)
        return REFUSE("%s is damaged: %s has no dtype", file->name, tensor);
    *stored = (ps3c_stored){.name = entry->key, .stored_dtype = dtype->text, .file = file};
    int bits = 0;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(dtypes[i].word, dtype->text) == 0) {
            stored->dtype = dtypes[i].dtype;
            bits = dtypes[i].bits;
        }
    if (bits == 0)
        return REFUSE("%s: %s: got dtype %s, expected one of safetensors", file->name, tensor,
                      ps3c_json_show(dtype, shown));
    PS3C_TRY(read_shape(context, file->name, tensor, ps3c_json_member(entry, "shape"), stored, &elements));
    return read_place(context, file, data, tensor, ps3c_json_member(entry, "data_offsets"), elements, bits, stored);
}

static int by_place(const void *left, const void *right)
{
    const ps3c_stored *a = left, *b = right;
    if (a->data != b->data)
        return a->data < b->data ? -1 : 1;
    return a->bytes < b->bytes ? -1 : a->bytes > b->bytes; /* empty tensors first */
}

/* The tensors cover the data without holes and overlaps. */
static ps3c_status check_cover(ps3c_context *context, const ps3c_safetensors *found, size_t data)
{
    const char *name = found->file.name;
    const uint8_t *next = found->file.data + data, *end = found->file.data + found->file.size;
    char tensor[PS3C_JSON_SHOWN];
    for (int64_t i = 0; i < found->count; i++) {
        const ps3c_stored *stored = &found->tensors[i];
        if (stored->data != next)
            return REFUSE("%s is damaged: %s: got data at byte %zu, expected %zu, where the tensor before it ends",
                          name, ps3c_json_quote(stored->name, tensor), (size_t)(stored->data - found->file.data),
                          (size_t)(next - found->file.data));
        next += stored->bytes;
    }
    if (next != end)
        return REFUSE("%s is damaged: got %zu bytes after the last tensor, expected none", name, (size_t)(end - next));
    return PS3C_OK;
}

static ps3c_status read_header(ps3c_context *context, ps3c_safetensors *found)
{
    const ps3c_mapped *file = &found->file;
    uint64_t length = 0;
    if (file->size < 8)
        return REFUSE("%s is truncated or damaged: got %zu bytes, expected a header", file->name, file->size);
    for (int i = 7; i >= 0; i--)
        length = length << 8 | file->data[i];
    if (length > file->size - 8 || length > PS3C_JSON_BYTES)
        return REFUSE("%s is truncated or damaged: got a header of %llu bytes in a file of %zu", file->name,
                      (unsigned long long)length, file->size);
    PS3C_TRY(ps3c_json_read(context, file->name, (const char *)file->data + 8, (size_t)length, &found->header));
    const ps3c_json *root = found->header.values;
    if (root->kind != PS3C_JSON_OBJECT)
        return REFUSE("%s is damaged: its header is no object", file->name);
    found->tensors = malloc((root->count + 1) * sizeof *found->tensors);
    if (found->tensors == NULL)
        return ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for the %u tensors of %s", root->count, file->name);
    const size_t data = 8 + (size_t)length;
    for (const ps3c_json *entry = ps3c_json_first(root); entry != NULL; entry = ps3c_json_next(root, entry))
        if (strcmp(entry->key, "__metadata__") != 0)
            PS3C_TRY(read_tensor(context, file, data, entry, &found->tensors[found->count++]));
    qsort(found->tensors, (size_t)found->count, sizeof *found->tensors, by_place);
    return check_cover(context, found, data);
}

ps3c_status ps3c_safetensors_open(ps3c_context *context, const char *folder, const char *name, ps3c_safetensors *found)
{
    *found = (ps3c_safetensors){0};
    PS3C_TRY(ps3c_mapped_open(context, folder, name, &found->file));
    const ps3c_status status = read_header(context, found);
    if (status != PS3C_OK)
        ps3c_safetensors_close(found);
    return status;
}

void ps3c_safetensors_close(ps3c_safetensors *found)
{
    free(found->tensors);
    ps3c_json_free(&found->header);
    ps3c_mapped_close(&found->file);
    *found = (ps3c_safetensors){.file.descriptor = -1};
}
