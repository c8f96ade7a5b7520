/* Parameters: finds the current Parameter objects of a torch.nn.Module by state_dict name, in a few microseconds per
 * call.
 *
 * The object does not keep Parameters. It keeps the `_parameters` dict of each owning module and the key in it, so
 * collect() finds Parameters that were assigned, replaced or cast since the last call. An owning module is found
 * through a chain of `_modules` dicts. collect() compares every module of the chains with the one found before; if one
 * has changed, it resolves all names again. It does so too if something that the check asked to watch has changed: an
 * attribute of a layer, the number of its hooks. A weight that is no Parameter is read as the module's attribute:
 * parametrised, pruned, normalised, or of a replica. */
#include "binding.h"

typedef struct ps3c_module_node {
    Py_ssize_t parent; /* -1: the root */
    PyObject *key;     /* in the parent's _modules; NULL for the root */
    PyObject *module;
    PyObject *children;   /* its _modules dict */
    PyObject *parameters; /* its _parameters dict */
} ps3c_module_node;

typedef struct ps3c_parameter_entry {
    Py_ssize_t node;
    PyObject *key; /* in the node's _parameters */
} ps3c_parameter_entry;

/* An item of a dict, or an attribute of another object, whose value the map depends on. */
typedef struct ps3c_watch {
    PyObject *holder, *key;
    PyObject *value; /* strong; NULL: absent */
    Py_ssize_t size; /* of a value that is a dict; else 0 */
} ps3c_watch;

/* The result of resolving all names. It is immutable. It has a reference count, because reading a parametrised weight
 * runs Python code, which may replace the map of the object. */
typedef struct ps3c_parameter_map {
    Py_ssize_t references, node_count, entry_count, watch_count, watch_room;
    ps3c_module_node *nodes;
    ps3c_parameter_entry *entries;
    ps3c_watch *watches;
} ps3c_parameter_map;

typedef struct ps3c_parameters {
    PyObject base;
    PyObject *module;        /* the root */
    PyObject *names;         /* tuple of str */
    PyObject *check;         /* called with (path, module) for each new module; NULL: none */
    ps3c_parameter_map *map; /* NULL only during construction and after tp_clear */
} ps3c_parameters;

static void ps3c_map_release(ps3c_parameter_map *map)
{
    if (map == NULL || --map->references > 0)
        return;
    for (Py_ssize_t i = 0; i < map->node_count; i++) {
        Py_XDECREF(map->nodes[i].key);
        Py_XDECREF(map->nodes[i].module);
        Py_XDECREF(map->nodes[i].children);
        Py_XDECREF(map->nodes[i].parameters);
    }
    for (Py_ssize_t i = 0; i < map->entry_count; i++)
        Py_XDECREF(map->entries[i].key);
    for (Py_ssize_t i = 0; i < map->watch_count; i++) {
        Py_XDECREF(map->watches[i].holder);
        Py_XDECREF(map->watches[i].key);
        Py_XDECREF(map->watches[i].value);
    }
    PyMem_Free(map->watches);
    PyMem_Free(map->nodes);
    PyMem_Free(map->entries);
    PyMem_Free(map);
}

/* ---- resolving the names ----------------------------------------------------------------------------------------- */

static void ps3c_no_parameter(const ps3c_parameters *self, PyObject *name)
{
    PyErr_Format(PyExc_AttributeError, "%.200s has no parameter '%U'", ps3c_type_name(self->module), name);
}

static PyObject *ps3c_module_dict(PyObject *module, const char *name)
{
    PyObject *dict = PyObject_GetAttrString(module, name);
    if (dict != NULL && !PyDict_Check(dict)) {
        PyErr_Format(PyExc_TypeError, "module: got a %.200s whose %s is a %.200s, expected a torch.nn.Module",
                     ps3c_type_name(module), name, ps3c_type_name(dict));
        Py_CLEAR(dict);
    }
    return dict;
}

/* Appends a node; the map has room for it. Takes over module, a strong reference. Returns the node's index, or -1. */
static Py_ssize_t ps3c_map_add(ps3c_parameter_map *map, Py_ssize_t parent, PyObject *key, PyObject *module)
{
    PyObject *children = ps3c_module_dict(module, "_modules");
    PyObject *parameters = children == NULL ? NULL : ps3c_module_dict(module, "_parameters");
    if (parameters == NULL) {
        Py_XDECREF(children);
        Py_DECREF(module);
        return -1;
    }
    map->nodes[map->node_count] = (ps3c_module_node){parent, Py_XNewRef(key), module, children, parameters};
    return map->node_count++;
}

