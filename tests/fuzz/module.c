/* Fuzz target: Python values that ps3c._core turns into structs: dictionaries of configurations, arguments of plans, and
 * NumPy arrays. Most values are valid; up to three are replaced by odd objects. */
#include "python.h"

static PyObject *globals, *core, *odd, *make_array;

static void start(void)
{
    fuzz_python_start();
    globals = fuzz_python_run(
        "import types\n"
        "import numpy as np\n"
        "spec = types.SimpleNamespace(name='ps3c._core', loader=None, origin=None, parent='ps3c')\n"
        "class Index:\n"
        "    def __index__(self): return 1\n"
        "class Raises:\n"
        "    def __index__(self): raise OSError('no')\n"
        "    def __bool__(self): raise OSError('no')\n"
        "    def __float__(self): raise OSError('no')\n"
        "    def __len__(self): raise OSError('no')\n"
        "    def __getitem__(self, i): raise OSError('no')\n"
        "    def __repr__(self): raise OSError('no')\n"
        "class Grows:\n"
        "    n = 1\n"
        "    def __len__(self): self.n += 1; return self.n % 4\n"
        "    def __getitem__(self, i):\n"
        "        if i > self.n % 5: raise IndexError\n"
        "        return i + 1\n"
        "class Text(str): pass\n"
        "odd = [None, True, 0, -1, 1, 2**31, 2**63 - 1, 2**63, -2**63 - 1, 2**200, 1.5, float('nan'), 1e300, '', "
        "'all',\n"
        "       'cpu', 'cuda', 'low_res', 'v2', 'argmax', '\\ud800', 'x' * 5000, Text('all'), b'all', (), [1] * 100,\n"
        "       ('cpu', 0), ('cuda', 0), ('cpu', 2**70), (('cpu',), 0), [2**70], ['a'], {}, {'a': 1}, {1, 2}, "
        "Index(),\n"
        "       Raises(), Grows(), Index, np.int64(3), np.float32(2), np.arange(3), np.zeros((2, 2)), range(2**40),\n"
        "       iter([1, 2]), object(), [Raises()], [Index()], (Grows(),)]\n"
        "types_of = ['uint8', 'uint8', 'uint8', 'float32', '>f4', 'float64', 'int8', 'uint16', 'S3', 'O', 'V1', "
        "'bool']\n"
        "def make_array(kind, shape, strides, size, offset, writable):\n"
        "    if types_of[kind] == 'O':\n"
        "        return np.full(shape if np.prod(shape, dtype=float) < 1000 else 1, None)\n"
        "    memory = np.ndarray(shape, types_of[kind], bytearray(size), offset, strides)\n"
        "    memory.flags.writeable = writable\n"
        "    return memory\n");
    odd = PyDict_GetItemString(globals, "odd");
    make_array = PyDict_GetItemString(globals, "make_array");
    core = fuzz_python_core(globals);
}

/* Takes over value. A hostile field becomes an odd object. */
static PyObject *value_of(fuzz *f, PyObject *value)
{
    if (fuzz_integer(f, 0, 0, 0, 0) == 0)
        return value;
    Py_XDECREF(value);
    return Py_NewRef(PyList_GetItem(odd, fuzz_byte(f) % PyList_Size(odd)));
}

static void put(fuzz *f, PyObject *dict, const char *name, PyObject *value)
{
    value = value_of(f, value);
    PyDict_SetItemString(dict, name, value);
    Py_DECREF(value);
}

static PyObject *number(int64_t value) { return PyLong_FromLongLong(value); }

static PyObject *list(const int64_t *values, int count)
{
    PyObject *list = PyList_New(count);
    for (int i = 0; i < count; i++)
        PyList_SetItem(list, i, number(values[i]));
    return list;
}

