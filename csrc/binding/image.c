/* _core.image_normalize, image_resize_columns, image_resize_rows: the image functions of ps3c.h on NumPy arrays. */
#include "arrays.h"

static int ps3c_read_channels(const char *name, PyObject *object, float values[3])
{
    PyObject *tuple = ps3c_sequence(name, object, "3 numbers");
    int failed = 0;
    if (tuple == NULL || PyTuple_Size(tuple) != 3) {
        if (tuple != NULL || PyErr_ExceptionMatches(PyExc_TypeError))
            ps3c_wrong_value(PyExc_ValueError, name, object, "3 numbers");
        Py_XDECREF(tuple);
        return -1;
    }
    for (int c = 0; c < 3 && !failed; c++)
        failed = ps3c_parse_float(name, PyTuple_GetItem(tuple, c), &values[c]) < 0;
    Py_DECREF(tuple);
    return failed ? -1 : 0;
}

/* Views uint8 pixels (H, W, 3 or 4). The pixels of a row must be contiguous; rows may have any distance. */
static int ps3c_pixels_view(PyObject *object, ps3c_tensor *pixels)
{
    char shape[PS3C_SHAPE_BYTES];
    if (ps3c_array_view("pixels", object, PS3C_UINT8, false, pixels) < 0)
        return -1;
    if (pixels->ndim != 3 || (pixels->shape[2] != 3 && pixels->shape[2] != 4)) {
        PyErr_Format(PyExc_ValueError, "pixels: got shape %s, expected (height, width, 3 or 4)",
                     ps3c_shape_text(pixels->ndim, pixels->shape, shape));
        return -1;
    }
    if (pixels->strides[2] != 1 || (pixels->shape[1] > 1 && pixels->strides[1] != pixels->shape[2])) {
        PyErr_Format(PyExc_TypeError, "pixels: got strides %s, expected rows of contiguous pixels",
                     ps3c_shape_text(pixels->ndim, pixels->strides, shape));
        return -1;
    }
    return 0;
}

static PyObject *ps3c_image_normalize_py(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"pixels", "mean", "std", "out", NULL};
    (void)module;
    PyObject *pixels_object, *mean_object, *std_object, *out_object = Py_None, *result = NULL;
    float mean[3], std[3];
    ps3c_tensor pixels, out;
    ps3c_call call = {0};
    ps3c_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|O:image_normalize", keywords, &pixels_object, &mean_object,
                                     &std_object, &out_object) ||
        ps3c_pixels_view(pixels_object, &pixels) < 0 || ps3c_read_channels("mean", mean_object, mean) < 0 ||
        ps3c_read_channels("std", std_object, std) < 0)
        return NULL;
    const int64_t shape[] = {3, pixels.shape[0], pixels.shape[1]};
    if (out_object == Py_None) {
        result = ps3c_array_new(PS3C_FLOAT32, 3, shape, &out);
        if (result == NULL)
            return NULL;
    } else {
        if (ps3c_array_contiguous("out", out_object, PS3C_FLOAT32, true, 3, shape, &out) < 0)
            return NULL;
        result = Py_NewRef(out_object);
    }
    if (ps3c_call_begin(&call, 0, NULL) < 0) {
        Py_CLEAR(result);
        goto cleanup;
    }
    PS3C_ENGINE_BEGIN(call)
    status = ps3c_image_normalize(call.context, pixels.data, pixels.shape[0], pixels.shape[1], pixels.strides[0],
                                  pixels.shape[2], mean, std, out.data);
    PS3C_ENGINE_END(call)
    if (status != PS3C_OK) {
        Py_CLEAR(result);
        ps3c_python_error(call.context, status);
    }
cleanup:
    ps3c_call_end(&call);
    return result;
}

/* The ps3c_image_filter of "bilinear" or "bicubic"; -1 with ValueError for another name. */
static int ps3c_read_filter(const char *name)
{
    if (strcmp(name, "bicubic") == 0)
        return PS3C_BICUBIC;
    if (strcmp(name, "bilinear") == 0)
        return PS3C_BILINEAR;
    PyErr_Format(PyExc_ValueError, "filter: got '%.40s', expected 'bilinear' or 'bicubic'", name);
    return -1;
}

/* Number of threads; NULL: the argument was not given. */
static int ps3c_read_threads(PyObject *object, int64_t *threads)
{
    return object == NULL ? 0 : ps3c_parse_range("threads", object, 0, INT32_MAX, threads);
}

