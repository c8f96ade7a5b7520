/* Fuzz target: the reader of checkpoint folders (csrc/checkpoint). A valid folder of a tiny model is changed in a few
 * places: bytes of config.json, of preprocessor_config.json, of the header of model.safetensors and of its length. Or a
 * JSON text of pieces is read. A folder is refused with a message, or its weights lie inside the file. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

#include "../../csrc/checkpoint/json.h"
#include "../../csrc/ps3c_model.h"
#include "../c/tiny_folder.h"

enum { ROOM = 1 << 17 };

typedef struct text {
    char bytes[ROOM];
    size_t size;
} text;

static char folder[64];

static void add(text *t, const char *bytes, size_t size)
{
    if (t->size + size <= ROOM) {
        memcpy(t->bytes + t->size, bytes, size);
        t->size += size;
    }
}
static void add_string(text *t, const char *string) { add(t, string, strlen(string)); }

/* ---- changes --------------------------------------------------------------------------------------------------- */

/* Replaces the number at a place, or a few bytes. */
static void change(fuzz *f, text *t)
{
    static const char *const pieces[] = {"-1",
                                         "0",
                                         "18446744073709551616",
                                         "9223372036854775807",
                                         "1e400",
                                         "null",
                                         "true",
                                         "[]",
                                         "{}",
                                         "\"\"",
                                         "[[[[",
                                         "\\u0000",
                                         ",",
                                         "\"a\"",
                                         "4611686018427387904",
                                         "1e-3",
                                         "NaN",
                                         "\xff"};
    if (t->size == 0)
        return;
    size_t at = (size_t)(fuzz_bytes(f, 3) % t->size), end;
    const uint8_t how = fuzz_byte(f);
    if (how < 128) /* a whole number */
        while (at < t->size && (t->bytes[at] < '0' || t->bytes[at] > '9'))
            at++;
    end = at;
    while (how < 128 && end < t->size && t->bytes[end] >= '0' && t->bytes[end] <= '9')
        end++;
    if (how >= 128)
        end = at + how % 8 < t->size ? at + how % 8 : t->size;
    static text rest;
    rest.size = 0;
    add(&rest, t->bytes + end, t->size - end);
    t->size = at;
    if (fuzz_flag(f)) {
        add_string(t, pieces[fuzz_byte(f) % (sizeof pieces / sizeof *pieces)]);
    } else {
        char digits[32];
        sprintf(digits, "%lld", (long long)(fuzz_bytes(f, 2)));
        add_string(t, digits);
    }
    add(t, rest.bytes, rest.size);
}

static void write_file(const char *name, const text *first, const text *second, size_t zeros)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    FUZZ_CHECK(file >= 0, "%s", path);
    const size_t size = first->size + (second != NULL ? second->size : 0);
    bool written = write(file, first->bytes, first->size) == (ssize_t)first->size;
    if (second != NULL)
        written = write(file, second->bytes, second->size) == (ssize_t)second->size && written;
    FUZZ_CHECK(written && ftruncate(file, (off_t)(size + zeros)) == 0, "%s", path);
    close(file);
}

static void check_tensors(ps3c_context *context, const ps3c_checkpoint *checkpoint)
{
    const ps3c_checkpoint_info *info = ps3c_checkpoint_describe(checkpoint);
    volatile uint8_t sum = 0;
    for (int64_t i = 0; i < ps3c_vision_weight_count(&info->vision); i++) {
        ps3c_tensor tensor;
        size_t bytes;
        FUZZ_CHECK(ps3c_checkpoint_vision_weight(context, checkpoint, i, &tensor) == PS3C_OK, "weight %d", (int)i);
        bytes = fuzz_values(tensor.ndim, tensor.shape) * ps3c_dtype_bytes(tensor.dtype);
        if (bytes > 0) /* a place outside of the file stops the process */
            sum = (uint8_t)(sum + ((uint8_t *)tensor.data)[0] + ((uint8_t *)tensor.data)[bytes - 1]);
    }
    FUZZ_CHECK(ps3c_checkpoint_check(context, checkpoint) == PS3C_OK, "%s", ps3c_context_message(context));
}