/* ---- what the check watches -------------------------------------------------------------------------------------- */

/* The value of key in holder: strong, NULL without an exception if there is none. */
static PyObject *ps3c_watched_value(PyObject *holder, PyObject *key)
{
    if (PyDict_Check(holder))
        return Py_XNewRef(PyDict_GetItemWithError(holder, key));
    PyObject *value = PyObject_GetAttr(holder, key);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_AttributeError))
        PyErr_Clear();
    return value;
}

static Py_ssize_t ps3c_watched_size(PyObject *value)
{
    return value != NULL && PyDict_Check(value) ? PyDict_Size(value) : 0;
}

static int ps3c_map_watch(ps3c_parameter_map *map, PyObject *holder, PyObject *key)
{
    if (map->watch_count == map->watch_room) {
        const Py_ssize_t room = 2 * map->watch_room + 64;
        /* Not PyMem_Resize, which would set map->watches to NULL where there is no memory. */
        ps3c_watch *watches = PyMem_Realloc(map->watches, (size_t)room * sizeof *watches);
        if (watches == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        map->watches = watches;
        map->watch_room = room;
    }
    PyObject *value = ps3c_watched_value(holder, key);
    if (value == NULL && PyErr_Occurred())
        return -1;
    map->watches[map->watch_count++] = (ps3c_watch){Py_NewRef(holder), Py_NewRef(key), value, ps3c_watched_size(value)};
    return 0;
}

/* Adds the (holder, key) pairs that a check returned; None: nothing to watch. */
static int ps3c_map_watch_all(ps3c_parameter_map *map, PyObject *pairs)
{
    if (pairs == Py_None)
        return 0;
    PyObject *tuple = ps3c_sequence("check", pairs, "None or a sequence of (holder, key)");
    int failed = tuple == NULL;
    for (Py_ssize_t i = 0; !failed && i < PyTuple_Size(tuple); i++) {
        PyObject *pair = PyTuple_GetItem(tuple, i);
        failed = !PyTuple_Check(pair) || PyTuple_Size(pair) != 2 || !PyUnicode_Check(PyTuple_GetItem(pair, 1));
        if (failed)
            PyErr_Format(PyExc_TypeError, "check: got %.100R, expected (holder, key)", pair);
        else
            failed = ps3c_map_watch(map, PyTuple_GetItem(pair, 0), PyTuple_GetItem(pair, 1)) < 0;
    }
    Py_XDECREF(tuple);
    return failed ? -1 : 0;
}

/* Returns 1 if nothing that is watched has changed, 0 if something has, -1 with an exception on an error. */
static int ps3c_map_is_unchanged(const ps3c_parameter_map *map)
{
    for (Py_ssize_t i = 0; i < map->watch_count; i++) {
        const ps3c_watch *watch = &map->watches[i];
        PyObject *value = ps3c_watched_value(watch->holder, watch->key);
        if (value == NULL && PyErr_Occurred())
            return -1;
        const bool same = value == watch->value && ps3c_watched_size(value) == watch->size;
        Py_XDECREF(value);
        if (!same)
            return 0;
    }
    return 1;
}

/* ---- nodes ------------------------------------------------------------------------------------------------------- */

/* Calls the check for a module, which may raise, and watches what it returns. The module's path is the first `count`
 * parts. */
static int ps3c_check_module(const ps3c_parameters *self, ps3c_parameter_map *map, PyObject *parts, Py_ssize_t count,
                             PyObject *module)
{
    if (self->check == NULL)
        return 0;
    PyObject *dot = PyUnicode_FromString(".");
    PyObject *head = dot == NULL ? NULL : PyList_GetSlice(parts, 0, count);
    PyObject *path = head == NULL ? NULL : PyUnicode_Join(dot, head);
    PyObject *result = path == NULL ? NULL : PyObject_CallFunctionObjArgs(self->check, path, module, NULL);
    int failed = result == NULL || ps3c_map_watch_all(map, result) < 0;
    Py_XDECREF(dot);
    Py_XDECREF(head);
    Py_XDECREF(path);
    Py_XDECREF(result);
    return failed ? -1 : 0;
}

/* The index of the child of node `parent` with the key parts[at]; adds it to the map if it is new. -1 with an exception
 * on an error. */
static Py_ssize_t ps3c_map_child(const ps3c_parameters *self, ps3c_parameter_map *map, Py_ssize_t parent,
                                 PyObject *parts, Py_ssize_t at, PyObject *name)
{
    PyObject *key = PyList_GetItem(parts, at);
    for (Py_ssize_t i = map->node_count - 1; i > 0; i--) /* backwards: names that follow each other share modules */
        if (map->nodes[i].parent == parent && PyUnicode_Compare(map->nodes[i].key, key) == 0)
            return i;
    PyObject *child = PyDict_GetItemWithError(map->nodes[parent].children, key);
    if (child == NULL || child == Py_None) {
        if (!PyErr_Occurred())
            ps3c_no_parameter(self, name);
        return -1;
    }
    Py_INCREF(child);
    if (ps3c_check_module(self, map, parts, at + 1, child) < 0) {
        Py_DECREF(child);
        return -1;
    }
    return ps3c_map_add(map, parent, key, child);
}

/* Resolves a name such as "trunk.blocks.0.norm1.weight" and appends its entry. */
static int ps3c_map_follow(const ps3c_parameters *self, ps3c_parameter_map *map, PyObject *name)
{
    PyObject *dot = PyUnicode_FromString(".");
    PyObject *parts = dot == NULL ? NULL : PyUnicode_Split(name, dot, -1);
    Py_XDECREF(dot);
    if (parts == NULL)
        return -1;
    Py_ssize_t last = PyList_Size(parts) - 1, node = 0;
    for (Py_ssize_t at = 0; at < last && node >= 0; at++)
        node = ps3c_map_child(self, map, node, parts, at, name);
    if (node >= 0) {
        PyObject *key = Py_NewRef(PyList_GetItem(parts, last));
        PyUnicode_InternInPlace(&key);
        map->entries[map->entry_count++] = (ps3c_parameter_entry){node, key};
    }
    Py_DECREF(parts);
    return node < 0 ? -1 : 0;
}

/* Number of dots in all names. The map has at most this number of nodes, plus the root. */
static Py_ssize_t ps3c_count_dots(PyObject *names)
{
    Py_ssize_t dots = 0;
    for (Py_ssize_t i = 0; i < PyTuple_Size(names); i++) {
        PyObject *name = PyTuple_GetItem(names, i);
        for (Py_ssize_t c = 0; c < PyUnicode_GetLength(name); c++)
            dots += PyUnicode_ReadChar(name, c) == '.';
    }
    return dots;
}

/* A new map with one reference. NULL with an exception on an error. */
static ps3c_parameter_map *ps3c_map_make(const ps3c_parameters *self)
{
    Py_ssize_t count = PyTuple_Size(self->names);
    ps3c_parameter_map *map = PyMem_Calloc(1, sizeof *map);
    if (map != NULL) {
        map->references = 1;
        map->nodes = PyMem_New(ps3c_module_node, ps3c_count_dots(self->names) + 1);
        map->entries = PyMem_New(ps3c_parameter_entry, count);
    }
    if (map == NULL || map->nodes == NULL || map->entries == NULL) {
        PyErr_NoMemory();
        goto fail;
    }
    if (ps3c_map_add(map, -1, NULL, Py_NewRef(self->module)) < 0)
        goto fail;
    for (Py_ssize_t i = 0; i < count; i++)
        if (ps3c_map_follow(self, map, PyTuple_GetItem(self->names, i)) < 0)
            goto fail;
    return map;
fail:
    ps3c_map_release(map);
    return NULL;
}

/* Returns 1 if every module is still at its place and nothing watched has changed, 0 if not, -1 with an exception on an
 * error. */
static int ps3c_map_is_current(const ps3c_parameter_map *map)
{
    for (Py_ssize_t i = 1; i < map->node_count; i++) {
        const ps3c_module_node *node = &map->nodes[i];
        PyObject *child = PyDict_GetItemWithError(map->nodes[node->parent].children, node->key);
        if (child != node->module)
            return PyErr_Occurred() ? -1 : 0;
    }
    return ps3c_map_is_unchanged(map);
}

/* The current map: the kept one, or a new one that replaces it. Adds a reference for the caller. */
static ps3c_parameter_map *ps3c_parameters_map(ps3c_parameters *self)
{
    ps3c_parameter_map *kept = self->map;
    int current = 0;
    if (kept != NULL) {
        kept->references++; /* reading an attribute may run Python code, which may replace the map */
        current = ps3c_map_is_current(kept);
        ps3c_map_release(kept);
        current = current > 0 ? kept == self->map : current;
    }
    if (current < 0)
        return NULL;
    if (self->module == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "this Parameters was cleared by the garbage collector");
        return NULL;
    }
    if (!current) {
        ps3c_parameter_map *made = ps3c_map_make(self), *old = self->map;
        if (made == NULL)
            return NULL;
        self->map = made;
        ps3c_map_release(old);
    }
    self->map->references++;
    return self->map;
}

