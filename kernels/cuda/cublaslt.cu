/* cuBLASLt: find the library, choose an algorithm once per kind of product, run the product.
 *
 * A row-major activation is a column-major matrix with its rows as columns, so y = x W^T is the column-major product
 * y^T = W x^T. The weight is A (transposed if its rows are outputs), the activation is B, and the bias, one number per
 * row of D, is what the BIAS epilogue adds.
 *
 * A result must not depend on how many segments are in a call. So an algorithm is chosen for `planned` rows, which the
 * caller derives from one segment, and is then used for any number of rows. And only algorithms without a split
 * reduction over k are allowed, so that the order of an element's sum does not depend on the position of its tile.
 */
#include "cublaslt.cuh"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <string>

namespace
{

constexpr const char *SONAMES[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
constexpr const char *VARIABLE = "PS3C_CUBLASLT"; /* environment: path of the library */

/* An algorithm is chosen by this key. All fields are int64, so that it can be hashed and compared as words. */
struct plan_key {
    int64_t device, types, planned, n, k, ldw, ldx, ldc, ldy, alignment;
};

struct plan {
    ps3c_lt_handle handle;
    ps3c_lt_algo algo;
    bool supported;
};

/* Plans are kept in a table of fixed size; a plan is at one of WAYS places from its hash on. */
constexpr uint64_t PLACES = 1024, WAYS = 8;

struct place {
    bool used;
    plan_key key;
    plan value;
};

/* One per process. It is never destroyed, because the library may be used after static destructors have run. */
struct process {
    std::mutex opening; /* folders, api, handles */
    std::string folders;
    std::atomic<bool> open{false}; /* true: api is complete and constant */
    ps3c_lt_api api;
    std::map<int, ps3c_lt_handle> handles;
    std::shared_mutex planning; /* plans, turn */
    place plans[PLACES];
    uint64_t turn;
    std::atomic<int64_t> refusals{0};
};

process &the_process()
{
    static process *only = new process();
    return *only;
}

/* ---- finding the library ----------------------------------------------------------------------------------------- */

bool take_functions(void *library, ps3c_lt_api *api)
{
#define TAKE(name)                                      \
    {                                                   \
        void *function = dlsym(library, #name);         \
        if (!function)                                  \
            return false;                               \
        memcpy(&api->name, &function, sizeof function); \
    }
    TAKE(cublasLtCreate)
    TAKE(cublasLtMatmulDescCreate)
    TAKE(cublasLtMatmulDescDestroy)
    TAKE(cublasLtMatmulDescSetAttribute)
    TAKE(cublasLtMatrixLayoutCreate)
    TAKE(cublasLtMatrixLayoutDestroy)
    TAKE(cublasLtMatmulPreferenceCreate)
    TAKE(cublasLtMatmulPreferenceDestroy)
    TAKE(cublasLtMatmulPreferenceSetAttribute)
    TAKE(cublasLtMatmulAlgoGetHeuristic)
    TAKE(cublasLtMatmulAlgoConfigGetAttribute)
    TAKE(cublasLtMatmul)
#undef TAKE
    return true;
}

bool try_library(const std::string &name, int flags, ps3c_lt_api *api)
{
    void *library = dlopen(name.c_str(), flags);
    return library && take_functions(library, api);
}

/* Searches the libraries already loaded (torch's), then the host's folders, then the loader's folders. */
bool find_library(const std::string &folders, ps3c_lt_api *api)
{
    for (const char *soname : SONAMES)
        if (try_library(soname, RTLD_NOW | RTLD_NOLOAD, api))
            return true;
    for (size_t first = 0; first < folders.size();) {
        const size_t colon = folders.find(':', first), end = colon == std::string::npos ? folders.size() : colon;
        for (const char *soname : SONAMES)
            if (end > first && try_library(folders.substr(first, end - first) + "/" + soname, RTLD_NOW, api))
                return true;
        first = end + 1;
    }
    for (const char *soname : SONAMES)
        if (try_library(soname, RTLD_NOW, api))
            return true;
    return false;
}

ps3c_status open_library(const ps3c_run *run, process *p)
{
    if (p->open.load(std::memory_order_acquire))
        return PS3C_OK;
    std::lock_guard<std::mutex> guard(p->opening);
    if (p->open.load(std::memory_order_relaxed))
        return PS3C_OK;
    const char *path = getenv(VARIABLE);
    if (path && *path) {
        if (!try_library(path, RTLD_NOW, &p->api)) {
            const char *reason = dlerror();
            return ps3c_fail(run->context, PS3C_ERROR_RUNTIME, "gemm: no cuBLASLt in %s=%s: %s", VARIABLE, path,
                             reason ? reason : "functions are missing");
        }
    } else if (!find_library(p->folders, &p->api)) {
        return ps3c_fail(run->context, PS3C_ERROR_RUNTIME,
                         "gemm: cuBLASLt not found: looked for %s and %s among loaded libraries, in folders '%s' and "
                         "in the dynamic loader's; %s may name the file",
                         SONAMES[0], SONAMES[1], p->folders.c_str(), VARIABLE);
    }
    p->open.store(true, std::memory_order_release);
    return PS3C_OK;
}

const char *name_of(ps3c_lt_status status)
{
    switch (status) {
    case PS3C_LT_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case PS3C_LT_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case PS3C_LT_MAPPING_ERROR:
        return "CUBLAS_STATUS_MAPPING_ERROR";
    case PS3C_LT_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case PS3C_LT_INTERNAL_ERROR:
        return "CUBLAS_STATUS_INTERNAL_ERROR";
    default:
        return "another error";
    }
}

/* A MEMORY error if the library could not allocate, else a RUNTIME error. */
ps3c_status lt_failed(const ps3c_run *run, const char *function, ps3c_lt_status status, const ps3c_lt_product *g)
{
    return ps3c_fail(run->context, status == PS3C_LT_ALLOC_FAILED ? PS3C_ERROR_MEMORY : PS3C_ERROR_RUNTIME,
                     "gemm on cuda:%d: %s returned status %d, %s (%lld rows, %lld outputs, %lld inputs)",
                     (int)run->device_index, function, (int)status, name_of(status), (long long)g->rows,
                     (long long)g->n, (long long)g->k);
}

/* The handle of the run's device, created at its first product. The device is current. */
ps3c_status find_handle(const ps3c_run *run, process *p, const ps3c_lt_product *g, ps3c_lt_handle *handle)
{
    std::lock_guard<std::mutex> guard(p->opening);
    const auto found = p->handles.find(run->device_index);
    if (found != p->handles.end()) {
        *handle = found->second;
        return PS3C_OK;
    }
    const ps3c_lt_status status = p->api.cublasLtCreate(handle);
    if (status != PS3C_LT_SUCCESS)
        return lt_failed(run, "cublasLtCreate", status, g);
    p->handles[run->device_index] = *handle;
    return PS3C_OK;
}

/* ---- descriptions of a product ----------------------------------------------------------------------------------- */

ps3c_lt_type type_of(ps3c_dtype dtype)
{
    return dtype == PS3C_FLOAT32 ? PS3C_LT_R_32F : dtype == PS3C_FLOAT16 ? PS3C_LT_R_16F : PS3C_LT_R_16BF;
}

/* The alignment of an address in bytes, at most 16. */
int64_t alignment_of(const void *pointer)
{
    const uintptr_t address = (uintptr_t)pointer | 16;
    return (int64_t)(address & -address);
}

/* A function of the library. Its name is kept in the description, for messages. */
#define LT_CALL(description, name) ((description)->function = #name, (description)->api->name)

/* The descriptors of a product over `rows` rows; the destructor destroys those that were created. */
struct description {
    const ps3c_lt_api *api;
    const char *function = ""; /* the last one that was called; for messages */
    ps3c_lt_desc desc = nullptr;
    ps3c_lt_layout w = nullptr, x = nullptr, c = nullptr, y = nullptr;

    explicit description(const ps3c_lt_api *lt) : api(lt) {}
    description(const description &) = delete;
    description &operator=(const description &) = delete;
    ~description()
    {
        if (desc)
            api->cublasLtMatmulDescDestroy(desc);
        for (ps3c_lt_layout layout : {w, x, c, y})
            if (layout)
                api->cublasLtMatrixLayoutDestroy(layout);
    }

    ps3c_lt_status set(ps3c_lt_desc_attribute attribute, int32_t value)
    {
        return LT_CALL(this, cublasLtMatmulDescSetAttribute)(desc, attribute, &value, sizeof value);
    }

    ps3c_lt_status make(const ps3c_run *run, const ps3c_lt_product *g, int64_t rows, const void *bias);
};

#define LT_TRY(call)                             \
    do {                                         \
        const ps3c_lt_status lt_status = (call); \
        if (lt_status != PS3C_LT_SUCCESS)        \
            return lt_status;                    \
    } while (0)

ps3c_lt_status description::make(const ps3c_run *run, const ps3c_lt_product *g, int64_t rows, const void *bias)
{
    const ps3c_lt_type type = type_of(run->dtype);
    const bool tf32 = run->dtype == PS3C_FLOAT32 && run->tf32;
    const int32_t epilogue = g->bias   ? g->gelu ? PS3C_LT_EPILOGUE_GELU_BIAS : PS3C_LT_EPILOGUE_BIAS
                             : g->gelu ? PS3C_LT_EPILOGUE_GELU
                                       : PS3C_LT_EPILOGUE_DEFAULT;
    LT_TRY(LT_CALL(this, cublasLtMatmulDescCreate)(&desc, tf32 ? PS3C_LT_COMPUTE_32F_FAST_TF32 : PS3C_LT_COMPUTE_32F,
                                                   PS3C_LT_R_32F));
    LT_TRY(set(PS3C_LT_DESC_TRANSA, g->transposed ? PS3C_LT_OP_N : PS3C_LT_OP_T));
    LT_TRY(set(PS3C_LT_DESC_TRANSB, PS3C_LT_OP_N));
    LT_TRY(set(PS3C_LT_DESC_EPILOGUE, epilogue));
    if (bias)
        LT_TRY(LT_CALL(this, cublasLtMatmulDescSetAttribute)(desc, PS3C_LT_DESC_BIAS_POINTER, &bias, sizeof bias));
    LT_TRY(LT_CALL(this, cublasLtMatrixLayoutCreate)(&w, type, g->transposed ? g->n : g->k, g->transposed ? g->k : g->n,
                                                     g->ldw));
    LT_TRY(LT_CALL(this, cublasLtMatrixLayoutCreate)(&x, type, g->k, rows, g->ldx));
    LT_TRY(LT_CALL(this, cublasLtMatrixLayoutCreate)(&c, type, g->n, rows, g->c ? g->ldc : g->ldy));
    LT_TRY(LT_CALL(this, cublasLtMatrixLayoutCreate)(&y, type, g->n, rows, g->ldy));
    return PS3C_LT_SUCCESS;
}

/* ---- plans ------------------------------------------------------------------------------------------------------- */

plan_key key_of(const ps3c_run *run, const ps3c_lt_product *g, int64_t planned)
{
    plan_key key = {};
    key.device = run->device_index;
    key.types = (int64_t)run->dtype << 8 | (run->dtype == PS3C_FLOAT32 && run->tf32) << 4 | (g->c != nullptr) << 3 |
                g->transposed << 2 | (g->bias != nullptr) << 1 | (int)g->gelu;
    key.planned = planned;
    key.n = g->n;
    key.k = g->k;
    key.ldw = g->ldw;
    key.ldx = g->ldx;
    key.ldc = g->c ? g->ldc : g->ldy;
    key.ldy = g->ldy;
    for (const void *pointer : {g->weight, g->x, g->c ? g->c : (const void *)g->y, (const void *)g->y, g->bias})
        key.alignment = key.alignment * 32 + alignment_of(pointer);
    return key;
}

uint64_t hash_of(const plan_key &key)
{
    uint64_t words[sizeof key / 8], hash = 0;
    memcpy(words, &key, sizeof key);
    for (uint64_t word : words) {
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    }
    return hash;
}

bool find_plan(process *p, const plan_key &key, uint64_t hash, plan *found)
{
    std::shared_lock<std::shared_mutex> guard(p->planning);
    for (uint64_t i = 0; i < WAYS; i++) {
        const place &at = p->plans[(hash + i) % PLACES];
        if (at.used && !memcmp(&at.key, &key, sizeof key)) {
            *found = at.value;
            return true;
        }
    }
    return false;
}

void keep_plan(process *p, const plan_key &key, uint64_t hash, const plan &value)
{
    std::unique_lock<std::shared_mutex> guard(p->planning);
    place *at = nullptr;
    for (uint64_t i = 0; i < WAYS && !at; i++) {
        place *candidate = &p->plans[(hash + i) % PLACES];
        if (!candidate->used || !memcmp(&candidate->key, &key, sizeof key))
            at = candidate;
    }
    if (!at)
        at = &p->plans[(hash + p->turn++ % WAYS) % PLACES];
    at->used = true;
    at->key = key;
    at->value = value;
}

ps3c_lt_status prefer(description *d, ps3c_lt_preference preference, const ps3c_lt_product *g)
{
    const uint64_t workspace = ps3c_lt_workspace_bytes();
    const uint32_t reductions = 0, alignments[] = {
                                       (uint32_t)alignment_of(g->weight),
                                       (uint32_t)alignment_of(g->x),
                                       (uint32_t)alignment_of(g->c ? g->c : g->y),
                                       (uint32_t)alignment_of(g->y),
                                   };
    LT_TRY(LT_CALL(d, cublasLtMatmulPreferenceSetAttribute)(preference, PS3C_LT_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                            sizeof workspace));
    LT_TRY(LT_CALL(d, cublasLtMatmulPreferenceSetAttribute)(preference, PS3C_LT_PREF_REDUCTION_SCHEME_MASK, &reductions,
                                                            sizeof reductions));
    for (int i = 0; i < 4; i++)
        LT_TRY(LT_CALL(d, cublasLtMatmulPreferenceSetAttribute)(
            preference, (ps3c_lt_preference_attribute)(PS3C_LT_PREF_MIN_ALIGNMENT_A_BYTES + i), &alignments[i],
            sizeof alignments[i]));
    return PS3C_LT_SUCCESS;
}

/* True if the algorithm does not split the sum over k. An attribute that cannot be read is ignored: the preference
 * already excludes split reductions. */
bool is_whole(const ps3c_lt_api *api, const ps3c_lt_algo *algo)
{
    int32_t pieces = 1;
    uint32_t reduction = 0;
    size_t written = 0;
    if (api->cublasLtMatmulAlgoConfigGetAttribute(algo, PS3C_LT_ALGO_SPLITK_NUM, &pieces, sizeof pieces, &written) !=
        PS3C_LT_SUCCESS)
        pieces = 1;
    if (api->cublasLtMatmulAlgoConfigGetAttribute(algo, PS3C_LT_ALGO_REDUCTION_SCHEME, &reduction, sizeof reduction,
                                                  &written) != PS3C_LT_SUCCESS)
        reduction = 0;
    return pieces <= 1 && reduction == 0;
}

/* The first usable of the library's proposals; made->supported stays false if there is none. *function: the one whose status
 * is returned. */
ps3c_lt_status ask(const ps3c_run *run, process *p, const ps3c_lt_product *g, int64_t planned, plan *made,
                   const char **function)
{
    enum { PROPOSALS = 8 };
    /* The library checks the alignment of the bias pointer. This one has the alignment that is in the plan's key. */
    const void *bias = g->bias ? (const void *)(uintptr_t)(4096 + alignment_of(g->bias)) : nullptr;
    ps3c_lt_heuristic results[PROPOSALS] = {};
    int count = 0;
    description d(&p->api);
    ps3c_lt_preference preference = nullptr;
    ps3c_lt_status status = d.make(run, g, planned, bias);
    if (status == PS3C_LT_SUCCESS)
        status = LT_CALL(&d, cublasLtMatmulPreferenceCreate)(&preference);
    if (status == PS3C_LT_SUCCESS)
        status = prefer(&d, preference, g);
    if (status == PS3C_LT_SUCCESS)
        status = LT_CALL(&d, cublasLtMatmulAlgoGetHeuristic)(made->handle, d.desc, d.w, d.x, d.c, d.y, preference,
                                                             PROPOSALS, results, &count);
    if (preference)
        p->api.cublasLtMatmulPreferenceDestroy(preference);
    *function = d.function;
    LT_TRY(status);
    for (int i = 0; i < count && !made->supported; i++) {
        made->supported = results[i].state == PS3C_LT_SUCCESS &&
                          results[i].workspace_bytes <= ps3c_lt_workspace_bytes() &&
                          is_whole(&p->api, &results[i].algo);
        made->algo = results[i].algo;
    }
    return PS3C_LT_SUCCESS;
}

bool is_refusal(ps3c_lt_status status)
{
    return status == PS3C_LT_NOT_SUPPORTED || status == PS3C_LT_INVALID_VALUE || status == PS3C_LT_ARCH_MISMATCH;
}

ps3c_status plan_for(const ps3c_run *run, process *p, const ps3c_lt_product *g, int64_t planned, plan *found)
{
    const plan_key key = key_of(run, g, planned);
    const uint64_t hash = hash_of(key);
    if (find_plan(p, key, hash, found))
        return PS3C_OK;
    *found = {};
    PS3C_TRY(find_handle(run, p, g, &found->handle));
    const char *function;
    const ps3c_lt_status status = ask(run, p, g, planned, found, &function);
    if (status != PS3C_LT_SUCCESS && !is_refusal(status))
        return lt_failed(run, function, status, g);
    keep_plan(p, key, hash, *found);
    return PS3C_OK;
}

} // namespace

extern "C" void ps3c_lt_set_folders(const char *colon_separated)
{
    process &p = the_process();
    std::lock_guard<std::mutex> guard(p.opening);
    p.folders = colon_separated ? colon_separated : "";
}

extern "C" int64_t ps3c_lt_refusals() { return the_process().refusals.load(std::memory_order_relaxed); }

/* NVIDIA's recommendation: 32 MiB from Hopper on, 4 MiB before. One number for all devices, so that memory planned
 * while one device is current is enough for another. */
size_t ps3c_lt_workspace_bytes()
{
    static std::once_flag once;
    static size_t bytes;
    std::call_once(once, [] {
        int devices = 0, major = 0;
        bytes = (size_t)4 << 20;
        if (cudaGetDeviceCount(&devices) != cudaSuccess)
            devices = 0;
        for (int device = 0; device < devices; device++)
            if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major >= 9)
                bytes = (size_t)32 << 20;
        cudaGetLastError(); /* clears an error of these calls, so that the next launch's check does not report it */
    });
    return bytes;
}

ps3c_status ps3c_lt_multiply(const ps3c_run *run, const ps3c_lt_product *g, bool *done)
{
    const float one = 1, beta = g->c ? 1 : 0;
    process &p = the_process();
    *done = false;
    PS3C_TRY(open_library(run, &p));
    description d(&p.api);
    ps3c_lt_status status = d.make(run, g, g->rows, g->bias);
    if (status != PS3C_LT_SUCCESS && !is_refusal(status))
        return lt_failed(run, d.function, status, g);
    const bool described = status == PS3C_LT_SUCCESS;
    /* On refusal, retry with an algorithm chosen for the actual row count. */
    for (int64_t planned : {g->planned, g->rows}) {
        plan found = {};
        if (described)
            PS3C_TRY(plan_for(run, &p, g, planned, &found));
        if (!found.supported)
            break;
        status = p.api.cublasLtMatmul(found.handle, d.desc, &one, g->weight, d.w, g->x, d.x, &beta, g->c ? g->c : g->y,
                                      d.c, g->y, d.y, &found.algo, g->workspace, ps3c_lt_workspace_bytes(),
                                      (cudaStream_t)run->stream);
        if (status == PS3C_LT_SUCCESS) {
            *done = true;
            return PS3C_OK;
        }
        if (!is_refusal(status))
            return lt_failed(run, "cublasLtMatmul", status, g);
    }
    p.refusals.fetch_add(1, std::memory_order_relaxed);
    return PS3C_OK;
}
