/* Declarations that the files of the Python extension ps3c._core share. Only this folder includes Python.h and NumPy.
 *
 * All functions of the module have the same steps: parse the arguments, borrow tensors and arrays, make one engine
 * call with the GIL released, return what was borrowed, and wrap the result. Each has one cleanup label.
 *
 * Functions that return int return 0, or -1 with a Python exception set. Functions that return a PyObject pointer
 * return a strong reference, or NULL with an exception set.
 *
 * The module uses only Python's limited API of version 3.11, so that one binary works with every later version
 * (setup.py: LIMITED_API).
 *
 * To add functions to the module: export a PyMethodDef table and add it to the list of tables in module.c. */
#ifndef PS3C_BINDING_H
#define PS3C_BINDING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../ps3c.h"
#include "../run/tensor.h"
#include "dlpack.h"

/* ---- replacements of functions that the limited API does not have ------------------------------------------------ */

/* Assigns value to *variable and releases the old value. value is a strong reference, which is taken over, or NULL. */
static inline void ps3c_replace(PyObject **variable, PyObject *value)
{
    PyObject *old = *variable;
    *variable = value;
    Py_XDECREF(old);
}

/* __name__ of the object's type, for the message of an exception. Valid until the end of the block. */
#define ps3c_type_name(object) ps3c_write_type_name(Py_TYPE(object), (char[200]){0}, 200)
/* expect.c. Writes the name and returns buffer. Clears a pending exception, because the caller sets another one. */
const char *ps3c_write_type_name(PyTypeObject *type, char *buffer, size_t size);

/* ---- module state ---------------------------------------------------------------------------------------- */

enum { PS3C_KNOWN_TYPES = 8 };

typedef struct ps3c_known_type {
    PyTypeObject *type;               /* strong */
    const ps3c_dl_exchange *exchange; /* NULL: tensors of this type are borrowed by capsule */
} ps3c_known_type;

/* The ways to borrow a tensor from torch, fastest first; described in dlpack.c. */
typedef enum ps3c_route { PS3C_ROUTE_EXCHANGE = 0, PS3C_ROUTE_MANAGED, PS3C_ROUTE_CAPSULE } ps3c_route;

typedef struct ps3c_state {
    PyTypeObject *vision_model, *vision_plan, *text_model, *text_plan, *parameters, *checkpoint;
    /* torch's objects, looked up when the first tensor is borrowed; NULL before */
    PyObject *tensor_type;                   /* torch.Tensor */
    PyObject *is_neg;                        /* torch.Tensor.is_neg */
    PyObject *to_dlpack;                     /* torch.utils.dlpack.to_dlpack */
    ps3c_known_type known[PS3C_KNOWN_TYPES]; /* [known_count], tensor types met so far */
    int known_count;
    ps3c_route route; /* the fastest route allowed: environment variable PS3C_DLPACK */
} ps3c_state;

static inline ps3c_state *ps3c_state_of(PyObject *module) { return PyModule_GetState(module); }
/* The state for an instance of one of the module's types. The types cannot be subclassed. */
static inline ps3c_state *ps3c_state_of_instance(PyObject *self) { return PyType_GetModuleState(Py_TYPE(self)); }

/* ---- errors.c: status to exception ------------------------------------------------------------------------ */

/* Sets the Python exception for status, with the context's message, and returns NULL, which the caller can return. For
 * ERROR_INTERRUPTED it keeps the exception that the signal handler raised. */
PyObject *ps3c_python_error(const ps3c_context *context, ps3c_status status);

/* ---- call.c: contexts and the GIL ------------------------------------------------------------------------- */

/* One engine call: its context, and the state for checking signals while the GIL is released. */
typedef struct ps3c_call {
    ps3c_context *context;
    PyThreadState *thread; /* NULL while the GIL is held */
    int64_t next_check;    /* time of the next check of signals, monotonic clock, ns */
} ps3c_call;

/* Creates the context. threads: 0 for the default. level: NULL for the default. Call ps3c_call_end if it returns 0. */
int ps3c_call_begin(ps3c_call *call, int threads, const char *level);
/* Frees the context. Accepts a zeroed call. */
void ps3c_call_end(ps3c_call *call);

/* Release and reacquire the GIL around exactly one engine call, which must not use a Python object:
 *     PS3C_ENGINE_BEGIN(call)
 *     status = ps3c_vision_run(call.context, plan, &io);
 *     PS3C_ENGINE_END(call)
 */
#define PS3C_ENGINE_BEGIN(call) (call).thread = PyEval_SaveThread();
#define PS3C_ENGINE_END(call)                \
    do {                                     \
        PyEval_RestoreThread((call).thread); \
        (call).thread = NULL;                \
    } while (0);

