/* Tensors in a safetensors file: names, shapes and places, checked against the file's size.
 *
 * Source: the format's public description (huggingface.co/docs/safetensors): 8 bytes, little-endian, give the length of
 * a JSON header; the header maps each name to {dtype, shape, data_offsets}; the data follow without holes. */
#ifndef PS3C_SAFETENSORS_H
#define PS3C_SAFETENSORS_H

#include "json.h"
#include "mapped.h"

/* A tensor in a file. It points into its file and its document. */
typedef struct ps3c_stored {
    const char *name;
    const char *stored_dtype; /* the format's word, such as "BF16" */
    int dtype;                /* ps3c_dtype, or -1: one that the engine does not read */
    int32_t ndim;
    int64_t shape[PS3C_MAX_DIMS];
    uint8_t *data;
    size_t bytes;
    const ps3c_mapped *file;
} ps3c_stored;

typedef struct ps3c_safetensors {
    ps3c_mapped file;
    ps3c_json_document header;
    int64_t count;
    ps3c_stored *tensors; /* [count], by their place in the file */
} ps3c_safetensors;

/* Opens folder/name. *found must not move while it is open. Call ps3c_safetensors_close if it returns OK.
 * ERROR_CHECKPOINT: the file is damaged, or its header contradicts itself or the file's size; the message names the
 * tensor. ERROR_MEMORY. */
ps3c_status ps3c_safetensors_open(ps3c_context *context, const char *folder, const char *name, ps3c_safetensors *found);
void ps3c_safetensors_close(ps3c_safetensors *found);

#endif
