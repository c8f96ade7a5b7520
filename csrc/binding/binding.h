/* What the files of the Python extension ps3c._core share. Only this folder includes Python.h and NumPy.
 *
 * A function here has one shape: parse, check, acquire (tensors on loan, arrays), one engine call with the GIL
 * released, give back, wrap; one cleanup label. Functions that return int give 0, or -1 with a Python exception set.
 *
 * It keeps to Python's limited API of 3.11, so that one module serves every later version (setup.py: LIMITED_API).
 *
 * To add functions to the module: export a PyMethodDef table and name it in module.c's list of tables.
 */
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

/* ---- what the limited API lacks ---------------------------------------------------------------------------- */

/* Puts a strong reference (or NULL), which it takes over, in the place of another. */
static inline void ps3c_replace(PyObject **variable, PyObject *value)
{
    PyObject *old = *variable;
    *variable = value;
    Py_XDECREF(old);
}

/* __name__ of the object's type, for an exception's message; lives until the end of the block. */
#define ps3c_type_name(object) ps3c_write_type_name(Py_TYPE(object), (char[200]){0}, 200)
/* expect.c. Returns buffer. Clears an exception that is set: a better one is on its way. */
const char *ps3c_write_type_name(PyTypeObject *type, char *buffer, size_t size);

/* ---- module state ---------------------------------------------------------------------------------------- */

enum { PS3C_KNOWN_TYPES = 8 };

typedef struct ps3c_known_type {
    PyTypeObject *type;               /* strong */
    const ps3c_dl_exchange *exchange; /* NULL: this type goes by capsule */
} ps3c_known_type;

/* How torch lends a tensor; dlpack.c. */
typedef enum ps3c_route { PS3C_ROUTE_EXCHANGE = 0, PS3C_ROUTE_MANAGED, PS3C_ROUTE_CAPSULE } ps3c_route;

typedef struct ps3c_state {
    PyTypeObject *vision_model, *vision_plan, *text_model, *text_plan, *parameters;
    /* torch, looked up when the first tensor comes; NULL before */
    PyObject *tensor_type; /* torch.Tensor */
    PyObject *is_neg;      /* torch.Tensor.is_neg */
    PyObject *to_dlpack;   /* torch.utils.dlpack.to_dlpack */
    ps3c_known_type known[PS3C_KNOWN_TYPES];
    int known_count;
    ps3c_route route; /* PS3C_DLPACK: the fastest way that may be used */
} ps3c_state;

static inline ps3c_state *ps3c_state_of(PyObject *module) { return PyModule_GetState(module); }
/* Of an instance of one of the module's own types (none can be subclassed). */
static inline ps3c_state *ps3c_state_of_instance(PyObject *self) { return PyType_GetModuleState(Py_TYPE(self)); }

/* ---- errors.c: status to exception ------------------------------------------------------------------------ */

/* Sets the exception that belongs to status, with the context's sentence; returns NULL, so that callers can return
 * it. INTERRUPTED leaves the exception that the signal handler raised. */
PyObject *ps3c_python_error(const ps3c_context *context, ps3c_status status);

/* ---- call.c: contexts and the GIL ------------------------------------------------------------------------- */

/* One engine call: its context, and what it needs to ask for signals while the GIL is released. */
typedef struct ps3c_call {
    ps3c_context *context;
    PyThreadState *thread; /* NULL while the GIL is held */
    int64_t next_check;    /* monotonic ns */
} ps3c_call;

/* threads: 0 for the default. level: NULL for the best. */
int ps3c_call_begin(ps3c_call *call, int threads, const char *level);
void ps3c_call_end(ps3c_call *call);

/* Around exactly one engine call, which must not touch a Python object:
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

/* ---- dlpack.c: torch tensors on loan ----------------------------------------------------------------------- */

/* The state's fields for loans: how torch lends, by PS3C_DLPACK in the environment; for the module's m_traverse and
 * m_clear, the types that were met. */
void ps3c_loans_open(ps3c_state *state);
int ps3c_loans_traverse(ps3c_state *state, visitproc visit, void *arg);
void ps3c_loans_close(ps3c_state *state);

/* How messages name a tensor: "prompt", "hidden_states[2]", "weight trunk.norm.bias". */
typedef struct ps3c_label {
    const char *argument;
    Py_ssize_t index;   /* -1: none */
    const char *weight; /* NULL: none; then it alone names the tensor */
} ps3c_label;

static inline ps3c_label ps3c_argument(const char *name) { return (ps3c_label){name, -1, NULL}; }

/* Writes the label's text; returns buffer. */
const char *ps3c_label_text(const ps3c_label *label, char *buffer, size_t size);
enum { PS3C_LABEL_BYTES = 160 };

/* What keeps a borrowed tensor alive until it is given back. */
typedef struct ps3c_loan {
    PyObject *object;             /* strong */
    ps3c_dl_versioned *versioned; /* by the route "managed", else NULL */
    ps3c_dl_managed *managed;     /* by "capsule", else NULL */
} ps3c_loan;