/* ---- collect ----------------------------------------------------------------------------------------------------- */

/* 1 if the object has the attribute, 0 if not, -1 with an exception on another error. */
static int ps3c_has_attribute(PyObject *object, const char *name)
{
    PyObject *value = PyObject_GetAttrString(object, name);
    const int missing = value == NULL && PyErr_ExceptionMatches(PyExc_AttributeError);
    if (missing)
        PyErr_Clear();
    const int has = missing ? 0 : value != NULL ? 1 : -1;
    Py_XDECREF(value);
    return has;
}

/* Reads a weight whose key is not in _parameters: an attribute of the module. Strong reference; NULL with an exception
 * on an error. An error inside a parametrization stays as it is. */
static PyObject *ps3c_computed(const ps3c_parameters *self, const ps3c_module_node *node, PyObject *key, PyObject *name)
{
    PyObject *parametrizations = ps3c_dict_item(node->children, "parametrizations");
    PyObject *list = parametrizations == NULL ? NULL : ps3c_module_dict(parametrizations, "_modules");
    bool found = list != NULL && PyDict_Contains(list, key) > 0;
    Py_XDECREF(list);
    if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_MemoryError))
        return NULL;
    PyErr_Clear(); /* of a child with that name that is no module */
    PyObject *value = PyObject_GetAttr(node->module, key);
    if (found)
        return value;
    if (value == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear();
        ps3c_no_parameter(self, name);
    } else if (value != NULL && value != Py_None) {
        const int is_tensor = ps3c_has_attribute(value, "is_contiguous");
        if (is_tensor == 0)
            PyErr_Format(PyExc_TypeError, "parameter '%U' of %.200s: got %.200s, expected a tensor", name,
                         ps3c_type_name(self->module), ps3c_type_name(value));
        if (is_tensor <= 0)
            Py_CLEAR(value);
    }
    return value;
}

