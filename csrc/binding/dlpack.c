/* Borrows torch tensors: memory, shape and strides without a copy, through DLPack.
 *
 * There are three routes:
 *   "exchange"  the borrowing function of the C exchange API of the tensor's type (torch 2.10 and later; about 90 ns);
 *   "managed"   the owning function of the same API, for a type without a borrowing one;
 *   "capsule"   an owning capsule from torch.utils.dlpack.to_dlpack (earlier versions of torch).
 * The environment variable PS3C_DLPACK=managed or capsule at import forces a slower route, for tests.
 *
 * Every route keeps the tensor alive but not its storage. `p.data = ...` in another thread, as in module.half(), frees
 * memory that a run uses; it does so for torch's own kernels too. The owning routes hold the same TensorImpl, so they
 * protect no more than the reference to the Python object, which every loan has.
 *
 * DLPack does not show requires_grad, conjugation and the negative bit. The Python package checks requires_grad; this
 * file rejects tensors with one of the others. */
#include "binding.h"

/* ---- state ------------------------------------------------------------------------------------------------ */

void ps3c_loans_open(ps3c_state *state)
{
    const char *exchange = getenv("PS3C_DLPACK");
    if (exchange != NULL && strcmp(exchange, "managed") == 0)
        state->route = PS3C_ROUTE_MANAGED;
    else if (exchange != NULL && strcmp(exchange, "capsule") == 0)
        state->route = PS3C_ROUTE_CAPSULE;
}

int ps3c_loans_traverse(ps3c_state *state, visitproc visit, void *arg)
{
    Py_VISIT(state->tensor_type);
    Py_VISIT(state->is_neg);
    Py_VISIT(state->to_dlpack);
    for (int i = 0; i < state->known_count; i++)
        Py_VISIT(state->known[i].type);
    return 0;
}

void ps3c_loans_close(ps3c_state *state)
{
    Py_CLEAR(state->tensor_type);
    Py_CLEAR(state->is_neg);
    Py_CLEAR(state->to_dlpack);
    while (state->known_count > 0) {
        PyTypeObject *type = state->known[--state->known_count].type; /* Py_CLEAR may evaluate its argument twice */
        Py_DECREF(type);
    }
}

/* ---- torch ------------------------------------------------------------------------------------------------ */

static int ps3c_find_torch(ps3c_state *state)
{
    if (state->to_dlpack != NULL)
        return 0;
    PyObject *torch = PyImport_ImportModule("torch");
    PyObject *dlpack = torch == NULL ? NULL : PyImport_ImportModule("torch.utils.dlpack");
    PyObject *tensor = dlpack == NULL ? NULL : PyObject_GetAttrString(torch, "Tensor");
    PyObject *is_neg = tensor == NULL ? NULL : PyObject_GetAttrString(tensor, "is_neg");
    PyObject *to_dlpack = is_neg == NULL ? NULL : PyObject_GetAttrString(dlpack, "to_dlpack");
    Py_XDECREF(torch);
    Py_XDECREF(dlpack);
    if (to_dlpack == NULL) {
        Py_XDECREF(tensor);
        Py_XDECREF(is_neg);
        return -1;
    }
    /* During the import another thread may have set these. */
    ps3c_replace(&state->tensor_type, tensor);
    ps3c_replace(&state->is_neg, is_neg);
    ps3c_replace(&state->to_dlpack, to_dlpack);
    return 0;
}

/* Sets *found to the exchange API of a type; NULL if it has none of a supported version. Returns -1 with MemoryError
 * without memory to ask: that is no reason to take the slow route from then on. */
static int ps3c_exchange_of(PyTypeObject *type, const ps3c_dl_exchange **found)
{
    PyObject *capsule = PyObject_GetAttrString((PyObject *)type, "__dlpack_c_exchange_api__");
    const ps3c_dl_exchange *exchange = NULL;
    if (capsule != NULL)
        exchange = PyCapsule_GetPointer(capsule, "dlpack_exchange_api");
    Py_XDECREF(capsule); /* the API is valid until the process ends */
    if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_MemoryError))
        return -1;
    PyErr_Clear();
    while (exchange != NULL && exchange->version.major != 1)
        exchange = exchange->older;
    *found = exchange != NULL && exchange->managed_from_object != NULL ? exchange : NULL;
    return 0;
}