/* ---- dlpack.c: borrowing torch tensors ---------------------------------------------------------------------- */

/* Sets the route of the state from the environment variable PS3C_DLPACK. */
void ps3c_loans_open(ps3c_state *state);
/* The module's m_traverse and m_clear for torch's objects and types in the state. */
int ps3c_loans_traverse(ps3c_state *state, visitproc visit, void *arg);
void ps3c_loans_close(ps3c_state *state);

/* The name of a tensor in messages: "prompt", "hidden_states[2]", "weight trunk.norm.bias". */
typedef struct ps3c_label {
    const char *argument;
    Py_ssize_t index;   /* -1: none */
    const char *weight; /* NULL: none; else the name of the weight, used instead of the others */
    bool output;        /* the run writes to the tensor */
} ps3c_label;

static inline ps3c_label ps3c_argument(const char *name) { return (ps3c_label){.argument = name, .index = -1}; }

/* Writes the label's text and returns buffer. */
const char *ps3c_label_text(const ps3c_label *label, char *buffer, size_t size);
enum { PS3C_LABEL_BYTES = 160 };

/* The references that keep a borrowed tensor alive until it is returned. */
typedef struct ps3c_loan {
    PyObject *object;             /* strong */
    ps3c_dl_versioned *versioned; /* set by the route "managed", else NULL */
    ps3c_dl_managed *managed;     /* set by the route "capsule", else NULL */
} ps3c_loan;

/* Borrows a torch tensor or a NumPy array: fills *loan and *tensor, which is valid until ps3c_loan_return. TypeError: not a tensor, or
 * not dense memory of a supported dtype and device, or memory for an output that cannot be written to. ValueError: a
 * number of dimensions, a size or strides that no tensor in memory has. On an error nothing is borrowed. */
int ps3c_loan_take(ps3c_state *state, const ps3c_label *label, PyObject *object, ps3c_loan *loan, ps3c_tensor *tensor);
/* numpy.c. Is the object a NumPy array? Borrows one likewise; uint16 is bfloat16. */
bool ps3c_is_array(PyObject *object);
int ps3c_loan_array(const ps3c_label *label, PyObject *array, ps3c_loan *loan, ps3c_tensor *tensor);
/* Returns the tensor. Accepts a zeroed loan. */
void ps3c_loan_return(ps3c_loan *loan);

/* ---- expect.c ----------------------------------------------------------------------------------------------- */

/* ps3c_tensor_check (run/tensor.h) with a Python exception, for tensors that the binding itself reads. */
int ps3c_expect(const char *name, const ps3c_tensor *tensor, const ps3c_tensor_rule *rule);

/* ---- parse.c: Python values; name: the argument's name for messages ------------------------------------------ */

/* Sets an exception "NAME: got VALUE, expected EXPECTED", with at most 100 characters of the value. Returns -1. */
int ps3c_wrong_value(PyObject *exception, const char *name, PyObject *value, const char *expected);
/* A tuple ("cpu" or "cuda", index). TypeError: not such a tuple; ValueError: another name or an invalid index. */
int ps3c_parse_device(const char *name, PyObject *object, ps3c_device *device);
/* The value of a key of a dict, borrowed. NULL: without an exception, there is none; with one, an error such as no memory
 * for the key. PyDict_GetItemString hides errors, so that an argument would silently be missing. */
PyObject *ps3c_dict_item(PyObject *dict, const char *name);
/* A sequence as a tuple (strong reference). TypeError: not a sequence; expected describes the right one in the message,
 * such as "a list of integers". */
PyObject *ps3c_sequence(const char *name, PyObject *object, const char *expected);
/* An integer, or an object with __index__. TypeError: another object; ValueError: more than 64 bits. */
int ps3c_parse_int64(const char *name, PyObject *object, int64_t *value);
/* An integer from least to most. ValueError: another one. */
int ps3c_parse_range(const char *name, PyObject *object, int64_t least, int64_t most, int64_t *value);
/* A number. TypeError: another object; ValueError: an integer beyond the range of double. */
int ps3c_parse_float(const char *name, PyObject *object, float *value);
/* None, "all", or an integer of at least 0: gives PS3C_NONE, PS3C_ALL, or the integer. TypeError or ValueError
 * otherwise. */
int ps3c_parse_looks(const char *name, PyObject *object, int64_t *value);
/* The index of a str in names, which is NULL-terminated. TypeError: not a str; ValueError: another one. */
int ps3c_parse_choice(const char *name, PyObject *object, const char *const *names, int *value);

/* ---- config.c -------------------------------------------------------------------------------------------------- */

/* Read a configuration from a dict; its keys are the field names of ps3c.h. TypeError: not a dict, or a value of
 * another type; ValueError: an unknown or missing key, or an invalid value. They do not run ps3c_vision_config_check.
 */
