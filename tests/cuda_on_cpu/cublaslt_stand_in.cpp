/* A library that does what the CUDA backend wants of cuBLASLt, on the CPU: exports the functions of ps3c_lt_api by
 * cuBLASLt's names. PS3C_CUBLASLT=<this file> makes the emulated backend use it.
 *
 * It computes D = alpha op(A) op(B) + beta C, then the epilogue, in float32, one sum over k in order, so that an
 * element's bits depend neither on the other rows nor on their number. It looks at what it is given as the real library
 * does: sizes that do not fit each other, leading dimensions that are too small, types that do not go together,
 * pointers less aligned than the algorithm was asked for.
 *
 * STAND_IN_LT_REFUSE, read at each call: "heuristic" has no algorithm for anything, "align16" none where a pointer or a
 * column is not on 16 bytes, "matmul" returns NOT_SUPPORTED for products whose algorithm it gave before.
 */
#include "../../kernels/cuda/cublaslt.cuh"
#include "faults.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

struct ps3c_lt_context {
    uint64_t magic;
};
struct ps3c_lt_desc_data {
    ps3c_lt_compute compute;
    int32_t op_a, op_b, epilogue;
    const void *bias;
};
struct ps3c_lt_layout_data {
    ps3c_lt_type type;
    int64_t rows, cols, ld;
};
struct ps3c_lt_preference_data {
    uint64_t workspace;
    uint32_t reductions, alignments[4];
};