/* Returns 1 if object is a torch tensor and sets *exchange (NULL: use a capsule); 0 if not; -1 with an exception. */
static int ps3c_tensor_kind(ps3c_state *state, PyObject *object, const ps3c_dl_exchange **exchange)
{
    PyTypeObject *type = Py_TYPE(object);
    for (int i = 0; i < state->known_count; i++)
        if (state->known[i].type == type) {
            *exchange = state->known[i].exchange;
            return 1;
        }
    if (ps3c_find_torch(state) < 0)
        return -1;
    int is_tensor = PyObject_IsInstance(object, state->tensor_type);
    if (is_tensor <= 0)
        return is_tensor;
    /* isinstance() is also true for proxies that only report the class; the exchange API needs the real type. */
    if (!PyType_IsSubtype(type, (PyTypeObject *)state->tensor_type))
        return 0;
    *exchange = NULL;
    if (state->route != PS3C_ROUTE_CAPSULE && ps3c_exchange_of(type, exchange) < 0)
        return -1;
    if (state->known_count < PS3C_KNOWN_TYPES) {
        state->known[state->known_count++] = (ps3c_known_type){type, *exchange};
        Py_INCREF((PyObject *)type);
    }
    return 1;
}

/* ---- rejected tensors ------------------------------------------------------------------------------------------ */

/* The truth value of object.name, or of its result if it is callable; false if reading it fails. */
static bool ps3c_tensor_flag(PyObject *object, const char *name)
{
    PyObject *value = PyObject_GetAttrString(object, name);
    if (value != NULL && PyCallable_Check(value)) {
        PyObject *result = PyObject_CallNoArgs(value);
        ps3c_replace(&value, result);
    }
    int truth = value == NULL ? 0 : PyObject_IsTrue(value);
    Py_XDECREF(value);
    PyErr_Clear();
    return truth > 0;
}

/* Sets TypeError "NAME: got WHAT (DETAIL VALUE), expected ...", where VALUE is object.DETAIL. Returns -1. */
static int ps3c_refuse(const ps3c_label *label, PyObject *object, const char *what, const char *detail)
{
    char name[PS3C_LABEL_BYTES];
    PyErr_Clear();
    PyObject *value = PyObject_GetAttrString(object, detail);
    if (value == NULL)
        PyErr_Clear();
    PyErr_Format(PyExc_TypeError, "%s: got %s (%s %S), expected a dense floating or integer tensor",
                 ps3c_label_text(label, name, sizeof name), what, detail, value != NULL ? value : Py_None);
    Py_XDECREF(value);
    return -1;
}

static bool ps3c_tensor_is_strided(PyObject *object)
{
    PyObject *layout = PyObject_GetAttrString(object, "layout");
    PyObject *text = layout == NULL ? NULL : PyObject_Str(layout);
    bool strided = text == NULL || PyUnicode_CompareWithASCIIString(text, "torch.strided") == 0;
    Py_XDECREF(layout);
    Py_XDECREF(text);
    PyErr_Clear();
    return strided;
}

