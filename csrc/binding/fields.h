/* Reads Python arguments into C structs by tables: the dictionary of a configuration, the request of a plan, and the
 * tensors of a run. A table has one row for each argument: its name, its kind and the offset of its field.
 *
 * To add an argument: add a row to the table of its signature (config.c, vision.c, text.c) and a field to the struct in
 * ps3c.h.
 */
#ifndef PS3C_BINDING_FIELDS_H
#define PS3C_BINDING_FIELDS_H

#include "binding.h"

typedef enum ps3c_field_kind {
    PS3C_FIELD_INT,         /* int64_t */
    PS3C_FIELD_INT_OR_NONE, /* int64_t; None leaves the field unchanged */
    PS3C_FIELD_SIZE,        /* size_t, 0 or more */
    PS3C_FIELD_THREADS,     /* int, 0 or more */
    PS3C_FIELD_FLOAT,       /* float */
    PS3C_FIELD_BOOL,        /* bool, by the truth value of any object */
    PS3C_FIELD_CHOICE,      /* an enumeration that starts at 0; given as a name */
    PS3C_FIELD_LIST,        /* int64_t[room]; also sets the length field, if there is one */
    PS3C_FIELD_LENGTH,      /* the length of a list; optional, must be equal to the list's length */
    PS3C_FIELD_EACH,        /* const int64_t *: None, or [batch] integers; the reader owns the memory */
    PS3C_FIELD_LOOKS,       /* int64_t: None, "all", or an integer, 0 or more */
    PS3C_FIELD_DEVICE,      /* ps3c_device: (type, index) */
    PS3C_FIELD_POINTER,     /* void *: an address as an integer */
    PS3C_FIELD_NAME,        /* const char *: None (NULL) or a str; valid while the arguments are */
    PS3C_FIELD_TENSOR,      /* const ps3c_tensor *: a torch tensor, or None (NULL) */
    PS3C_FIELD_WEIGHTS,     /* const ps3c_tensor *: a sequence of the weights of reader->model */
    PS3C_FIELD_OUTPUT,      /* the same, of a tensor that the run writes to */
    PS3C_FIELD_TENSORS,     /* ps3c_tensor *: a sequence of torch tensors that the run writes to; `other`: its length */
    PS3C_FIELD_WORKSPACE,   /* void *, and size_t at `other`: a contiguous uint8 tensor */
} ps3c_field_kind;

typedef struct ps3c_field {
    const char *name; /* NULL ends a table */
    ps3c_field_kind kind;
    size_t offset;              /* of the field in the struct */
    bool required;              /* if false and the argument is absent, the field is unchanged */
    const char *const *choices; /* CHOICE: the names, NULL-terminated */
    int room;                   /* LIST: capacity */
    /* Offset of a second field. LIST, LENGTH: the int64_t length (SIZE_MAX: none). EACH: the int64_t batch. WORKSPACE:
     * the size_t bytes. TENSORS: the int64_t count, in reader->counts. */
    size_t other;
} ps3c_field;

typedef struct ps3c_reader {
    const ps3c_field *fields;
    void *target;                   /* the struct to fill */
    const char *format;             /* format of a name in messages: "%s" or "config['%s']" */
    const char *whole;              /* name of all arguments together in messages: "run()" or "config" */
    bool call;                      /* true: arguments of a call; false: entries of a configuration */
    int positional;                 /* number of arguments, from the first row, that may be positional */
    ps3c_borrowed *borrowed;        /* TENSOR, OUTPUT, TENSORS, WORKSPACE: open */
    const ps3c_model_object *model; /* WEIGHTS */
    const void *counts;             /* TENSORS */
    int64_t *owned;                 /* the memory of EACH */
} ps3c_reader;

/* A reader of the arguments of a call. whole: "run()". positional: how many may be given by position. */
static inline ps3c_reader ps3c_call_reader(const char *whole, const ps3c_field *fields, int positional, void *target)
{
    return (ps3c_reader){
        .fields = fields, .target = target, .format = "%s", .whole = whole, .call = true, .positional = positional};
}

/* Reads the arguments in the order of the table. args: a tuple or NULL; kwargs: a dict or NULL. TypeError: an unknown
 * or missing argument of a call, or a value of another type. ValueError: an invalid value, or an unknown or missing
 * entry of a configuration. */
int ps3c_read_arguments(ps3c_reader *reader, PyObject *args, PyObject *kwargs);
/* The reverse, for the kinds of a configuration: a dict of the struct's fields (strong reference). Lists without a length
 * field are left out. NULL with an exception. */
PyObject *ps3c_write_fields(const ps3c_field *fields, const void *source);
/* A list of integers (strong reference). */
PyObject *ps3c_int_list(const int64_t *values, int64_t count);
/* Frees reader->owned; the fields of kind EACH are invalid afterwards. */
void ps3c_reader_close(ps3c_reader *reader);

#endif