namespace
{

constexpr uint64_t MAGIC = 0x7073336374657374u;

std::atomic<long> handles, live; /* that exist: handles; descriptions, layouts and preferences */

emu::faults &the_faults()
{
    static emu::faults *only = new emu::faults();
    return *only;
}
#define MAY_FAIL(function)                                     \
    do {                                                       \
        if (const int injected = the_faults().call(#function)) \
            return (ps3c_lt_status)injected;                   \
    } while (0)

bool refuses(const char *what)
{
    const char *asked = getenv("STAND_IN_LT_REFUSE");
    return asked && !strcmp(asked, what);
}

int64_t size_of(ps3c_lt_type type) { return type == PS3C_LT_R_32F ? 4 : 2; }
bool is_type(ps3c_lt_type type) { return type == PS3C_LT_R_32F || type == PS3C_LT_R_16F || type == PS3C_LT_R_16BF; }

/* ---- checks ------------------------------------------------------------------------------------------------------ */

struct problem {
    ps3c_lt_desc desc;
    ps3c_lt_layout a, b, c, d;
    int64_t m, n, k;
};

bool has_bias(const problem &p)
{
    return p.desc->epilogue == PS3C_LT_EPILOGUE_BIAS || p.desc->epilogue == PS3C_LT_EPILOGUE_GELU_BIAS;
}

ps3c_lt_status check(problem *p)
{
    if (!p->desc || !p->a || !p->b || !p->c || !p->d)
        return PS3C_LT_INVALID_VALUE;
    const bool turned_a = p->desc->op_a == PS3C_LT_OP_T, turned_b = p->desc->op_b == PS3C_LT_OP_T;
    p->m = turned_a ? p->a->cols : p->a->rows;
    p->k = turned_a ? p->a->rows : p->a->cols;
    p->n = turned_b ? p->b->rows : p->b->cols;
    if ((turned_b ? p->b->cols : p->b->rows) != p->k || p->c->rows != p->m || p->c->cols != p->n ||
        p->d->rows != p->m || p->d->cols != p->n)
        return PS3C_LT_INVALID_VALUE;
    for (ps3c_lt_layout layout : {p->a, p->b, p->c, p->d})
        if (layout->rows < 1 || layout->cols < 1 || layout->ld < layout->rows)
            return PS3C_LT_INVALID_VALUE;
    if (p->a->type != p->b->type || p->c->type != p->d->type ||
        (p->d->type != p->a->type && p->d->type != PS3C_LT_R_32F))
        return PS3C_LT_NOT_SUPPORTED;
    if (p->desc->compute == PS3C_LT_COMPUTE_32F_FAST_TF32 && p->a->type != PS3C_LT_R_32F)
        return PS3C_LT_NOT_SUPPORTED;
    return PS3C_LT_SUCCESS;
}

/* Of what an algorithm is for; in its 64 bytes. */
struct algo_data {
    uint64_t magic;
    int64_t m, k;
    int32_t types, ops;
    uint32_t alignments[4];
};
static_assert(sizeof(algo_data) <= sizeof(ps3c_lt_algo), "64 bytes");

algo_data describe(const problem &p)
{
    algo_data data = {};
    data.magic = MAGIC;
    data.m = p.m;
    data.k = p.k;
    data.types = p.a->type << 16 | p.d->type << 8 | p.desc->compute;
    data.ops = p.desc->op_a << 16 | p.desc->op_b << 8 | p.desc->epilogue;
    return data;
}

bool is_aligned(const void *pointer, uint32_t bytes) { return (uintptr_t)pointer % bytes == 0; }

/* ---- arithmetic -------------------------------------------------------------------------------------------------- */

float load(ps3c_lt_type type, const void *p, int64_t i)
{
    switch (type) {
    case PS3C_LT_R_32F:
        return ((const float *)p)[i];
    case PS3C_LT_R_16F:
        return __half2float(((const __half *)p)[i]);
    default:
        return __bfloat162float(((const __nv_bfloat16 *)p)[i]);
    }
}
void store(ps3c_lt_type type, void *p, int64_t i, float value)
{
    switch (type) {
    case PS3C_LT_R_32F:
        ((float *)p)[i] = value;
        break;
    case PS3C_LT_R_16F:
        ((__half *)p)[i] = __float2half_rn(value);
        break;
    default:
        ((__nv_bfloat16 *)p)[i] = __float2bfloat16_rn(value);
    }
}

float to_tf32(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    if ((u & 0x7fffffffu) <= 0x7f800000u)
        u = (u + 0x1000u) & ~0x1fffu;
    memcpy(&x, &u, 4);
    return x;
}

float factor(const problem &p, ps3c_lt_layout layout, const void *data, int64_t row, int64_t col)
{
    const float x = load(layout->type, data, col * layout->ld + row);
    return p.desc->compute == PS3C_LT_COMPUTE_32F_FAST_TF32 ? to_tf32(x) : x;
}

constexpr int M = 32, N = 4; /* a block of sums */

/* sums[N][M] = a[k][M] b[k][N] */
void multiply_block(const float *a, const float *b, int64_t k, float *sums)
{
    float own[N][M] = {};
    for (int64_t i = 0; i < k; i++)
        for (int col = 0; col < N; col++) {
            const float factor = b[i * N + col];
            for (int row = 0; row < M; row++)
                own[col][row] += a[i * M + row] * factor;
        }
    memcpy(sums, own, sizeof own);
}

struct scalars {
    float alpha, beta;
    const void *c;
};

float finish(const problem &p, const scalars &s, float sum, int64_t row, int64_t col)
{
    float x = s.alpha * sum;
    if (s.beta != 0)
        x += s.beta * load(p.c->type, s.c, col * p.c->ld + row);
    if (has_bias(p))
        x += load(p.d->type, p.desc->bias, row);
    if (p.desc->epilogue == PS3C_LT_EPILOGUE_GELU || p.desc->epilogue == PS3C_LT_EPILOGUE_GELU_BIAS)
        x = 0.5f * x * (1 + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    return x;
}

/* B is packed once: [block of N columns][k][N]; A a block of M rows at a time: [k][M]. Beyond the edge: zeros. */
void multiply(const problem &p, const void *a, const void *b, const scalars &s, void *d)
{
    const bool turned_a = p.desc->op_a == PS3C_LT_OP_T, turned_b = p.desc->op_b == PS3C_LT_OP_T;
    const int64_t blocks = (p.n + N - 1) / N;
    std::vector<float> packed_b((size_t)(blocks * p.k * N)), packed_a((size_t)(p.k * M));
    for (int64_t col = 0; col < p.n; col++)
        for (int64_t i = 0; i < p.k; i++)
            packed_b[(size_t)((col / N * p.k + i) * N + col % N)] =
                turned_b ? factor(p, p.b, b, col, i) : factor(p, p.b, b, i, col);
    for (int64_t row = 0; row < p.m; row += M) {
        const int rows = (int)std::min<int64_t>(M, p.m - row);
        for (int64_t i = 0; i < p.k; i++)
            for (int r = 0; r < rows; r++)
                packed_a[(size_t)(i * M + r)] =
                    turned_a ? factor(p, p.a, a, i, row + r) : factor(p, p.a, a, row + r, i);
        for (int64_t block = 0; block < blocks; block++) {
            float sums[N * M];
            multiply_block(packed_a.data(), &packed_b[(size_t)(block * p.k * N)], p.k, sums);
            for (int64_t col = block * N; col < std::min(p.n, (block + 1) * N); col++)
                for (int r = 0; r < rows; r++)
                    store(p.d->type, d, col * p.d->ld + row + r, finish(p, s, sums[(col % N) * M + r], row + r, col));
        }
    }
}

} // namespace

/* ---- for tests --------------------------------------------------------------------------------------------------- */

/* The n-th call from now on of a function that does not destroy fails: faults.h. */
EXPORT void stand_in_lt_fault(long n, int status, int mode) { the_faults().arm(n, status, mode); }
EXPORT long stand_in_lt_calls() { return the_faults().calls(); }
EXPORT const char *stand_in_lt_called(long n) { return the_faults().called(n); }
EXPORT long stand_in_lt_handles() { return handles; }
EXPORT long stand_in_lt_live() { return live; }

/* ---- the library's functions ------------------------------------------------------------------------------------- */

EXPORT size_t cublasLtGetVersion() { return 130000; }

EXPORT ps3c_lt_status cublasLtCreate(ps3c_lt_handle *handle)
{
    MAY_FAIL(cublasLtCreate);
    *handle = new ps3c_lt_context{MAGIC};
    handles++;
    return PS3C_LT_SUCCESS;
}
EXPORT ps3c_lt_status cublasLtDestroy(ps3c_lt_handle handle)
{
    handles -= handle != nullptr;
    delete handle;
    return PS3C_LT_SUCCESS;
}

EXPORT ps3c_lt_status cublasLtMatmulDescCreate(ps3c_lt_desc *desc, ps3c_lt_compute compute, ps3c_lt_type scale_type)
{
    MAY_FAIL(cublasLtMatmulDescCreate);
    if (scale_type != PS3C_LT_R_32F || (compute != PS3C_LT_COMPUTE_32F && compute != PS3C_LT_COMPUTE_32F_FAST_TF32))
        return PS3C_LT_NOT_SUPPORTED;
    *desc = new ps3c_lt_desc_data{compute, PS3C_LT_OP_N, PS3C_LT_OP_N, PS3C_LT_EPILOGUE_DEFAULT, nullptr};
    live++;
    return PS3C_LT_SUCCESS;
}
EXPORT ps3c_lt_status cublasLtMatmulDescDestroy(ps3c_lt_desc desc)
{
    live -= desc != nullptr;
    delete desc;
    return PS3C_LT_SUCCESS;
}
EXPORT ps3c_lt_status cublasLtMatmulDescSetAttribute(ps3c_lt_desc desc, ps3c_lt_desc_attribute attribute,
                                                     const void *value, size_t bytes)
{
    MAY_FAIL(cublasLtMatmulDescSetAttribute);
    int32_t number = 0;
    if (!desc || bytes != (attribute == PS3C_LT_DESC_BIAS_POINTER ? sizeof(void *) : sizeof number))
        return PS3C_LT_INVALID_VALUE;
    if (attribute == PS3C_LT_DESC_BIAS_POINTER) {
        memcpy(&desc->bias, value, bytes);
        return PS3C_LT_SUCCESS;
    }
    memcpy(&number, value, bytes);
    switch (attribute) {
    case PS3C_LT_DESC_TRANSA:
    case PS3C_LT_DESC_TRANSB:
        if (number != PS3C_LT_OP_N && number != PS3C_LT_OP_T)
            return PS3C_LT_INVALID_VALUE;
        (attribute == PS3C_LT_DESC_TRANSA ? desc->op_a : desc->op_b) = number;
        return PS3C_LT_SUCCESS;
    case PS3C_LT_DESC_EPILOGUE:
        if (number != PS3C_LT_EPILOGUE_DEFAULT && number != PS3C_LT_EPILOGUE_BIAS && number != PS3C_LT_EPILOGUE_GELU &&
            number != PS3C_LT_EPILOGUE_GELU_BIAS)
            return PS3C_LT_INVALID_VALUE;
        desc->epilogue = number;
        return PS3C_LT_SUCCESS;
    default:
        return PS3C_LT_INVALID_VALUE;
    }
}

EXPORT ps3c_lt_status cublasLtMatrixLayoutCreate(ps3c_lt_layout *layout, ps3c_lt_type type, uint64_t rows,
                                                 uint64_t cols, int64_t ld)
{
    MAY_FAIL(cublasLtMatrixLayoutCreate);
    if (!is_type(type) || rows > INT64_MAX || cols > INT64_MAX)
        return PS3C_LT_INVALID_VALUE;
    *layout = new ps3c_lt_layout_data{type, (int64_t)rows, (int64_t)cols, ld};
    live++;
    return PS3C_LT_SUCCESS;
}
EXPORT ps3c_lt_status cublasLtMatrixLayoutDestroy(ps3c_lt_layout layout)
{
    live -= layout != nullptr;
    delete layout;
    return PS3C_LT_SUCCESS;
}

EXPORT ps3c_lt_status cublasLtMatmulPreferenceCreate(ps3c_lt_preference *preference)
{
    MAY_FAIL(cublasLtMatmulPreferenceCreate);
    *preference = new ps3c_lt_preference_data{0, ~0u, {256, 256, 256, 256}};
    live++;
    return PS3C_LT_SUCCESS;
}
EXPORT ps3c_lt_status cublasLtMatmulPreferenceDestroy(ps3c_lt_preference preference)
{
    live -= preference != nullptr;
    delete preference;
    return PS3C_LT_SUCCESS;
}
EXPORT ps3c_lt_status cublasLtMatmulPreferenceSetAttribute(ps3c_lt_preference preference,
                                                           ps3c_lt_preference_attribute attribute, const void *value,
                                                           size_t bytes)
{
    MAY_FAIL(cublasLtMatmulPreferenceSetAttribute);
    const bool is_workspace = attribute == PS3C_LT_PREF_MAX_WORKSPACE_BYTES;
    uint32_t number = 0;
    if (!preference || bytes != (is_workspace ? sizeof preference->workspace : sizeof number))
        return PS3C_LT_INVALID_VALUE;
    if (is_workspace) {
        memcpy(&preference->workspace, value, bytes);
        return PS3C_LT_SUCCESS;
    }
    memcpy(&number, value, bytes);
    if (attribute == PS3C_LT_PREF_REDUCTION_SCHEME_MASK) {
        preference->reductions = number;
        return PS3C_LT_SUCCESS;
    }
    const int matrix = attribute - PS3C_LT_PREF_MIN_ALIGNMENT_A_BYTES;
    if (matrix < 0 || matrix > 3 || !number || number & (number - 1))
        return PS3C_LT_INVALID_VALUE;
    preference->alignments[matrix] = number;
    return PS3C_LT_SUCCESS;
}

EXPORT ps3c_lt_status cublasLtMatmulAlgoGetHeuristic(ps3c_lt_handle handle, ps3c_lt_desc desc, ps3c_lt_layout a,
                                                     ps3c_lt_layout b, ps3c_lt_layout c, ps3c_lt_layout d,
                                                     ps3c_lt_preference preference, int requested,
                                                     ps3c_lt_heuristic *results, int *returned)
{
    MAY_FAIL(cublasLtMatmulAlgoGetHeuristic);
    problem p = {desc, a, b, c, d, 0, 0, 0};
    *returned = 0;
    if (!handle || handle->magic != MAGIC || !preference || requested < 1)
        return PS3C_LT_INVALID_VALUE;
    const ps3c_lt_status status = check(&p);
    if (status != PS3C_LT_SUCCESS)
        return status;
    bool refused = refuses("heuristic");
    const ps3c_lt_layout layouts[] = {a, b, c, d};
    for (int i = 0; i < 4; i++) {
        const int64_t size = size_of(layouts[i]->type);
        refused |= preference->alignments[i] < size;
        refused |= refuses("align16") && (preference->alignments[i] < 16 || layouts[i]->ld * size % 16);
    }
    if (refused || (has_bias(p) && desc->bias && !is_aligned(desc->bias, (uint32_t)size_of(d->type))))
        return PS3C_LT_NOT_SUPPORTED;
    algo_data data = describe(p);
    memcpy(data.alignments, preference->alignments, sizeof data.alignments);
    results[0] = ps3c_lt_heuristic();
    memcpy(&results[0].algo, &data, sizeof data);
    results[0].state = PS3C_LT_SUCCESS;
    results[0].waves = 1;
    *returned = 1;
    return PS3C_LT_SUCCESS;
}

EXPORT ps3c_lt_status cublasLtMatmulAlgoConfigGetAttribute(const ps3c_lt_algo *algo, ps3c_lt_algo_attribute attribute,
                                                           void *value, size_t bytes, size_t *written)
{
    MAY_FAIL(cublasLtMatmulAlgoConfigGetAttribute);
    if (!algo || algo->data[0] != MAGIC || bytes < 4 ||
        (attribute != PS3C_LT_ALGO_SPLITK_NUM && attribute != PS3C_LT_ALGO_REDUCTION_SCHEME))
        return PS3C_LT_INVALID_VALUE;
    const int32_t number = attribute == PS3C_LT_ALGO_SPLITK_NUM ? 1 : 0;
    memcpy(value, &number, sizeof number);
    if (written)
        *written = sizeof number;
    return PS3C_LT_SUCCESS;
}

EXPORT ps3c_lt_status cublasLtMatmul(ps3c_lt_handle handle, ps3c_lt_desc desc, const void *alpha, const void *a,
                                     ps3c_lt_layout a_layout, const void *b, ps3c_lt_layout b_layout, const void *beta,
                                     const void *c, ps3c_lt_layout c_layout, void *d, ps3c_lt_layout d_layout,
                                     const ps3c_lt_algo *algo, void *workspace, size_t workspace_bytes, cudaStream_t)
{
    MAY_FAIL(cublasLtMatmul);
    problem p = {desc, a_layout, b_layout, c_layout, d_layout, 0, 0, 0};
    scalars s = {0, 0, c};
    if (!handle || handle->magic != MAGIC || !alpha || !beta || !a || !b || !c || !d)
        return PS3C_LT_INVALID_VALUE;
    const ps3c_lt_status status = check(&p);
    if (status != PS3C_LT_SUCCESS)
        return status;
    memcpy(&s.alpha, alpha, 4);
    memcpy(&s.beta, beta, 4);
    if (workspace_bytes && (!workspace || !is_aligned(workspace, 256)))
        return PS3C_LT_INVALID_VALUE;
    if (has_bias(p) && (!desc->bias || !is_aligned(desc->bias, (uint32_t)size_of(d_layout->type))))
        return PS3C_LT_INVALID_VALUE;
    if (c == d && c_layout->ld != d_layout->ld)
        return PS3C_LT_INVALID_VALUE;
    if (refuses("matmul"))
        return PS3C_LT_NOT_SUPPORTED;
    if (algo) {
        algo_data chosen, mine = describe(p);
        memcpy(&chosen, algo, sizeof chosen);
        const void *const pointers[] = {a, b, c, d};
        for (int i = 0; i < 4; i++)
            if (chosen.magic != MAGIC || !is_aligned(pointers[i], chosen.alignments[i]))
                return PS3C_LT_INVALID_VALUE;
        memcpy(mine.alignments, chosen.alignments, sizeof mine.alignments);
        if (memcmp(&mine, &chosen, sizeof mine)) /* for another product; the number of columns may be another */
            return PS3C_LT_NOT_SUPPORTED;
    }
    multiply(p, a, b, s, d);
    return PS3C_LT_SUCCESS;
}