/* Sets the exception for a tensor that torch did not lend, or lent without memory: it names the reason. Returns -1. */
static int ps3c_refuse_kind(const ps3c_label *label, PyObject *object)
{
    PyObject *type, *value, *traceback;
    char name[PS3C_LABEL_BYTES];
    PyErr_Fetch(&type, &value, &traceback);
    if (type != NULL &&
        (!PyErr_GivenExceptionMatches(type, PyExc_Exception) || PyErr_GivenExceptionMatches(type, PyExc_MemoryError))) {
        PyErr_Restore(type, value, traceback); /* such as KeyboardInterrupt */
        return -1;
    }
    if (ps3c_tensor_flag(object, "is_nested"))
        ps3c_refuse(label, object, "a nested tensor", "layout");
    else if (!ps3c_tensor_is_strided(object))
        ps3c_refuse(label, object, "a sparse or otherwise laid out tensor", "layout");
    else if (ps3c_tensor_flag(object, "is_meta"))
        ps3c_refuse(label, object, "a meta tensor, which has no memory", "device");
    else if (ps3c_tensor_flag(object, "is_quantized"))
        ps3c_refuse(label, object, "a quantised tensor", "dtype");
    else
        PyErr_Format(PyExc_TypeError, "%s: got a %.100s without memory (%.80S), expected a dense tensor",
                     ps3c_label_text(label, name, sizeof name), ps3c_type_name(object),
                     value != NULL ? value : Py_None);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return -1;
}

/* ---- views --------------------------------------------------------------------------------------------------- */

/* The ps3c_dtype of a DLPack tensor, or -1. */
static int ps3c_dl_dtype(const ps3c_dl_tensor *dl)
{
    if (dl->dtype.lanes != 1)
        return -1;
    switch (dl->dtype.code << 8 | dl->dtype.bits) {
    case PS3C_DL_FLOAT << 8 | 32:
        return PS3C_FLOAT32;
    case PS3C_DL_FLOAT << 8 | 16:
        return PS3C_FLOAT16;
    case PS3C_DL_BFLOAT << 8 | 16:
        return PS3C_BFLOAT16;
    case PS3C_DL_FLOAT << 8 | 64:
        return PS3C_FLOAT64;
    case PS3C_DL_BOOL << 8 | 8:
        return PS3C_BOOL;
    case PS3C_DL_UINT << 8 | 8:
        return PS3C_UINT8;
    case PS3C_DL_INT << 8 | 8:
        return PS3C_INT8;
    case PS3C_DL_INT << 8 | 16:
        return PS3C_INT16;
    case PS3C_DL_INT << 8 | 32:
        return PS3C_INT32;
    case PS3C_DL_INT << 8 | 64:
        return PS3C_INT64;
    }
    return -1;
}

/* An element's distance from the first one, and the first one's from the pointer, is at most this: no processor has a
 * larger address space. */
#define PS3C_MOST_BYTES (INT64_C(1) << 56)

/* Can a tensor of these sizes and strides be in memory at the address? */
static bool ps3c_fits_memory(const ps3c_tensor *tensor, uint64_t address)
{
    const int64_t item = (int64_t)ps3c_dtype_bytes(tensor->dtype);
    int64_t bytes = item, below = 0, above = item, step, span;
    bool empty = false;
    for (int d = 0; d < tensor->ndim; d++) {
        if (tensor->shape[d] <= 1) {
            empty = empty || tensor->shape[d] == 0;
            continue;
        }
        if (__builtin_mul_overflow(bytes, tensor->shape[d], &bytes))
            return false;
        if (__builtin_mul_overflow(tensor->strides[d], item, &step) ||
            __builtin_mul_overflow(step, tensor->shape[d] - 1, &span) ||
            __builtin_add_overflow(span < 0 ? below : above, span, span < 0 ? &below : &above))
            return false;
    }
    if (empty)
        return true;
    return below >= -PS3C_MOST_BYTES && above <= PS3C_MOST_BYTES && (uint64_t)-below <= address &&
           (uint64_t)above <= UINT64_MAX - address;
}