static PyObject *ps3c_parameters_collect(PyObject *object, PyObject *unused)
{
    (void)unused;
    ps3c_parameters *self = (ps3c_parameters *)object;
    ps3c_parameter_map *map = ps3c_parameters_map(self);
    PyObject *list = map == NULL ? NULL : PyList_New(map->entry_count);
    for (Py_ssize_t i = 0; list != NULL && i < map->entry_count; i++) {
        const ps3c_module_node *node = &map->nodes[map->entries[i].node];
        PyObject *key = map->entries[i].key;
        PyObject *value = Py_XNewRef(PyDict_GetItemWithError(node->parameters, key));
        if (value == NULL && !PyErr_Occurred())
            value = ps3c_computed(self, node, key, PyTuple_GetItem(self->names, i));
        if (value == Py_None) {
            PyErr_Format(PyExc_TypeError, "parameter '%U' of %.200s: got None, expected a tensor",
                         PyTuple_GetItem(self->names, i), ps3c_type_name(self->module));
            Py_CLEAR(value);
        }
        if (value == NULL)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, i, value);
    }
    ps3c_map_release(map);
    return list;
}

/* ---- the type ---------------------------------------------------------------------------------------------------- */

static PyObject *ps3c_parameters_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *keywords[] = {"module", "names", "check", NULL};
    PyObject *module, *names, *check = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|O:Parameters", keywords, &module, &names, &check))
        return NULL;
    names = PySequence_Tuple(names);
    for (Py_ssize_t i = 0; names != NULL && i < PyTuple_Size(names); i++)
        if (!PyUnicode_Check(PyTuple_GetItem(names, i))) {
            PyErr_Format(PyExc_TypeError, "names: got %.200s at %zd, expected str",
                         ps3c_type_name(PyTuple_GetItem(names, i)), i);
            Py_CLEAR(names);
        }
    ps3c_parameters *self = names == NULL ? NULL : (ps3c_parameters *)PyType_GenericAlloc(type, 0);
    if (self == NULL) {
        Py_XDECREF(names);
        return NULL;
    }
    self->module = Py_NewRef(module);
    self->names = names;
    self->check = check == Py_None ? NULL : Py_NewRef(check);
    self->map = ps3c_map_make(self);
    if (self->map == NULL)
        Py_CLEAR(self);
    return (PyObject *)self;
}

