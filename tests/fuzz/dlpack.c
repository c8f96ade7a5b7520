/* Fuzz target: tensors that a producer lends by DLPack, by all three routes of csrc/binding/dlpack.c. torch is replaced
 * by a class of the target's own, whose exchange functions lend what the input says. */
#include "python.h"

static PyObject *globals, *tensor_object;
static ps3c_state state;

/* What the producer lends next. */
static struct lender {
    ps3c_dl_tensor tensor;
    uint32_t major;
    uint64_t flags;
    bool fails, has_deleter;
    int lent, deleted;
} lender;

static void delete_versioned(ps3c_dl_versioned *self)
{
    lender.deleted++;
    free(self);
}

static void delete_managed(ps3c_dl_managed *self)
{
    lender.deleted++;
    free(self);
}

static int lend_versioned(void *object, ps3c_dl_versioned **out)
{
    (void)object;
    if (lender.fails) {
        PyErr_SetString(PyExc_BufferError, "not lent");
        return -1;
    }
    lender.lent++;
    *out = malloc(sizeof **out);
    **out = (ps3c_dl_versioned){.version = {lender.major, 0},
                                .deleter = lender.has_deleter ? delete_versioned : NULL,
                                .flags = lender.flags,
                                .tensor = lender.tensor};
    return 0;
}

static int lend_tensor(void *object, ps3c_dl_tensor *out)
{
    (void)object;
    if (lender.fails) {
        PyErr_SetString(PyExc_BufferError, "not lent");
        return -1;
    }
    *out = lender.tensor;
    return 0;
}

/* Deletes the tensor unless the consumer has taken it. */
static void drop_capsule(PyObject *capsule)
{
    const char *name = PyCapsule_GetName(capsule);
    if (strcmp(name, "used_dltensor") == 0)
        return;
    ps3c_dl_managed *managed = PyCapsule_GetPointer(capsule, name);
    if (managed->deleter)
        managed->deleter(managed);
    else
        free(managed);
}

static ps3c_dl_managed *last_managed;

static PyObject *lend_capsule(PyObject *self, PyObject *object)
{
    (void)self, (void)object;
    if (lender.fails)
        return PyErr_Format(PyExc_BufferError, "not lent");
    lender.lent++;
    last_managed = malloc(sizeof *last_managed);
    *last_managed = (ps3c_dl_managed){lender.tensor, NULL, lender.has_deleter ? delete_managed : NULL};
    return PyCapsule_New(last_managed, lender.major == 1 ? "dltensor" : "another", drop_capsule);
}

static ps3c_dl_exchange exchange = {
    .version = {1, 0}, .managed_from_object = lend_versioned, .tensor_from_object = lend_tensor};

static void start(void)
{
    static PyMethodDef method = {"to_dlpack", lend_capsule, METH_O, NULL};
    fuzz_python_start();
    globals = fuzz_python_run("class Tensor:\n"
                              "    layout, dtype, device = 'torch.strided', 'float32', 'cpu'\n"
                              "    is_nested = is_meta = is_quantized = False\n"
                              "    def is_conj(self): return False\n"
                              "    def is_neg(self): return self.negative\n"
                              "    negative = False\n"
                              "tensor = Tensor()\n");
    state.tensor_type = PyDict_GetItemString(globals, "Tensor");
    state.is_neg = PyObject_GetAttrString(state.tensor_type, "is_neg");
    state.to_dlpack = PyCFunction_New(&method, NULL);
    tensor_object = PyDict_GetItemString(globals, "tensor");
}

/* ---- the lent tensor ---------------------------------------------------------------------------------------------- */

static void read_tensor(fuzz *f, int64_t *shape, int64_t *strides)
{
    static const struct {
        uint8_t code, bits;
    } types[] = {{2, 32}, {2, 16}, {4, 16}, {2, 64}, {6, 8}, {1, 8}, {0, 8}, {0, 64}, {0, 16}, {0, 32}};
    ps3c_dl_tensor *t = &lender.tensor;
    const int type = (int)(fuzz_byte(f) % 10);
    const uint8_t flags = fuzz_byte(f);
    t->ndim = (int32_t)fuzz_integer(f, 0, 5, 0, PS3C_MAX_DIMS);
    t->dtype.code = (uint8_t)fuzz_integer(f, types[type].code, types[type].code, 0, 12);
    t->dtype.bits = (uint8_t)fuzz_integer(f, types[type].bits, types[type].bits, 0, 255);
    t->dtype.lanes = (uint16_t)fuzz_integer(f, 1, 1, 0, 65535);
    t->device.type = (int32_t)fuzz_integer(f, 1, 1, 0, 20);
    t->device.id = (int32_t)fuzz_integer(f, 0, 0, 0, INT32_MAX);
    t->byte_offset = (uint64_t)fuzz_integer(f, 0, 64, 0, INT64_MAX);
    for (int d = 0; d < 16; d++) {
        shape[d] = fuzz_integer(f, 0, 6, 0, INT64_MAX);
        strides[d] = fuzz_integer(f, -6, 20, INT64_MIN, INT64_MAX);
    }
    t->shape = t->ndim > 0 && t->ndim <= 16 ? fuzz_memory(f, (size_t)t->ndim * sizeof *shape) : NULL;
    t->strides = t->shape && flags & 1 ? fuzz_memory(f, (size_t)t->ndim * sizeof *strides) : NULL;
    if (t->shape)
        memcpy(t->shape, shape, (size_t)t->ndim * sizeof *shape);
    if (t->strides)
        memcpy(t->strides, strides, (size_t)t->ndim * sizeof *strides);
    t->data = flags & 62 ? (void *)(uintptr_t)0x100000 : NULL; /* nothing reads it */
}

