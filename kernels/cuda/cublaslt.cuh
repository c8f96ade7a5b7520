/* cuBLASLt, opened at run time: the build needs neither its header nor the library.
 *
 * The library comes with torch (nvidia-cublas) or the toolkit, in a version that the build cannot know. So it is opened
 * with dlopen, and what gemm.cu uses of its interface is declared here, with the library's numbers and sizes.
 * cublaslt_check.cu compares the declarations with the real header, where there is one. The tests' stand-in uses the
 * same declarations and exports the functions of ps3c_lt_api by the library's names.
 */
#ifndef PS3C_CUBLASLT_CUH
#define PS3C_CUBLASLT_CUH

#include "cuda.cuh"

/* ---- the library's interface ------------------------------------------------------------------------------------- */

/* Opaque handles. */
typedef struct ps3c_lt_context *ps3c_lt_handle;
typedef struct ps3c_lt_desc_data *ps3c_lt_desc;
typedef struct ps3c_lt_layout_data *ps3c_lt_layout;
typedef struct ps3c_lt_preference_data *ps3c_lt_preference;

enum ps3c_lt_status : int { /* the ones that are distinguished or named */
                            PS3C_LT_SUCCESS = 0,
                            PS3C_LT_NOT_INITIALIZED = 1,
                            PS3C_LT_ALLOC_FAILED = 3,
                            PS3C_LT_INVALID_VALUE = 7,
                            PS3C_LT_ARCH_MISMATCH = 8,
                            PS3C_LT_MAPPING_ERROR = 11,
                            PS3C_LT_EXECUTION_FAILED = 13,
                            PS3C_LT_INTERNAL_ERROR = 14,
                            PS3C_LT_NOT_SUPPORTED = 15,
};

enum ps3c_lt_type : int { PS3C_LT_R_32F = 0, PS3C_LT_R_16F = 2, PS3C_LT_R_16BF = 14 };
enum ps3c_lt_compute : int { PS3C_LT_COMPUTE_32F = 68, PS3C_LT_COMPUTE_32F_FAST_TF32 = 77 };
enum ps3c_lt_op : int { PS3C_LT_OP_N = 0, PS3C_LT_OP_T = 1 };

/* Attributes of a product; all int32 but the bias, a const void *. */
enum ps3c_lt_desc_attribute : int {
    PS3C_LT_DESC_TRANSA = 3,
    PS3C_LT_DESC_TRANSB = 4,
    PS3C_LT_DESC_EPILOGUE = 7,
    PS3C_LT_DESC_BIAS_POINTER = 8,
};

enum ps3c_lt_epilogue : int { /* GELU: the tanh form */
                              PS3C_LT_EPILOGUE_DEFAULT = 1,
                              PS3C_LT_EPILOGUE_BIAS = 4,
                              PS3C_LT_EPILOGUE_GELU = 32,
                              PS3C_LT_EPILOGUE_GELU_BIAS = 36,
};

/* uint64 for the workspace, uint32 for the others. */
enum ps3c_lt_preference_attribute : int {
    PS3C_LT_PREF_MAX_WORKSPACE_BYTES = 1,
    PS3C_LT_PREF_REDUCTION_SCHEME_MASK = 3, /* 0: no split reductions */
    PS3C_LT_PREF_MIN_ALIGNMENT_A_BYTES = 5,
    PS3C_LT_PREF_MIN_ALIGNMENT_B_BYTES = 6,
    PS3C_LT_PREF_MIN_ALIGNMENT_C_BYTES = 7,
    PS3C_LT_PREF_MIN_ALIGNMENT_D_BYTES = 8,
};

enum ps3c_lt_algo_attribute : int { PS3C_LT_ALGO_SPLITK_NUM = 2, PS3C_LT_ALGO_REDUCTION_SCHEME = 3 };

struct ps3c_lt_algo { /* may be copied and stored */
    uint64_t data[8];
};

struct ps3c_lt_heuristic {
    ps3c_lt_algo algo;
    size_t workspace_bytes;
    ps3c_lt_status state;
    float waves;
    int reserved[4];
};