/* Adds an entry that no configuration has, or removes one. */
static void misspell(fuzz *f, PyObject *dict)
{
    const uint8_t how = fuzz_byte(f);
    if (how % 16 == 15) {
        PyObject *key = Py_NewRef(PyList_GetItem(odd, fuzz_byte(f) % PyList_Size(odd)));
        if (PyObject_SetItem(dict, key, Py_None) < 0)
            PyErr_Clear();
        Py_DECREF(key);
    } else if (how % 16 == 14) {
        PyObject *keys = PyDict_Keys(dict);
        PyDict_DelItem(dict, PyList_GetItem(keys, fuzz_byte(f) % PyList_Size(keys)));
        Py_DECREF(keys);
    }
}

static PyObject *vision_config(fuzz *f)
{
    static const char *const adapters[] = {"none", "none", "v1", "v2"};
    PyObject *d = PyDict_New();
    const int scales = 2 + fuzz_byte(f) % 3;
    const char *names[] = {"tanh_gelu", "crop_positions", "final_norm", "separate_positions"};
    const int64_t sizes[] = {8, 16, 24, 64}, takes[] = {3, 4, 5}, layers[] = {0, -1, 0};
    put(f, d, "width", number(16));
    put(f, d, "depth", number(1 + fuzz_byte(f) % 2));
    put(f, d, "heads", number(1 + fuzz_byte(f) % 2));
    put(f, d, "mlp_hidden", number(1 + fuzz_byte(f)));
    put(f, d, "patch", number(4));
    put(f, d, "grid", number(16));
    put(f, d, "norm_eps", PyFloat_FromDouble(1e-6));
    for (int i = 0; i < 4; i++)
        put(f, d, names[i], PyBool_FromLong(fuzz_flag(f)));
    put(f, d, "scales", list(sizes, scales));
    put(f, d, "max_select_num", list(takes, scales - 1));
    put(f, d, "select_layers", list(layers, 1 + fuzz_byte(f) % 3));
    if (fuzz_flag(f))
        put(f, d, "num_scales", number(scales));
    put(f, d, "highres_features", PyBool_FromLong(fuzz_rarely(f, 4)));
    for (int i = 0; i < 4; i++)
        put(f, d, ((const char *[]){"conv_width", "conv_out", "conv_depth", "conv_kernel"})[i], number(2));
    put(f, d, "adapter", PyUnicode_FromString(adapters[fuzz_byte(f) % 4]));
    put(f, d, "adapter_hidden", number(5));
    put(f, d, "adapter_out", number(16));
    put(f, d, "adapter_blocks", number(1));
    put(f, d, "pool_width", number(16));
    put(f, d, "pool_heads", number(1));
    put(f, d, "pool_hidden", number(9));
    put(f, d, "pool_eps", PyFloat_FromDouble(1e-6));
    misspell(f, d);
    return d;
}

static PyObject *text_config(fuzz *f)
{
    static const char *const names[] = {"causal",    "class_token",       "layer_scale",
                                        "tanh_gelu", "projection_linear", "projection_bias"};
    static const char *const pools[] = {"first", "last", "argmax", "none"};
    static const char *const sizes[] = {"width",      "mlp_hidden", "context_length",
                                        "vocab_size", "output_dim", "prompt_dim"};
    PyObject *d = PyDict_New();
    for (int i = 0; i < 6; i++)
        put(f, d, sizes[i], number(16));
    put(f, d, "depth", number(1));
    put(f, d, "heads", number(2));
    put(f, d, "pad_id", number(1));
    put(f, d, "norm_eps", PyFloat_FromDouble(1e-6));
    for (int i = 0; i < 6; i++)
        put(f, d, names[i], PyBool_FromLong(fuzz_flag(f)));
    put(f, d, "pool", PyUnicode_FromString(pools[fuzz_byte(f) % 4]));
    misspell(f, d);
    return d;
}

