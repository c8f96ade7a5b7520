/* Reads the fields of a JSON object into a struct, by a table. */
#ifndef PS3C_CHECKPOINT_FIELDS_H
#define PS3C_CHECKPOINT_FIELDS_H

#include "json.h"

typedef enum ps3c_entry_kind {
    PS3C_ENTRY_INTEGER, /* int64_t, least to most */
    PS3C_ENTRY_BOOL,    /* bool: true, false, or a number that is not 0 */
    PS3C_ENTRY_NUMBER,  /* double, least to most */
    PS3C_ENTRY_TEXT,    /* const char *, in the document */
    PS3C_ENTRY_LIST,    /* int64_t[most items] and an int64_t count at `count`: a list of integers, or one integer */
} ps3c_entry_kind;

typedef struct ps3c_entry {
    const char *name; /* NULL ends a table */
    ps3c_entry_kind kind;
    size_t offset; /* in the struct */
    int64_t least, most;
    size_t count; /* LIST */
    int room;     /* LIST */
} ps3c_entry;

#define PS3C_INTEGER_ENTRY(name, at, least, most)       \
    {                                                   \
        name, PS3C_ENTRY_INTEGER, at, least, most, 0, 0 \
    }
#define PS3C_BOOL_ENTRY(name, at)             \
    {                                         \
        name, PS3C_ENTRY_BOOL, at, 0, 0, 0, 0 \
    }
#define PS3C_NUMBER_ENTRY(name, at, least, most)       \
    {                                                  \
        name, PS3C_ENTRY_NUMBER, at, least, most, 0, 0 \
    }
#define PS3C_TEXT_ENTRY(name, at)             \
    {                                         \
        name, PS3C_ENTRY_TEXT, at, 0, 0, 0, 0 \
    }
#define PS3C_LIST_ENTRY(name, at, least, most, count, room) \
    {                                                       \
        name, PS3C_ENTRY_LIST, at, least, most, count, room \
    }

/* Reads the table's fields of `object`, which may be NULL, into *target. An absent field, and null, leave the struct
 * as it is. prefix: what stands before a field's name in messages, such as "config.json: vision_config.". Other fields
 * of the object are ignored. ERROR_CHECKPOINT: a value of another kind or out of range. */
ps3c_status ps3c_read_fields(ps3c_context *context, const char *prefix, const ps3c_json *object,
                             const ps3c_entry *entries, void *target);

#endif