/* Borrows a torch tensor. TypeError: not a tensor, or of a kind that cannot be read as plain memory; ValueError:
 * too many dimensions. On error nothing is on loan. */
int ps3c_loan_take(ps3c_state *state, const ps3c_label *label, PyObject *object, ps3c_loan *loan, ps3c_tensor *tensor);
/* Accepts a zeroed loan. */
void ps3c_loan_return(ps3c_loan *loan);

/* ---- expect.c ----------------------------------------------------------------------------------------------- */

/* The engine's check (run/tensor.h) of a tensor that the binding reads itself: 0, or -1 with its exception. */
int ps3c_expect(const char *name, const ps3c_tensor *tensor, const ps3c_tensor_rule *rule);

/* ---- parse.c: Python values; `name` is the argument's, for messages ------------------------------------------ */

/* ("cpu" | "cuda", index) */
int ps3c_parse_device(const char *name, PyObject *object, ps3c_device *device);
/* A sequence as a tuple (strong); TypeError where the object is none. expected: "a list of integers". */
PyObject *ps3c_sequence(const char *name, PyObject *object, const char *expected);
/* An integer (anything with __index__). */
int ps3c_parse_int64(const char *name, PyObject *object, int64_t *value);
/* None, "all", or an integer >= 0: PS3C_NONE, PS3C_ALL, or it. */
int ps3c_parse_looks(const char *name, PyObject *object, int64_t *value);
/* Index of object among names (NULL-terminated): ValueError lists them. */
int ps3c_parse_choice(const char *name, PyObject *object, const char *const *names, int *value);

/* ---- config.c -------------------------------------------------------------------------------------------------- */

int ps3c_parse_vision_config(PyObject *dict, ps3c_vision_config *config);
int ps3c_parse_text_config(PyObject *dict, ps3c_text_config *config);

/* ---- borrowed.c: all tensors of one run ------------------------------------------------------------------------------ */

typedef struct ps3c_borrowed {
    ps3c_state *state;
    ps3c_device device; /* of the run */
    bool emulated;      /* the run's CUDA device has the host's memory: tensors on the CPU count as on it */
    Py_ssize_t count, room;
    ps3c_loan *loans;     /* [count] */
    ps3c_tensor *tensors; /* [count]; stays in place until closed */
} ps3c_borrowed;

int ps3c_borrowed_open(ps3c_borrowed *borrowed, ps3c_state *state, ps3c_device device, Py_ssize_t room);
/* Gives everything back. Accepts a zeroed borrowed. */
void ps3c_borrowed_close(ps3c_borrowed *borrowed);
/* Borrows a tensor; shape and the rest are the engine's to check. */
int ps3c_borrowed_take(ps3c_borrowed *borrowed, const char *argument, PyObject *object, const ps3c_tensor **tensor);
/* Borrows a sequence of exactly count tensors (None: of none), next to each other in the borrowed: *first is NULL for
 * none. */
int ps3c_borrowed_take_many(ps3c_borrowed *borrowed, const char *argument, PyObject *sequence, int64_t count,
                            ps3c_tensor **first);
/* The same for weights, whose names are in infos. */
int ps3c_borrowed_take_weights(ps3c_borrowed *borrowed, PyObject *sequence, const ps3c_weight_info *infos,
                               int64_t count, const ps3c_tensor **first);
/* Borrows a contiguous one-dimensional tensor of uint8; NULL with an exception. */
const ps3c_tensor *ps3c_borrowed_take_workspace(ps3c_borrowed *borrowed, const char *argument, PyObject *object);

/* ---- model.c: what VisionModel and TextModel share -------------------------------------------------------------- */

/* Name and shape of weight `index` of a tower's configuration. */
typedef ps3c_status ps3c_weight_info_function(ps3c_context *context, const void *config, int64_t index,
                                              ps3c_weight_info *info);

typedef struct ps3c_model {
    PyObject base;
    union {
        ps3c_vision_config vision;
        ps3c_text_config text;
    } config;
    int64_t weight_count;
    ps3c_weight_info *weight_infos; /* [weight_count] */
} ps3c_model;

/* Lists the weights of self->config once it is checked: sets weight_count and weight_infos. */
int ps3c_model_list_weights(ps3c_model *self, ps3c_context *context, int64_t count, ps3c_weight_info_function *info);
void ps3c_model_dealloc(PyObject *self);
/* [(name, shape), ...] */
PyObject *ps3c_model_weights(PyObject *self, void *unused);

/* ---- types and method tables, for module.c ------------------------------------------------------------------------ */

extern PyType_Spec ps3c_vision_model_spec, ps3c_vision_plan_spec; /* vision.c */
extern PyType_Spec ps3c_text_model_spec, ps3c_text_plan_spec;     /* text.c */
extern PyType_Spec ps3c_parameters_spec;                          /* parameters.c */

extern PyMethodDef ps3c_machine_methods[]; /* machine.c */
extern PyMethodDef ps3c_image_methods[];   /* image.c */

#endif