static PyObject *ps3c_image_resize_columns_py(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"pixels", "filter", "out", "threads", "level", NULL};
    (void)module;
    PyObject *pixels_object, *out_object, *threads_object = NULL;
    const char *filter_name, *level = NULL;
    int64_t threads = 0;
    int filter;
    ps3c_tensor pixels, out;
    ps3c_call call;
    ps3c_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OsO|$Oz:image_resize_columns", keywords, &pixels_object,
                                     &filter_name, &out_object, &threads_object, &level) ||
        (filter = ps3c_read_filter(filter_name)) < 0 || ps3c_read_threads(threads_object, &threads) < 0 ||
        ps3c_pixels_view(pixels_object, &pixels) < 0)
        return NULL;
    const int64_t shape[] = {pixels.shape[0], PS3C_ANY, 4};
    if (ps3c_array_contiguous("out", out_object, PS3C_UINT8, true, 3, shape, &out) < 0 ||
        ps3c_call_begin(&call, (int)threads, level) < 0)
        return NULL;
    PS3C_ENGINE_BEGIN(call)
    status = ps3c_image_resize_columns(call.context, pixels.data, pixels.shape[0], pixels.shape[1], pixels.strides[0],
                                       pixels.shape[2], (ps3c_image_filter)filter, out.shape[1], out.data);
    PS3C_ENGINE_END(call)
    PyObject *result = status == PS3C_OK ? Py_NewRef(Py_None) : ps3c_python_error(call.context, status);
    ps3c_call_end(&call);
    return result;
}

static PyObject *ps3c_image_resize_rows_py(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"pixels", "filter", "height", "mean", "std", "threads", "level", NULL};
    (void)module;
    PyObject *pixels_object, *height_object, *mean_object, *std_object, *threads_object = NULL, *result;
    const char *filter_name, *level = NULL;
    int64_t threads = 0, height;
    int filter;
    float mean[3], std[3];
    ps3c_tensor pixels, out;
    ps3c_call call;
    ps3c_status status;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OsOOO|$Oz:image_resize_rows", keywords, &pixels_object,
                                     &filter_name, &height_object, &mean_object, &std_object, &threads_object,
                                     &level) ||
        (filter = ps3c_read_filter(filter_name)) < 0 || ps3c_read_threads(threads_object, &threads) < 0 ||
        ps3c_parse_int64("height", height_object, &height) < 0 ||
        ps3c_array_contiguous("pixels", pixels_object, PS3C_UINT8, false, 3, (int64_t[]){PS3C_ANY, PS3C_ANY, 4},
                              &pixels) < 0 ||
        ps3c_read_channels("mean", mean_object, mean) < 0 || ps3c_read_channels("std", std_object, std) < 0)
        return NULL;
    if (height < 1 || height > 1 << 30)
        return PyErr_Format(PyExc_ValueError, "height: got %lld, expected 1 to 2^30", (long long)height);
    result = ps3c_array_new(PS3C_FLOAT32, 3, (int64_t[]){3, height, pixels.shape[1]}, &out);
    if (result == NULL)
        return NULL;
    if (ps3c_call_begin(&call, (int)threads, level) < 0) {
        Py_DECREF(result);
        return NULL;
    }
    PS3C_ENGINE_BEGIN(call)
    status = ps3c_image_resize_rows(call.context, pixels.data, pixels.shape[0], pixels.shape[1],
                                    (ps3c_image_filter)filter, height, mean, std, out.data);
    PS3C_ENGINE_END(call)
    if (status != PS3C_OK) {
        Py_CLEAR(result);
        ps3c_python_error(call.context, status);
    }
    ps3c_call_end(&call);
    return result;
}

PyMethodDef ps3c_image_methods[] = {
    {"image_normalize", (PyCFunction)(void (*)(void))ps3c_image_normalize_py, METH_VARARGS | METH_KEYWORDS,
     "image_normalize(pixels, mean, std, out=None)\n--\n\n"
     "Returns (pixels / 255 - mean) / std as float32 (3, H, W), written to out if given.\n"
     "pixels: uint8 (H, W, 3 or 4); a fourth channel is skipped. mean, std: 3 numbers."},
    {"image_resize_columns", (PyCFunction)(void (*)(void))ps3c_image_resize_columns_py, METH_VARARGS | METH_KEYWORDS,
     "image_resize_columns(pixels, filter, out, *, threads=0, level=None)\n--\n\n"
     "Resizes rows of pixels, uint8 (H, W, 3 or 4), to the width of out, uint8 (H, any, 4). filter: 'bilinear' or\n"
     "'bicubic'. The fourth byte of out is undefined."},
    {"image_resize_rows", (PyCFunction)(void (*)(void))ps3c_image_resize_rows_py, METH_VARARGS | METH_KEYWORDS,
     "image_resize_rows(pixels, filter, height, mean, std, *, threads=0, level=None)\n--\n\n"
     "Resizes pixels, uint8 (H, W, 4), to height and returns (v / 255 - mean) / std of each byte v as float32\n"
     "(3, height, W)."},
    {NULL, NULL, 0, NULL},
};