/* Copies shape and strides. Returns 0, or -1 with an exception if no tensor has them. */
static int ps3c_view_sizes(const ps3c_label *label, const ps3c_dl_tensor *dl, ps3c_tensor *tensor)
{
    char name[PS3C_LABEL_BYTES], shape[PS3C_SHAPE_BYTES], strides[PS3C_SHAPE_BYTES];
    int64_t stride = 1;
    bool valid = true;
    if (dl->ndim < 0 || dl->ndim > PS3C_MAX_DIMS || (dl->ndim > 0 && dl->shape == NULL)) {
        PyErr_Format(PyExc_ValueError, "%s: got %d dimensions%s, expected at most %d",
                     ps3c_label_text(label, name, sizeof name), (int)dl->ndim,
                     dl->ndim > 0 && dl->shape == NULL ? " without sizes" : "", PS3C_MAX_DIMS);
        return -1;
    }
    tensor->ndim = dl->ndim;
    for (int d = dl->ndim - 1; d >= 0; d--) {
        tensor->shape[d] = dl->shape[d];
        tensor->strides[d] = dl->strides != NULL ? dl->strides[d] : stride;
        valid = valid && dl->shape[d] >= 0;
        /* Past an overflow the strides mean nothing. ps3c_fits_memory refuses the tensor unless it is empty. */
        if (__builtin_mul_overflow(stride, dl->shape[d], &stride))
            stride = 0;
    }
    const uint64_t data = (uint64_t)(uintptr_t)dl->data;
    if (valid && dl->byte_offset <= PS3C_MOST_BYTES && dl->byte_offset <= UINT64_MAX - data &&
        ps3c_fits_memory(tensor, data + dl->byte_offset))
        return 0;
    PyErr_Format(PyExc_ValueError, "%s: got shape %s, strides %s and offset %llu, expected a tensor in memory",
                 ps3c_label_text(label, name, sizeof name), ps3c_sizes_text(tensor->ndim, tensor->shape, shape),
                 ps3c_sizes_text(tensor->ndim, tensor->strides, strides), (unsigned long long)dl->byte_offset);
    return -1;
}

static int ps3c_view_dl(const ps3c_label *label, PyObject *object, const ps3c_dl_tensor *dl, ps3c_tensor *tensor)
{
    int dtype = ps3c_dl_dtype(dl);
    if (dl->dtype.code == PS3C_DL_COMPLEX)
        return ps3c_refuse(label, object,
                           ps3c_tensor_flag(object, "is_conj") ? "a conjugate complex tensor" : "a complex tensor",
                           "dtype");
    if (dtype < 0)
        return ps3c_refuse(label, object, "a dtype that ps3c does not read", "dtype");
    if (dl->device.type != PS3C_DL_CPU && dl->device.type != PS3C_DL_CUDA)
        return ps3c_refuse(label, object, "a tensor on a device that ps3c cannot read", "device");
    bool on_cpu = dl->device.type == PS3C_DL_CPU;
    tensor->dtype = (ps3c_dtype)dtype;
    tensor->device = (ps3c_device){on_cpu ? PS3C_CPU : PS3C_CUDA, on_cpu ? 0 : dl->device.id};
    if (ps3c_view_sizes(label, dl, tensor) < 0)
        return -1;
    tensor->data = dl->data != NULL ? (char *)dl->data + dl->byte_offset : NULL;
    bool empty = false;
    for (int d = 0; d < tensor->ndim; d++)
        empty = empty || tensor->shape[d] == 0;
    if (dl->data == NULL && !empty)
        return ps3c_refuse_kind(label, object); /* for example a wrapper subclass or a ZeroTensor */
    return 0;
}

/* ---- loans ----------------------------------------------------------------------------------------------------- */

void ps3c_loan_return(ps3c_loan *loan)
{
    ps3c_dl_versioned *versioned = loan->versioned;
    ps3c_dl_managed *managed = loan->managed;
    PyObject *object = loan->object;
    *loan = (ps3c_loan){0};
    if (versioned != NULL && versioned->deleter != NULL)
        versioned->deleter(versioned);
    if (managed != NULL && managed->deleter != NULL)
        managed->deleter(managed);
    Py_XDECREF(object);
}

/* Borrows by capsule. It takes ownership of the managed tensor, so that the capsule's destructor does not release it.
 */
static int ps3c_loan_from_capsule(ps3c_state *state, PyObject *object, ps3c_loan *loan)
{
    PyObject *capsule = PyObject_CallFunctionObjArgs(state->to_dlpack, object, NULL);
    if (capsule == NULL)
        return -1;
    ps3c_dl_managed *managed = PyCapsule_GetPointer(capsule, "dltensor");
    if (managed != NULL && PyCapsule_SetName(capsule, "used_dltensor") == 0)
        loan->managed = managed;
    Py_DECREF(capsule);
    return loan->managed != NULL ? 0 : -1;
}

