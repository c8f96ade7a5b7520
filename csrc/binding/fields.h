/* Python arguments to C structs, by tables: a configuration's dictionary, a plan's request and a run's tensors are read
 * the same way. A table has one row for each argument: its name, its kind and where its value goes.
 *
 * To add an argument: add its row to the table of its signature (config.c, vision.c, text.c) and its field to the
 * struct in ps3c.h.
 */
#ifndef PS3C_BINDING_FIELDS_H
#define PS3C_BINDING_FIELDS_H

#include "binding.h"

typedef enum ps3c_field_kind {
    PS3C_FIELD_INT,         /* int64_t */
    PS3C_FIELD_INT_OR_NONE, /* int64_t; None leaves it as it is */
    PS3C_FIELD_SIZE,        /* size_t, from 0 on */
    PS3C_FIELD_THREADS,     /* int, from 0 on */
    PS3C_FIELD_FLOAT,       /* float */
    PS3C_FIELD_BOOL,        /* bool, by truth */
    PS3C_FIELD_CHOICE,      /* an enumeration that starts at 0, by name */
    PS3C_FIELD_LIST,        /* int64_t[room], and its length where there is a length field */
    PS3C_FIELD_LENGTH,      /* the length of a list: may be given, must then agree */
    PS3C_FIELD_EACH,        /* const int64_t *: None, or one integer for each of the batch; memory of the reader */
    PS3C_FIELD_LOOKS,       /* int64_t: None, "all", or an integer from 0 on */
    PS3C_FIELD_DEVICE,      /* ps3c_device: (type, index) */
    PS3C_FIELD_POINTER,     /* void *: an address as an integer */
    PS3C_FIELD_NAME,        /* const char *: None (NULL) or a str; valid as long as the arguments */
    PS3C_FIELD_TENSOR,      /* const ps3c_tensor *: a torch tensor, or None (NULL) */
    PS3C_FIELD_WEIGHTS,     /* const ps3c_tensor *: a sequence of all weights of reader->model */
    PS3C_FIELD_TENSORS,     /* ps3c_tensor *: a sequence of as many torch tensors as `other` says */
    PS3C_FIELD_WORKSPACE,   /* void *, and size_t at `other`: a contiguous tensor of bytes */
} ps3c_field_kind;

typedef struct ps3c_field {
    const char *name; /* NULL ends a table */
    ps3c_field_kind kind;
    size_t offset;              /* in the struct */
    bool required;              /* otherwise the struct's value stays when the argument is absent */
    const char *const *choices; /* CHOICE, NULL-terminated */
    int room;                   /* LIST */
    size_t other; /* LIST, LENGTH: of the int64_t length; SIZE_MAX: none. EACH: of the int64_t batch. WORKSPACE: of its
                     bytes. TENSORS: of the int64_t count, in reader->counts */
} ps3c_field;

typedef struct ps3c_reader {
    const ps3c_field *fields;
    void *target;            /* the struct */
    const char *format;      /* of a name in messages: "%s", "config['%s']" */
    const char *whole;       /* what messages call the arguments as a whole: "run()", "config" */
    bool call;               /* arguments of a call, not entries of a configuration */
    int positional;          /* how many of the table's first rows may be given by position */
    ps3c_borrowed *borrowed; /* TENSOR, TENSORS, WORKSPACE: open */
    const ps3c_model *model; /* WEIGHTS */
    const void *counts;      /* TENSORS */
    int64_t *owned;          /* memory of EACH; freed by ps3c_reader_close */
} ps3c_reader;

/* Reads arguments in the order of the table. args: a tuple or NULL; kwargs: a dict or NULL. TypeError: an unknown or
 * missing argument of a call, or a value of another type; ValueError: a value that cannot be used, an unknown or missing
 * entry of a configuration. */
int ps3c_read_arguments(ps3c_reader *reader, PyObject *args, PyObject *kwargs);
void ps3c_reader_close(ps3c_reader *reader);

#endif
