/* NumPy arrays as tensors, for the image processor and the tests of operations. NumPy has no bfloat16: such values are
 * stored as uint16, and the caller says that the dtype is bfloat16.
 *
 * numpy.c imports the table of NumPy's C API once; all other files share it.
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

/* Imports NumPy's C API. Called once, when the module is executed. */
int ps3c_numpy_import(void);

/* NumPy's type number of a dtype; NPY_UINT16 for bfloat16. */
int ps3c_numpy_type(ps3c_dtype dtype);

/* Fills *tensor with a view of an array, which the caller keeps alive. dtype: the required dtype, or PS3C_ANY (uint16
 * is then bfloat16). TypeError: not an array, another dtype, foreign byte order, not aligned, or read-only although
 * `write`. ValueError: too many dimensions. */
int ps3c_array_view(const char *name, PyObject *object, int dtype, bool write, ps3c_tensor *tensor);

/* The same for a C-contiguous array of ndim dimensions and the given shape ([ndim], each a size or PS3C_ANY; NULL: any
 * shape). ValueError: another shape. TypeError: not contiguous. */
int ps3c_array_contiguous(const char *name, PyObject *object, int dtype, bool write, int ndim, const int64_t *shape,
                          ps3c_tensor *tensor);

/* A new uninitialised C-contiguous array (strong reference). tensor: a view of it, unless NULL. */
PyObject *ps3c_array_new(ps3c_dtype dtype, int ndim, const int64_t *shape, ps3c_tensor *tensor);

#endif
