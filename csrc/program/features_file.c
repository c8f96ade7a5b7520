/* Writes features as a safetensors file, with the metadata of Python's ImageFeatures.save. */
#define _GNU_SOURCE
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_ENTRIES = 4 + 2 * PS3C_MAX_SCALES };

typedef struct entry {
    char name[40];
    const char *dtype;
    int ndim;
    int64_t shape[3];
    const void *data;
    size_t bytes;
} entry;

static const char *dtype_word(ps3c_dtype dtype)
{
    return dtype == PS3C_FLOAT32 ? "F32" : dtype == PS3C_FLOAT16 ? "F16" : "BF16";
}

static entry make_entry(const char *name, const char *dtype, size_t item, const void *data, int ndim, int64_t a,
                        int64_t b, int64_t c)
{
    entry made = {.dtype = dtype, .ndim = ndim, .shape = {a, b, c}, .data = data};
    snprintf(made.name, sizeof made.name, "%s", name);
    made.bytes = item * (size_t)(a * b * (ndim > 2 ? c : 1));
    return made;
}

/* The tensors of a file, those of 4 bytes an element first, so that each is aligned. Returns their number. */
static int list_entries(const ps3c_features *f, entry entries[MOST_ENTRIES])
{
    const char *dtype = dtype_word(f->dtype);
    const size_t item = ps3c_dtype_bytes(f->dtype);
    const int64_t tokens = f->num_tokens;
    int count = 0;
    entries[count++] = make_entry("pooled", "F32", 4, f->pooled, 2, 1, f->pooled_width, 0);
    if (tokens == 0)
        return count;
    entries[count++] = make_entry("positions", "I32", 4, f->positions, 3, 1, tokens, 3);
    entries[count++] = make_entry("tokens", dtype, item, f->tokens, 3, 1, tokens, f->width);
    for (int64_t s = 0; s < f->num_high_scales; s++) {
        char name[40];
        snprintf(name, sizeof name, "selection_maps.%lld", (long long)s + 1);
        entries[count++] =
            make_entry(name, dtype, item, f->selection_maps[s], 3, 1, f->grid[s + 1][0], f->grid[s + 1][1]);
        snprintf(name, sizeof name, "selection_probs.%lld", (long long)s + 1);
        entries[count++] =
            make_entry(name, dtype, item, f->selection_probs[s], 3, 1, f->grid[s + 1][0], f->grid[s + 1][1]);
    }
    entries[count++] = make_entry("look", "I16", 2, f->look, 2, 1, tokens, 0);
    return count;
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

typedef struct text {
    FILE *file;
    char *start;
    size_t size;
} text;

static void add(text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(text *t, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    vfprintf(t->file, format, values);
    va_end(values);
}

/* Is the string UTF-8, as JSON needs it? Surrogates and overlong forms are let through; readers refuse them. */
static bool is_utf8(const char *string)
{
    for (const unsigned char *c = (const unsigned char *)string; *c != 0;) {
        int more = *c < 0x80 ? 0 : *c < 0xC2 ? -1 : *c < 0xE0 ? 1 : *c < 0xF0 ? 2 : *c < 0xF5 ? 3 : -1;
        if (more < 0)
            return false;
        for (c++; more > 0; more--, c++)
            if ((*c & 0xC0) != 0x80)
                return false;
    }
    return true;
}

/* A string inside JSON that is itself a JSON string: escaped once, or twice. Bytes that are not ASCII stay. */
static void add_string(text *t, const char *string, int times)
{
    const char *quote = times == 2 ? "\\\"" : "\"";
    add(t, "%s", quote);
    for (const char *c = string; *c != 0; c++) {
        const unsigned char byte = (unsigned char)*c;
        const bool special = byte == '"' || byte == '\\';
        if (byte < 0x20 || byte == 0x7F)
            add(t, times == 2 ? "\\\\u%04x" : "\\u%04x", byte);
        else if (special && times == 2)
            add(t, "\\\\\\%c", byte);
        else
            add(t, special ? "\\%c" : "%c", byte);
    }
    add(t, "%s", quote);
}

/* The value of the metadata's key "ps3c": JSON inside a JSON string. */
static void add_metadata(text *t, const ps3c_features *f, const features_source *source)
{
    const bool selects = f->num_tokens > 0;
    add(t, "\"__metadata__\":{\"format\":\"pt\",\"ps3c\":\"{\\\"version\\\": 1, \\\"kind\\\": \\\"images\\\", "
           "\\\"errors\\\": [], \\\"names\\\": [");
    add_string(t, source->name, 2);
    add(t, "], \\\"sizes\\\": [[%lld, %lld]], \\\"texts\\\": [null], \\\"patch_size\\\": %lld, \\\"scales\\\": [",
        (long long)source->width, (long long)source->height, (long long)source->config->patch);
    for (int64_t s = 0; s < source->config->num_scales; s++)
        add(t, s > 0 ? ", %lld" : "%lld", (long long)source->config->scales[s]);
    add(t, "], \\\"grids\\\": [");
    for (int64_t s = 0; selects && s <= f->num_high_scales; s++)
        add(t, s > 0 ? ", [%lld, %lld]" : "[%lld, %lld]", (long long)f->grid[s][0], (long long)f->grid[s][1]);
    add(t, "]}\"}");
}

/* The header, padded to a multiple of 8 bytes. */
static bool make_header(const ps3c_features *f, const features_source *source, const entry *entries, int count, text *t)
{
    size_t at = 0;
    t->file = open_memstream(&t->start, &t->size);
    if (t->file == NULL)
        return false;
    add(t, "{");
    add_metadata(t, f, source);
    for (int i = 0; i < count; i++) {
        add(t, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", entries[i].name, entries[i].dtype);
        for (int d = 0; d < entries[i].ndim; d++)
            add(t, d > 0 ? ",%lld" : "%lld", (long long)entries[i].shape[d]);
        add(t, "],\"data_offsets\":[%zu,%zu]}", at, at + entries[i].bytes);
        at += entries[i].bytes;
    }
    add(t, "}");
    fflush(t->file);
    while (t->size % 8 != 0) {
        add(t, " ");
        fflush(t->file);
    }
    return fclose(t->file) == 0;
}

/* ---- file -------------------------------------------------------------------------------------------------------- */

static bool write_all(FILE *file, const text *header, const entry *entries, int count)
{
    uint8_t length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)header->size >> 8 * i);
    bool written = fwrite(length, 1, 8, file) == 8 && fwrite(header->start, 1, header->size, file) == header->size;
    for (int i = 0; i < count && written; i++)
        written = fwrite(entries[i].data, 1, entries[i].bytes, file) == entries[i].bytes;
    return written && fflush(file) == 0 && fsync(fileno(file)) == 0;
}

/* Writes to a new file beside `path` and renames it. Returns 0 or errno. */
static int replace(const char *path, const text *header, const entry *entries, int count, bool force)
{
    char *temporary;
    if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
        return ENOMEM;
    int error = 0, descriptor = mkostemp(temporary, O_CLOEXEC);
    if (descriptor < 0) {
        error = errno;
        free(temporary);
        return error;
    }
    const mode_t mask = umask(0);
    umask(mask);
    fchmod(descriptor, 0666 & ~mask);
    FILE *file = fdopen(descriptor, "wb");
    errno = 0;
    if (file == NULL || !write_all(file, header, entries, count))
        error = errno != 0 ? errno : EIO;
    if ((file != NULL ? fclose(file) : close(descriptor)) != 0 && error == 0)
        error = errno;
    /* link does not replace a file that appeared meanwhile */
    if (error == 0 && (force ? rename(temporary, path) : link(temporary, path)) != 0)
        error = errno;
    unlink(temporary);
    free(temporary);
    return error;
}

int write_features(const char *path, const ps3c_features *features, const features_source *source, bool force)
{
    entry entries[MOST_ENTRIES];
    text header = {0};
    const int count = list_entries(features, entries);
    if (!is_utf8(source->name))
        return fail(EXIT_IMAGE, NULL, "the image's name is not UTF-8, so that it cannot stand in the file");
    int error = make_header(features, source, entries, count, &header) ? 0 : ENOMEM;
    if (error == 0)
        error = replace(path, &header, entries, count, force);
    free(header.start);
    if (error == EEXIST)
        return fail(EXIT_REFUSED, path, "exists; --force replaces it");
    return error == 0 ? 0 : fail(EXIT_REFUSED, path, "%s", strerror(error));
}
