/* NumPy arrays as tensors, for the low-level functions and the image processor. bfloat16, which NumPy lacks, travels
 * as uint16 and is named by the caller.
 *
 * NumPy's C API is a table of pointers that numpy.c imports once and every other file shares.
 */
#ifndef PS3C_BINDING_ARRAYS_H
#define PS3C_BINDING_ARRAYS_H

#include "binding.h"

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#define NPY_TARGET_VERSION NPY_1_22_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL ps3c_numpy_api
#ifndef PS3C_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

/* Once, when the module is executed. */
int ps3c_numpy_import(void);

/* NumPy's type number for a dtype; bfloat16: NPY_UINT16. */
int ps3c_numpy_type(ps3c_dtype dtype);

/* A view of an array that the caller keeps alive. dtype: what it must hold, or PS3C_ANY: what it holds, by NumPy's
 * own types. TypeError: not an array, another dtype, byte order or alignment; read-only where `write` is wanted. */
int ps3c_array_view(const char *name, PyObject *object, int dtype, bool write, ps3c_tensor *tensor);

/* A view as above that must also have ndim dimensions of the given sizes (PS3C_ANY allowed; shape NULL: any) and be
 * C-contiguous. ValueError for the shape, TypeError for the strides. */
int ps3c_array_contiguous(const char *name, PyObject *object, int dtype, bool write, int ndim, const int64_t *shape,
                          ps3c_tensor *tensor);

/* New uninitialised C-contiguous array (strong), and a view of it. */
PyObject *ps3c_array_new(ps3c_dtype dtype, int ndim, const int64_t *shape, ps3c_tensor *tensor);

#endif