static PyObject *vision_request(fuzz *f)
{
    static const char *const dtypes[] = {"float32", "float16", "bfloat16"}, *const modes[] = {"features", "pretrain",
                                                                                              "low_res"};
    static const char *const flags[] = {"prompt", "gt_maps", "smooth", "pool_gt_only", "global_text", "pooled"};
    PyObject *d = PyDict_New();
    const int batch = 1 + fuzz_byte(f) % 3;
    const int64_t scales[] = {1, 1, 1};
    put(f, d, "batch", number(batch));
    put(f, d, "height", number(1 + fuzz_byte(f)));
    put(f, d, "width", number(1 + fuzz_byte(f)));
    put(f, d, "dtype", PyUnicode_FromString(dtypes[fuzz_byte(f) % 3]));
    put(f, d, "device", Py_BuildValue("(si)", "cpu", 0));
    put(f, d, "mode", PyUnicode_FromString(modes[fuzz_byte(f) % 3]));
    put(f, d, fuzz_flag(f) ? "num_look_close" : "num_token_look_close", number(fuzz_byte(f) % 20));
    if (fuzz_rarely(f, 3))
        put(f, d, "first_n_scales", list(scales, batch));
    for (int i = 0; i < 6; i++)
        put(f, d, flags[i], PyBool_FromLong(fuzz_rarely(f, 3)));
    put(f, d, "hidden_states", number(1));
    put(f, d, "workspace_limit", number(fuzz_byte(f)));
    put(f, d, "looks_per_step", number(fuzz_byte(f) % 3));
    misspell(f, d);
    return d;
}

static PyObject *text_request(fuzz *f)
{
    PyObject *d = PyDict_New();
    put(f, d, "batch", number(1 + fuzz_byte(f) % 5));
    put(f, d, "length", number(1 + fuzz_byte(f) % 16));
    put(f, d, "device", Py_BuildValue("(si)", "cpu", 0));
    put(f, d, "workspace_limit", number(fuzz_byte(f)));
    misspell(f, d);
    return d;
}

/* A failed call set one exception, and not one of those that only a mistake of the binding raises. */
static void check_result(PyObject *result)
{
    FUZZ_CHECK((result == NULL) == (PyErr_Occurred() != NULL), "result %p", (void *)result);
    if (!result && PyErr_ExceptionMatches(PyExc_SystemError))
        PyErr_Print();
    FUZZ_CHECK(result || PyErr_Occurred(), "SystemError");
    PyErr_Clear();
}

/* Reads every attribute and calls no method. */
static void read_attributes(PyObject *object)
{
    PyObject *names = PyObject_Dir(object);
    for (Py_ssize_t i = 0; names && i < PyList_Size(names); i++) {
        PyObject *value = PyObject_GetAttr(object, PyList_GetItem(names, i));
        check_result(value);
        Py_XDECREF(value);
    }
    Py_XDECREF(names);
}

static PyObject *call(PyObject *object, const char *name, PyObject *args, PyObject *kwargs)
{
    PyObject *function = PyObject_GetAttrString(object, name);
    PyObject *result = PyObject_Call(function, args, kwargs);
    check_result(result);
    Py_DECREF(function);
    return result;
}

static void make_plan(fuzz *f, bool vision)
{
    PyObject *config = value_of(f, vision ? vision_config(f) : text_config(f)), *args = PyTuple_Pack(1, config);
    PyObject *model = call(core, vision ? "VisionModel" : "TextModel", args, NULL), *plan = NULL;
    if (model) {
        PyObject *request = vision ? vision_request(f) : text_request(f), *none = PyTuple_New(0);
        read_attributes(model);
        plan = call(model, "plan", fuzz_rarely(f, 16) ? args : none, request);
        Py_DECREF(request);
        Py_DECREF(none);
    }
    if (plan) {
        PyObject *workspace = PyObject_GetAttrString(plan, "looks");
        PyErr_Clear();
        if (!workspace || PyLong_AsLongLong(workspace) < 1000)
            read_attributes(plan);
        Py_XDECREF(workspace);
        PyErr_Clear();
    }
    Py_XDECREF(plan);
    Py_XDECREF(model);
    Py_DECREF(args);
    Py_DECREF(config);
}

/* ---- arrays ------------------------------------------------------------------------------------------------------- */

