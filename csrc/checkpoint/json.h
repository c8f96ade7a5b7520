/* A reader of JSON text (RFC 8259). The file is not trusted: every limit is checked before memory is allocated for it.
 *
 * A document is an array of values in the order of the text: a container is followed by its items. */
#ifndef PS3C_JSON_H
#define PS3C_JSON_H

#include "../contract/error.h"

enum { PS3C_JSON_DEPTH = 64 };              /* most containers inside each other */
enum { PS3C_JSON_VALUES = 1 << 22 };        /* most values of a document */
#define PS3C_JSON_BYTES ((size_t)100 << 20) /* most bytes of a document */

typedef enum ps3c_json_kind {
    PS3C_JSON_NULL = 0,
    PS3C_JSON_BOOL,
    PS3C_JSON_INTEGER, /* a number without fraction and exponent that fits int64 */
    PS3C_JSON_NUMBER,  /* any other number */
    PS3C_JSON_STRING,
    PS3C_JSON_ARRAY,
    PS3C_JSON_OBJECT,
} ps3c_json_kind;

typedef struct ps3c_json {
    ps3c_json_kind kind;
    uint32_t count;  /* ARRAY, OBJECT: number of items */
    uint32_t span;   /* number of values from this one to the next after it and its items */
    const char *key; /* in an object; else NULL. UTF-8, without a zero inside */
    union {
        bool truth;
        int64_t integer;
        double number;
        const char *text; /* as key */
    };
} ps3c_json;

typedef struct ps3c_json_document {
    char *text;        /* the strings */
    ps3c_json *values; /* values[0]: the root */
} ps3c_json_document;

/* Reads `size` bytes at text. name: the file's, for messages. The document is a copy: text may be released. Call
 * ps3c_json_free if it returns OK. ERROR_CHECKPOINT: the text is not JSON, is nested too deeply, or is too large.
 * ERROR_MEMORY. */
ps3c_status ps3c_json_read(ps3c_context *context, const char *name, const char *text, size_t size,
                           ps3c_json_document *document);
void ps3c_json_free(ps3c_json_document *document);

/* The items of a container: first, then next until NULL. end: the container again. */
static inline const ps3c_json *ps3c_json_first(const ps3c_json *container)
{
    return container->count > 0 ? container + 1 : NULL;
}
static inline const ps3c_json *ps3c_json_next(const ps3c_json *container, const ps3c_json *item)
{
    item += item->span;
    return item < container + container->span ? item : NULL;
}
/* The last member of that key, as Python reads objects. NULL: there is none, or the value is no object. */
const ps3c_json *ps3c_json_member(const ps3c_json *object, const char *key);

enum { PS3C_JSON_SHOWN = 100 };
/* The kind of a value for messages: "list", "string". Static memory. */
const char *ps3c_json_kind_name(const ps3c_json *value);
/* Writes the value for messages, shortened and without control characters. Returns text, or static memory. */
const char *ps3c_json_show(const ps3c_json *value, char text[PS3C_JSON_SHOWN]);
/* The same of a string that comes from a file: 'name'. */
const char *ps3c_json_quote(const char *string, char text[PS3C_JSON_SHOWN]);

#endif