static int ps3c_parameters_traverse(PyObject *object, visitproc visit, void *arg)
{
    ps3c_parameters *self = (ps3c_parameters *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->module);
    Py_VISIT(self->names);
    Py_VISIT(self->check);
    /* If a running collect() shares the map, its objects are also reachable from that call: do not visit them. */
    if (self->map != NULL && self->map->references == 1)
        for (Py_ssize_t i = 0; i < self->map->node_count; i++) {
            Py_VISIT(self->map->nodes[i].module);
            Py_VISIT(self->map->nodes[i].children);
            Py_VISIT(self->map->nodes[i].parameters);
        }
    if (self->map != NULL && self->map->references == 1)
        for (Py_ssize_t i = 0; i < self->map->watch_count; i++) {
            Py_VISIT(self->map->watches[i].holder);
            Py_VISIT(self->map->watches[i].value);
        }
    return 0;
}

static int ps3c_parameters_clear(PyObject *object)
{
    ps3c_parameters *self = (ps3c_parameters *)object;
    ps3c_parameter_map *map = self->map;
    self->map = NULL;
    ps3c_map_release(map);
    Py_CLEAR(self->module);
    Py_CLEAR(self->check);
    return 0;
}

static void ps3c_parameters_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    ps3c_parameters_clear(object);
    Py_CLEAR(((ps3c_parameters *)object)->names);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyObject *ps3c_parameters_module(PyObject *object, void *unused)
{
    (void)unused;
    PyObject *module = ((ps3c_parameters *)object)->module;
    return Py_NewRef(module != NULL ? module : Py_None);
}

static PyObject *ps3c_parameters_names(PyObject *object, void *unused)
{
    (void)unused;
    return Py_NewRef(((ps3c_parameters *)object)->names);
}

static PyMethodDef ps3c_parameters_methods[] = {
    {"collect", ps3c_parameters_collect, METH_NOARGS,
     "collect($self, /)\n--\n\nReturns the current Parameters as a list, in the order of names. AttributeError: a name "
     "has no parameter. TypeError: a parameter is None."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef ps3c_parameters_getset[] = {
    {"module", ps3c_parameters_module, NULL, "The root module of the names.", NULL},
    {"names", ps3c_parameters_names, NULL, "The state_dict names, a tuple of str.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot ps3c_parameters_slots[] = {
    {Py_tp_doc,
     "Parameters(module, names, check=None)\n--\n\n"
     "Finds the Parameters of a torch.nn.Module by state_dict name. check(path, module) is called for each module\n"
     "that is new or was replaced; it may raise. It returns None or pairs (holder, key): items of dicts, or "
     "attributes\n"
     "of other objects. If one of them changes, check is called for every module again."},
    {Py_tp_new, ps3c_parameters_new},
    {Py_tp_dealloc, ps3c_parameters_dealloc},
    {Py_tp_traverse, ps3c_parameters_traverse},
    {Py_tp_clear, ps3c_parameters_clear},
    {Py_tp_methods, ps3c_parameters_methods},
    {Py_tp_getset, ps3c_parameters_getset},
    {0, NULL},
};

PyType_Spec ps3c_parameters_spec = {
    .name = "ps3c._core.Parameters",
    .basicsize = sizeof(ps3c_parameters),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = ps3c_parameters_slots,
};