/* Matrices are column-major: rows x cols, columns ld elements apart. D = alpha op(A) op(B) + beta C, then epilogue. */
struct ps3c_lt_api {
    ps3c_lt_status (*cublasLtCreate)(ps3c_lt_handle *handle);
    ps3c_lt_status (*cublasLtMatmulDescCreate)(ps3c_lt_desc *desc, ps3c_lt_compute compute, ps3c_lt_type scale_type);
    ps3c_lt_status (*cublasLtMatmulDescDestroy)(ps3c_lt_desc desc);
    ps3c_lt_status (*cublasLtMatmulDescSetAttribute)(ps3c_lt_desc desc, ps3c_lt_desc_attribute attribute,
                                                     const void *value, size_t bytes);
    ps3c_lt_status (*cublasLtMatrixLayoutCreate)(ps3c_lt_layout *layout, ps3c_lt_type type, uint64_t rows,
                                                 uint64_t cols, int64_t ld);
    ps3c_lt_status (*cublasLtMatrixLayoutDestroy)(ps3c_lt_layout layout);
    ps3c_lt_status (*cublasLtMatmulPreferenceCreate)(ps3c_lt_preference *preference);
    ps3c_lt_status (*cublasLtMatmulPreferenceDestroy)(ps3c_lt_preference preference);
    ps3c_lt_status (*cublasLtMatmulPreferenceSetAttribute)(ps3c_lt_preference preference,
                                                           ps3c_lt_preference_attribute attribute, const void *value,
                                                           size_t bytes);
    ps3c_lt_status (*cublasLtMatmulAlgoGetHeuristic)(ps3c_lt_handle handle, ps3c_lt_desc desc, ps3c_lt_layout a,
                                                     ps3c_lt_layout b, ps3c_lt_layout c, ps3c_lt_layout d,
                                                     ps3c_lt_preference preference, int requested,
                                                     ps3c_lt_heuristic *results, int *returned);
    ps3c_lt_status (*cublasLtMatmulAlgoConfigGetAttribute)(const ps3c_lt_algo *algo, ps3c_lt_algo_attribute attribute,
                                                           void *value, size_t bytes, size_t *written);
    ps3c_lt_status (*cublasLtMatmul)(ps3c_lt_handle handle, ps3c_lt_desc desc, const void *alpha, const void *a,
                                     ps3c_lt_layout a_layout, const void *b, ps3c_lt_layout b_layout, const void *beta,
                                     const void *c, ps3c_lt_layout c_layout, void *d, ps3c_lt_layout d_layout,
                                     const ps3c_lt_algo *algo, void *workspace, size_t workspace_bytes,
                                     cudaStream_t stream);
};

/* ---- ours -------------------------------------------------------------------------------------------------------- */

extern "C" {
/* Folders to search for the library, separated by colons; copied. NULL: none. Call it before the first product. */
void ps3c_lt_set_folders(const char *colon_separated);
/* Number of products so far that cuBLASLt refused and gemm.cu's plain, slow kernel computed; for tests. */
int64_t ps3c_lt_refusals();
}

/* Bytes of workspace of a product, the same for all devices of this machine. */
size_t ps3c_lt_workspace_bytes();

/* y = gelu?(x W^T + bias + c) over rows, all of the run's dtype. */
struct ps3c_lt_product {
    int64_t rows;    /* of x, c, y */
    int64_t planned; /* rows that the algorithm is chosen for, independent of `rows` */
    int64_t n, k;
    const void *weight; /* (n, k), or transposed (k, n); rows ldw apart */
    int64_t ldw;
    bool transposed;
    const void *bias; /* [n] or NULL */
    bool gelu;        /* tanh form */
    const void *x;
    int64_t ldx;
    const void *c; /* NULL; may be y with the same ld */
    int64_t ldc;
    void *y;
    int64_t ldy;
    void *workspace; /* ps3c_lt_workspace_bytes(), 256-byte aligned */
};

/* Enqueues the product. If cuBLASLt has no algorithm for it, *done is false and nothing is enqueued. */
ps3c_status ps3c_lt_multiply(const ps3c_run *run, const ps3c_lt_product *product, bool *done);

#endif