/* An array of bytes (height, width, channels), or nearly one. NULL: NumPy refused it. */
static PyObject *image(fuzz *f, int64_t height, int64_t width, int64_t channels, const char *kind)
{
    const bool floats = *kind == 'f';
    const int64_t item = floats ? 4 : 1;
    int64_t shape[4] = {fuzz_integer(f, height, height, 0, 40), fuzz_integer(f, width, width, 0, 40),
                        fuzz_integer(f, channels, channels, 0, 5), 1};
    const int64_t row = fuzz_times(fuzz_times(shape[1], shape[2]), item), gap = fuzz_rarely(f, 8) ? 3 : 0;
    const int64_t strides[4] = {fuzz_integer(f, fuzz_plus(row, gap), 0, -100, 100),
                                fuzz_integer(f, fuzz_times(shape[2], item), 0, -10, 10),
                                fuzz_integer(f, item, 0, -10, 10), item};
    const int64_t size = fuzz_plus(fuzz_times(fuzz_plus(row, gap), fuzz_plus(shape[0], -1)), row);
    const int ndim = fuzz_rarely(f, 32) ? 1 + fuzz_byte(f) % 4 : 3;
    const int type = fuzz_rarely(f, 32) ? fuzz_byte(f) % 12 : floats ? 3 : 0;
    PyObject *sizes = PyTuple_New(ndim), *steps = PyTuple_New(ndim);
    for (int d = 0; d < ndim; d++) {
        PyTuple_SetItem(sizes, d, number(shape[d]));
        PyTuple_SetItem(steps, d, number(strides[d]));
    }
    PyObject *array = PyObject_CallFunction(
        make_array, "iNNLiO", type, sizes, steps, (long long)(size < 0 || size > 1 << 20 ? 1000 : size),
        (int)fuzz_integer(f, 0, 0, 0, 100), fuzz_rarely(f, 16) ? Py_False : Py_True);
    PyErr_Clear();
    return array ? value_of(f, array) : NULL;
}

static void call_image(fuzz *f)
{
    const int64_t height = 1 + fuzz_byte(f) % 20, width = 1 + fuzz_byte(f) % 20, out = 1 + fuzz_byte(f) % 20;
    const uint8_t which = fuzz_byte(f) % 3;
    PyObject *kwargs = PyDict_New(), *args = PyTuple_New(0);
    PyObject *pixels = image(f, height, width, which == 2 ? 4 : 3 + fuzz_byte(f) % 2, "u");
    PyObject *target = which == 0 ? image(f, 3, height, width, "f") : image(f, height, out, 4, "u");
    if (pixels)
        PyDict_SetItemString(kwargs, "pixels", pixels);
    if (target && which < 2)
        PyDict_SetItemString(kwargs, "out", target);
    if (which != 1) {
        put(f, kwargs, "mean", Py_BuildValue("(ddd)", 0.5, 0.5, 0.5));
        put(f, kwargs, "std", Py_BuildValue("[ddd]", 0.5, 0.25, 0.5));
    }
    if (which) {
        put(f, kwargs, "filter", PyUnicode_FromString(fuzz_flag(f) ? "bilinear" : "bicubic"));
        put(f, kwargs, "threads", number(1));
        put(f, kwargs, "level", PyUnicode_FromString(fuzz_flag(f) ? "naive" : "portable"));
    }
    if (which == 2)
        put(f, kwargs, "height", number(out));
    misspell(f, kwargs);
    /* A valid but huge height needs huge memory. */
    PyObject *asked = PyDict_GetItemString(kwargs, "height");
    if (!asked || !PyLong_Check(asked) || PyLong_AsLong(asked) < 10000)
        Py_XDECREF(call(core,
                        which == 0   ? "image_normalize"
                        : which == 1 ? "image_resize_columns"
                                     : "image_resize_rows",
                        args, kwargs));
    PyErr_Clear();
    Py_XDECREF(pixels);
    Py_XDECREF(target);
    Py_DECREF(kwargs);
    Py_DECREF(args);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!globals)
        start();
    fuzz f = fuzz_begin(data, size);
    f.extreme = 0;
    switch (fuzz_byte(&f) % 3) {
    case 0:
        make_plan(&f, true);
        break;
    case 1:
        make_plan(&f, false);
        break;
    default:
        call_image(&f);
    }
    fuzz_end(&f);
    return 0;
}