/* The borrowed tensor says what the producer said. */
static void check_tensor(const ps3c_tensor *tensor)
{
    const ps3c_dl_tensor *t = &lender.tensor;
    bool empty = false;
    FUZZ_CHECK(t->ndim >= 0 && t->ndim <= PS3C_MAX_DIMS && tensor->ndim == t->ndim, "ndim %d", (int)tensor->ndim);
    FUZZ_CHECK(t->dtype.lanes == 1 && ps3c_dtype_bytes(tensor->dtype) * 8 == t->dtype.bits, "%d bits", t->dtype.bits);
    FUZZ_CHECK(t->device.type == PS3C_DL_CPU || t->device.type == PS3C_DL_CUDA, "device %d", (int)t->device.type);
    int64_t stride = 1;
    for (int d = tensor->ndim - 1; d >= 0; d--) {
        FUZZ_CHECK(tensor->shape[d] == t->shape[d] && t->shape[d] >= 0, "size %lld", (long long)tensor->shape[d]);
        FUZZ_CHECK(tensor->strides[d] == (t->strides ? t->strides[d] : stride) || tensor->shape[d] <= 1, "stride %lld",
                   (long long)tensor->strides[d]);
        stride = fuzz_times(stride, t->shape[d]);
        empty = empty || !t->shape[d];
    }
    FUZZ_CHECK(!t->data || tensor->data == (void *)((uintptr_t)t->data + t->byte_offset), "data %p", tensor->data);
    FUZZ_CHECK(tensor->data || empty || t->data, "no data");
}

/* The checks of a run, with every kind of rule. */
static void use_tensor(fuzz *f, const ps3c_tensor *tensor)
{
    int64_t shape[PS3C_MAX_DIMS];
    for (int d = 0; d < PS3C_MAX_DIMS; d++)
        shape[d] = fuzz_rarely(f, 3) || d >= tensor->ndim ? PS3C_ANY : tensor->shape[d];
    const ps3c_tensor_rule rule = {
        fuzz_flag(f) ? PS3C_ANY : (int)(fuzz_byte(f) % 10), {PS3C_CPU, 0}, fuzz_byte(f) % 9, shape, fuzz_flag(f)};
    if (ps3c_expect("tensor", tensor, &rule) < 0)
        FUZZ_CHECK(PyErr_Occurred(), "no exception");
    PyErr_Clear();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!globals)
        start();
    fuzz f = fuzz_begin(data, size);
    int64_t shape[16], strides[16];
    ps3c_loan loan;
    ps3c_tensor tensor;
    const uint8_t how = fuzz_byte(&f);
    const ps3c_label label = {"tensor", how & 64 ? 3 : -1, how & 128 ? "trunk.norm.bias" : NULL, fuzz_flag(&f)};
    lender = (struct lender){
        .major = (uint32_t)fuzz_integer(&f, 1, 1, 0, 3), .has_deleter = !(how & 8), .fails = !(~how & 48)};
    lender.flags = fuzz_rarely(&f, 4) ? fuzz_byte(&f) : 0;
    state.route = (ps3c_route)(how % 3);
    state.known_count = 1;
    state.known[0] = (ps3c_known_type){Py_TYPE(tensor_object), state.route == PS3C_ROUTE_CAPSULE ? NULL : &exchange};
    exchange.tensor_from_object = how & 4 ? lend_tensor : NULL;
    PyObject_SetAttrString(tensor_object, "negative", fuzz_rarely(&f, 8) ? Py_True : Py_False);
    read_tensor(&f, shape, strides);
    const Py_ssize_t references = Py_REFCNT(tensor_object);
    last_managed = NULL;
    if (ps3c_loan_take(&state, &label, tensor_object, &loan, &tensor) == 0) {
        FUZZ_CHECK(!PyErr_Occurred() && !lender.deleted && !lender.fails,
                   "lent with an exception, or after its deleter");
        FUZZ_CHECK(!loan.versioned || !label.output || !(lender.flags & 3), "memory that is read-only or a copy");
        check_tensor(&tensor);
        use_tensor(&f, &tensor);
        void *managed = loan.versioned ? (void *)loan.versioned : (void *)loan.managed;
        ps3c_loan_return(&loan);
        if (!lender.has_deleter)
            free(managed);
    } else {
        FUZZ_CHECK(PyErr_Occurred() && !loan.object && !loan.versioned && !loan.managed,
                   "refused without an exception");
        PyErr_Clear();
        if (!lender.has_deleter && state.route == PS3C_ROUTE_CAPSULE && lender.major == 1)
            free(last_managed); /* taken, then refused */
    }
    FUZZ_CHECK(lender.deleted == (lender.has_deleter ? lender.lent : 0), "%d lent, %d deleted", lender.lent,
               lender.deleted);
    FUZZ_CHECK(Py_REFCNT(tensor_object) == references, "%zd references, %zd before", Py_REFCNT(tensor_object),
               references);
    fuzz_end(&f);
    return 0;
}
