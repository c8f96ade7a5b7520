/* _core.image_normalize: the image processor's last step, from uint8 pixels to normalised planes. */
#include "arrays.h"

static int ps3c_read_channels(const char *name, PyObject *object, float values[3])
{
    PyObject *fast = PySequence_Fast(object, "");
    if (fast == NULL || PySequence_Fast_GET_SIZE(fast) != 3) {
        if (fast != NULL || PyErr_ExceptionMatches(PyExc_TypeError))
            PyErr_Format(PyExc_ValueError, "argument %s: expected 3 numbers, got %R", name, object);
        Py_XDECREF(fast);
        return -1;
    }
    for (int c = 0; c < 3; c++)
        values[c] = (float)PyFloat_AsDouble(PySequence_Fast_GET_ITEM(fast, c));
    Py_DECREF(fast);
    return PyErr_Occurred() ? -1 : 0;
}

/* (H, W, 3 or 4) uint8, the pixels of a row next to each other, rows any number of bytes apart. */
static int ps3c_pixels_view(PyObject *object, ps3c_tensor *pixels)
{
    if (ps3c_array_view("pixels", object, PS3C_UINT8, false, pixels) < 0)
        return -1;
    if (pixels->ndim != 3 || (pixels->shape[2] != 3 && pixels->shape[2] != 4)) {
        PyErr_Format(PyExc_ValueError, "argument pixels: expected shape (height, width, 3 or 4), got %d dimensions%s",
                     (int)pixels->ndim, pixels->ndim == 3 ? " with another number of channels" : "");
        return -1;
    }
    if (pixels->strides[2] != 1 || (pixels->shape[1] > 1 && pixels->strides[1] != pixels->shape[2])) {
        PyErr_Format(PyExc_TypeError,
                     "argument pixels: expected rows of contiguous pixels, got strides (%lld, %lld, %lld)",
                     (long long)pixels->strides[0], (long long)pixels->strides[1], (long long)pixels->strides[2]);
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

PyMethodDef ps3c_image_methods[] = {
    {"image_normalize", (PyCFunction)(void (*)(void))ps3c_image_normalize_py, METH_VARARGS | METH_KEYWORDS,
     "image_normalize(pixels, mean, std, out=None)\n--\n\n"
     "(pixels / 255 - mean) / std of uint8 (H, W, 3 or 4) as float32 (3, H, W); a fourth channel is skipped."},
    {NULL, NULL, 0, NULL},
};
