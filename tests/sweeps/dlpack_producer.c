/* A producer of DLPack tensors that counts what a consumer does with them: test_dlpack.py. Python fills offers by
 * ctypes; a tensor whose type has this exchange API is lent as its offer says. */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../csrc/binding/dlpack.h"

enum answer { LEND, RAISE, FAIL_SILENTLY, LEND_NOTHING };

typedef struct offer {
    ps3c_dl_tensor tensor;
    PyObject *object; /* not owned; whose offer this is */
    PyObject *hook;   /* not owned; called before lending; or NULL */
    char *memory;     /* pages that hold the data, or NULL */
    uint64_t pages;   /* bytes of them */
    ps3c_dl_version version;
    uint64_t flags;
    int32_t answer, no_deleter, protect_after; /* protect_after: of the pages, once the deleter has run */
    int32_t lent, deleted, unlocked;           /* counts; unlocked: deletions without the GIL */
    ps3c_dl_versioned versioned;
    ps3c_dl_managed managed;
} offer;

enum { MOST = 128 };
static offer *offers[MOST];

size_t producer_offer_bytes(void) { return sizeof(offer); }

/* Makes an offer known, or forgets all (NULL). Returns 0, or -1 if there is no room. */
int producer_add(offer *added)
{
    if (!added)
        memset(offers, 0, sizeof offers);
    for (int i = 0; added && i < MOST; i++)
        if (!offers[i]) {
            offers[i] = added;
            return 0;
        }
    return added ? -1 : 0;
}

/* Memory that ends where a page without access starts. */
void *producer_memory(offer *o, uint64_t bytes, uint64_t more)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), pages = (bytes + more + page - 1) / page * page + page;
    char *start = mmap(NULL, pages + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED || mprotect(start + pages, page, PROT_NONE))
        return NULL;
    o->memory = start;
    o->pages = pages;
    return start + pages - bytes;
}

int producer_protect(const offer *o, int protection) { return mprotect(o->memory, o->pages, protection); }

void producer_unmap(const offer *o)
{
    if (o->memory)
        munmap(o->memory, o->pages + (uint64_t)sysconf(_SC_PAGESIZE));
}

/* ---- lending ----------------------------------------------------------------------------------------------------- */

static void deleted(offer *o)
{
    o->deleted++;
    o->unlocked += !PyGILState_Check();
    if (o->memory && o->protect_after >= 0)
        mprotect(o->memory, o->pages, o->protect_after);
}
static void delete_versioned(ps3c_dl_versioned *self) { deleted(self->producer); }
static void delete_managed(ps3c_dl_managed *self) { deleted(self->producer); }

static offer *find(void *object)
{
    for (int i = 0; i < MOST && offers[i]; i++)
        if (offers[i]->object == object)
            return offers[i];
    PyErr_SetString(PyExc_LookupError, "the tensor has no offer");
    return NULL;
}

/* The object's offer if it is lent; NULL with or without an exception if not. */
static offer *ask(void *object)
{
    offer *o = find(object);
    if (!o)
        return NULL;
    if (o->hook) {
        PyObject *result = PyObject_CallNoArgs(o->hook);
        if (!result)
            return NULL;
        Py_DECREF(result);
    }
    if (o->answer == RAISE)
        PyErr_SetString(PyExc_BufferError, "not lent");
    if (o->answer == RAISE || o->answer == FAIL_SILENTLY)
        return NULL;
    o->lent++;
    return o;
}

static int managed_from_object(void *object, ps3c_dl_versioned **out)
{
    offer *o = ask(object);
    if (!o)
        return -1;
    o->versioned = (ps3c_dl_versioned){o->version, o, o->no_deleter ? NULL : delete_versioned, o->flags, o->tensor};
    *out = o->answer == LEND_NOTHING ? NULL : &o->versioned;
    return 0;
}

static int tensor_from_object(void *object, ps3c_dl_tensor *out)
{
    offer *o = ask(object);
    if (!o)
        return -1;
    *out = o->tensor;
    return 0;
}

static ps3c_dl_exchange api = {{1, 3}, NULL, NULL, managed_from_object, NULL, tensor_from_object, NULL};
static ps3c_dl_exchange newer = {{2, 0}, &api, NULL, NULL, NULL, NULL, NULL};
static ps3c_dl_exchange newest = {{3, 0}, NULL, NULL, NULL, NULL, NULL, NULL};

/* The exchange API's capsule: 0: of version 1; 1: of version 2, with an older one of version 1; 2: of version 3 alone. */
PyObject *producer_exchange(int which)
{
    return PyCapsule_New(which == 0 ? &api : which == 1 ? &newer : &newest, "dlpack_exchange_api", NULL);
}

/* The producer's destructor of a capsule: it deletes a tensor that nobody took over. */
static void drop_capsule(PyObject *capsule)
{
    const int versioned = PyCapsule_IsValid(capsule, "dltensor_versioned");
    if (versioned || PyCapsule_IsValid(capsule, "dltensor"))
        deleted(PyCapsule_GetContext(capsule));
}

PyObject *producer_capsule(void *object, int versioned)
{
    offer *o = ask(object);
    if (!o) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_BufferError, "not lent");
        return NULL;
    }
    o->versioned = (ps3c_dl_versioned){o->version, o, o->no_deleter ? NULL : delete_versioned, o->flags, o->tensor};
    o->managed = (ps3c_dl_managed){o->tensor, o, o->no_deleter ? NULL : delete_managed};
    PyObject *capsule = PyCapsule_New(versioned ? (void *)&o->versioned : (void *)&o->managed,
                                      versioned ? "dltensor_versioned" : "dltensor", drop_capsule);
    if (capsule && PyCapsule_SetContext(capsule, o))
        Py_CLEAR(capsule);
    return capsule;
}

/* At exit: no tensor may have been deleted more often than it was lent. */
__attribute__((destructor)) static void check_counts(void)
{
    for (int i = 0; i < MOST && offers[i]; i++)
        if (offers[i]->deleted > offers[i]->lent)
            _exit(86);
}

const char *producer_capsule_name(PyObject *capsule) { return PyCapsule_GetName(capsule); }