int ps3c_parse_vision_config(PyObject *dict, ps3c_vision_config *config);
int ps3c_parse_text_config(PyObject *dict, ps3c_text_config *config);
/* The reverse (strong references): a dict that the two functions above read. */
PyObject *ps3c_vision_config_dict(const ps3c_vision_config *config);
PyObject *ps3c_text_config_dict(const ps3c_text_config *config);

/* ---- borrowed.c: the borrowed tensors of one run ----------------------------------------------------------------- */

typedef struct ps3c_borrowed {
    ps3c_state *state;
    ps3c_device device;     /* the run's device */
    bool emulated;          /* CUDA emulator: a tensor on the CPU is treated as a tensor on `device` */
    Py_ssize_t count, room; /* tensors borrowed so far; capacity */
    ps3c_loan *loans;       /* [count] */
    ps3c_tensor *tensors;   /* [count]; does not move until closed */
} ps3c_borrowed;

/* Allocates room for `room` tensors. Call ps3c_borrowed_close if it returns 0. */
int ps3c_borrowed_open(ps3c_borrowed *borrowed, ps3c_state *state, ps3c_device device, Py_ssize_t room);
/* Returns all tensors and frees the memory. Accepts a zeroed struct. */
void ps3c_borrowed_close(ps3c_borrowed *borrowed);
/* Borrows a tensor. The engine checks its shape, dtype and device. *tensor is valid until ps3c_borrowed_close. output:
 * the run writes to it. */
int ps3c_borrowed_take(ps3c_borrowed *borrowed, const char *argument, bool output, PyObject *object,
                       const ps3c_tensor **tensor);
/* Borrows a sequence of exactly count outputs; None is an empty sequence. *first: an array of the tensors, NULL if
 * count is 0. TypeError: not a sequence; ValueError: another length. */
int ps3c_borrowed_take_many(ps3c_borrowed *borrowed, const char *argument, PyObject *sequence, int64_t count,
                            ps3c_tensor **first);
/* The same for weights. infos: [count], the names for messages. */
int ps3c_borrowed_take_weights(ps3c_borrowed *borrowed, PyObject *sequence, const ps3c_weight_info *infos,
                               int64_t count, const ps3c_tensor **first);
/* Borrows a contiguous one-dimensional uint8 tensor on the run's device. Returns NULL with an exception on an error. */
const ps3c_tensor *ps3c_borrowed_take_workspace(ps3c_borrowed *borrowed, const char *argument, PyObject *object);

/* ---- model.c: code that VisionModel and TextModel share ---------------------------------------------------------- */

typedef struct ps3c_model_object {
    PyObject base;
    union {
        ps3c_vision_config vision;
        ps3c_text_config text;
    } config;
    int64_t weight_count;
    ps3c_weight_info *weight_infos; /* [weight_count] */
} ps3c_model_object;

/* The functions in which the two kinds of models differ. Each works on the model's own part of config. */
typedef struct ps3c_tower_kind {
    const char *format; /* of the constructor's arguments, for PyArg_ParseTupleAndKeywords: "O:VisionModel" */
    int (*parse)(PyObject *dict, ps3c_model_object *model); /* 0, or -1 with an exception */
    ps3c_status (*check)(ps3c_context *context, const ps3c_model_object *model);
    int64_t (*weight_count)(const ps3c_model_object *model);
    ps3c_status (*weight_info)(ps3c_context *context, const ps3c_model_object *model, int64_t index,
                               ps3c_weight_info *info);
} ps3c_tower_kind;

/* Constructor: parses and checks the configuration and lists the weights. NULL with an exception. */
PyObject *ps3c_model_new(const ps3c_tower_kind *tower, PyTypeObject *type, PyObject *args, PyObject *kwargs);
void ps3c_model_dealloc(PyObject *self);
/* Attribute `weights`: a list of (name, shape). */
PyObject *ps3c_model_weights(PyObject *self, void *unused);

/* ---- types and method tables, for module.c ----------------------------------------------------------------------- */

extern PyType_Spec ps3c_vision_model_spec, ps3c_vision_plan_spec; /* vision.c */
extern PyType_Spec ps3c_text_model_spec, ps3c_text_plan_spec;     /* text.c */
extern PyType_Spec ps3c_parameters_spec;                          /* parameters.c */
extern PyType_Spec ps3c_checkpoint_spec;                          /* checkpoint.c */

extern PyMethodDef ps3c_machine_methods[];    /* machine.c */
extern PyMethodDef ps3c_image_methods[];      /* image.c */
extern PyMethodDef ps3c_checkpoint_methods[]; /* checkpoint.c */

#endif