static void read_folder(fuzz *f, ps3c_context *context)
{
    static text config, processor, header, length;
    static size_t data;
    ps3c_checkpoint *checkpoint;
    config.size = processor.size = header.size = length.size = 0;
    add_string(&config, tiny_config);
    add_string(&processor, tiny_preprocessor);
    data = tiny_header(context, header.bytes, ROOM, &header.size);
    FUZZ_CHECK(data > 0, "no header");
    for (int i = fuzz_byte(f) % 4; i > 0; i--) {
        const uint8_t which = fuzz_byte(f) % 8;
        change(f, which < 3 ? &config : which == 3 ? &processor : &header);
    }
    uint64_t claimed = header.size;
    if (fuzz_rarely(f, 8))
        claimed = (uint64_t)fuzz_hostile_value(f, 0, (int64_t)claimed);
    for (int i = 0; i < 8; i++)
        length.bytes[length.size++] = (char)(claimed >> 8 * i);
    if (fuzz_rarely(f, 8))
        data = data > 64 ? data - fuzz_byte(f) % 64 : data;
    write_file("config.json", &config, NULL, 0);
    write_file("preprocessor_config.json", &processor, NULL, 0);
    write_file("model.safetensors", &length, &header, data);
    const ps3c_status status = ps3c_checkpoint_open(context, folder, &checkpoint);
    FUZZ_CHECK((status == PS3C_OK) == (checkpoint != NULL), "status %d", (int)status);
    if (status == PS3C_OK)
        check_tensors(context, checkpoint);
    else
        fuzz_check_failure(context, status);
    ps3c_checkpoint_free(checkpoint);
}

/* ---- JSON of pieces ---------------------------------------------------------------------------------------------- */

static void read_json(fuzz *f, ps3c_context *context)
{
    static const char *const pieces[] = {"{",
                                         "}",
                                         "[",
                                         "]",
                                         ",",
                                         ":",
                                         "\"a\"",
                                         "\"\\u00e9\"",
                                         "1",
                                         "-0.5",
                                         "1e9",
                                         "true",
                                         "null",
                                         "false",
                                         " ",
                                         "\"\\ud83d\\ude00\"",
                                         "\"",
                                         "\\",
                                         "\\u",
                                         "01",
                                         "\xc3",
                                         "\xa9",
                                         "\"a\":",
                                         "1.",
                                         "{\"",
                                         "[[[[[[",
                                         "\"\\n\"",
                                         "-",
                                         "\xed\xa0\x80",
                                         "9999999999999999999",
                                         "]}",
                                         "\t"};
    static text t;
    ps3c_json_document document;
    t.size = 0;
    for (int i = fuzz_byte(f); i > 0; i--) {
        const uint8_t which = fuzz_byte(f);
        if (which < 240)
            add_string(&t, pieces[which % (sizeof pieces / sizeof *pieces)]);
        else
            add(&t, (const char[]){(char)fuzz_byte(f)}, 1);
    }
    char *exact = malloc(t.size > 0 ? t.size : 1); /* so that a read past the end is seen */
    memcpy(exact, t.bytes, t.size);
    const ps3c_status status = ps3c_json_read(context, "file", exact, t.size, &document);
    free(exact);
    if (status == PS3C_OK) {
        char shown[PS3C_JSON_SHOWN];
        const ps3c_json *root = document.values;
        uint32_t items = 0;
        FUZZ_CHECK(strlen(ps3c_json_show(root, shown)) < PS3C_JSON_SHOWN, "too long");
        if (root->kind >= PS3C_JSON_ARRAY)
            for (const ps3c_json *item = ps3c_json_first(root); item != NULL; item = ps3c_json_next(root, item))
                items++;
        FUZZ_CHECK(root->kind < PS3C_JSON_ARRAY || items == root->count, "%u of %u items", items, root->count);
        ps3c_json_member(root, "a");
        ps3c_json_free(&document);
    } else {
        fuzz_check_failure(context, status);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = fuzz_begin(data, size);
    ps3c_context *context = fuzz_context(&f);
    if (folder[0] == 0) {
        snprintf(folder, sizeof folder, "/dev/shm/ps3c-fuzz-%d", (int)getpid());
        mkdir(folder, 0700);
    }
    if (fuzz_flag(&f))
        read_folder(&f, context);
    else
        read_json(&f, context);
    ps3c_context_free(context);
    fuzz_end(&f);
    return 0;
}

/* Nothing of a run stays in memory that the system keeps. */
__attribute__((destructor)) static void remove_folder(void)
{
    static const char *const names[] = {"config.json", "preprocessor_config.json", "model.safetensors"};
    char path[128];
    for (int i = 0; i < 3 && folder[0] != 0; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}