/* Fills *dl, which is valid until the loan is returned. Returns 0; 1 if torch did not lend, with torch's exception; -1
 * with an exception of this function. */
static int ps3c_loan_ask(ps3c_state *state, const ps3c_label *label, const ps3c_dl_exchange *exchange, PyObject *object,
                         ps3c_loan *loan, ps3c_dl_tensor *dl)
{
    if (exchange == NULL) {
        if (ps3c_loan_from_capsule(state, object, loan) < 0)
            return 1;
        *dl = loan->managed->tensor;
        return 0;
    }
    if (exchange->tensor_from_object != NULL && state->route == PS3C_ROUTE_EXCHANGE)
        return exchange->tensor_from_object(object, dl) != 0;
    if (exchange->managed_from_object(object, &loan->versioned) != 0)
        loan->versioned = NULL;
    if (loan->versioned == NULL)
        return 1;
    char name[PS3C_LABEL_BYTES];
    if (loan->versioned->version.major != 1) {
        PyErr_Format(PyExc_TypeError, "%s: got a tensor lent by DLPack %u, expected DLPack 1",
                     ps3c_label_text(label, name, sizeof name), (unsigned)loan->versioned->version.major);
        return -1;
    }
    if (label->output && (loan->versioned->flags & (PS3C_DL_READ_ONLY | PS3C_DL_IS_COPIED))) {
        PyErr_Format(PyExc_TypeError, "%s: got %s, expected memory to write the result to",
                     ps3c_label_text(label, name, sizeof name),
                     loan->versioned->flags & PS3C_DL_READ_ONLY ? "read-only memory" : "a copy of the tensor's memory");
        return -1;
    }
    *dl = loan->versioned->tensor;
    return 0;
}

/* Rejects a tensor with the negative bit set. Only the .imag of a conjugate view has it, and its stride is 2. Weights
 * must be contiguous, so they are not checked: the check takes as long as borrowing. */
static int ps3c_refuse_negative(ps3c_state *state, const ps3c_label *label, PyObject *object)
{
    PyObject *negative = PyObject_CallFunctionObjArgs(state->is_neg, object, NULL);
    int is_negative = negative == NULL ? -1 : PyObject_IsTrue(negative);
    Py_XDECREF(negative);
    if (is_negative > 0)
        ps3c_refuse(label, object, "a tensor with its negative bit set (call resolve_neg)", "dtype");
    return is_negative != 0 ? -1 : 0;
}

int ps3c_loan_take(ps3c_state *state, const ps3c_label *label, PyObject *object, ps3c_loan *loan, ps3c_tensor *tensor)
{
    char name[PS3C_LABEL_BYTES];
    const ps3c_dl_exchange *exchange = NULL;
    ps3c_dl_tensor dl;
    *loan = (ps3c_loan){0};
    if (ps3c_is_array(object))
        return ps3c_loan_array(label, object, loan, tensor);
    int is_tensor = ps3c_tensor_kind(state, object, &exchange);
    if (is_tensor <= 0) {
        if (is_tensor == 0)
            PyErr_Format(PyExc_TypeError, "%s: got %.200s, expected a torch.Tensor",
                         ps3c_label_text(label, name, sizeof name), ps3c_type_name(object));
        return -1;
    }
    loan->object = Py_NewRef(object);
    int asked = ps3c_loan_ask(state, label, exchange, object, loan, &dl);
    if (asked > 0)
        ps3c_refuse_kind(label, object);
    if (asked != 0)
        goto fail;
    if (ps3c_view_dl(label, object, &dl, tensor) < 0)
        goto fail;
    if (label->weight == NULL && ps3c_refuse_negative(state, label, object) < 0)
        goto fail;
    return 0;
fail:
    ps3c_loan_return(loan);
    return -1;
}
