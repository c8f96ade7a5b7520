/* Compares the declarations of cublaslt.cuh with the real header, at compile time. Without cublasLt.h it is empty. */
#include "cublaslt.cuh"

#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#include <type_traits>

#define SAME(ours, theirs) static_assert((int)(ours) == (int)(theirs), #ours)

SAME(PS3C_LT_SUCCESS, CUBLAS_STATUS_SUCCESS);
SAME(PS3C_LT_NOT_INITIALIZED, CUBLAS_STATUS_NOT_INITIALIZED);
SAME(PS3C_LT_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED);
SAME(PS3C_LT_INVALID_VALUE, CUBLAS_STATUS_INVALID_VALUE);
SAME(PS3C_LT_ARCH_MISMATCH, CUBLAS_STATUS_ARCH_MISMATCH);
SAME(PS3C_LT_MAPPING_ERROR, CUBLAS_STATUS_MAPPING_ERROR);
SAME(PS3C_LT_EXECUTION_FAILED, CUBLAS_STATUS_EXECUTION_FAILED);
SAME(PS3C_LT_INTERNAL_ERROR, CUBLAS_STATUS_INTERNAL_ERROR);
SAME(PS3C_LT_NOT_SUPPORTED, CUBLAS_STATUS_NOT_SUPPORTED);
SAME(PS3C_LT_R_32F, CUDA_R_32F);
SAME(PS3C_LT_R_16F, CUDA_R_16F);
SAME(PS3C_LT_R_16BF, CUDA_R_16BF);
SAME(PS3C_LT_COMPUTE_32F, CUBLAS_COMPUTE_32F);
SAME(PS3C_LT_COMPUTE_32F_FAST_TF32, CUBLAS_COMPUTE_32F_FAST_TF32);
SAME(PS3C_LT_OP_N, CUBLAS_OP_N);
SAME(PS3C_LT_OP_T, CUBLAS_OP_T);
SAME(PS3C_LT_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSA);
SAME(PS3C_LT_DESC_TRANSB, CUBLASLT_MATMUL_DESC_TRANSB);
SAME(PS3C_LT_DESC_EPILOGUE, CUBLASLT_MATMUL_DESC_EPILOGUE);
SAME(PS3C_LT_DESC_BIAS_POINTER, CUBLASLT_MATMUL_DESC_BIAS_POINTER);
SAME(PS3C_LT_EPILOGUE_DEFAULT, CUBLASLT_EPILOGUE_DEFAULT);
SAME(PS3C_LT_EPILOGUE_BIAS, CUBLASLT_EPILOGUE_BIAS);
SAME(PS3C_LT_EPILOGUE_GELU, CUBLASLT_EPILOGUE_GELU);
SAME(PS3C_LT_EPILOGUE_GELU_BIAS, CUBLASLT_EPILOGUE_GELU_BIAS);
SAME(PS3C_LT_PREF_MAX_WORKSPACE_BYTES, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME(PS3C_LT_PREF_REDUCTION_SCHEME_MASK, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
SAME(PS3C_LT_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
SAME(PS3C_LT_PREF_MIN_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
SAME(PS3C_LT_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
SAME(PS3C_LT_PREF_MIN_ALIGNMENT_D_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
SAME(PS3C_LT_ALGO_SPLITK_NUM, CUBLASLT_ALGO_CONFIG_SPLITK_NUM);
SAME(PS3C_LT_ALGO_REDUCTION_SCHEME, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME);
SAME(0, CUBLASLT_REDUCTION_SCHEME_NONE);
SAME(0, CUBLASLT_POINTER_MODE_HOST); /* the default, which gemm.cu relies on */

SAME(sizeof(ps3c_lt_algo), sizeof(cublasLtMatmulAlgo_t));
SAME(sizeof(ps3c_lt_heuristic), sizeof(cublasLtMatmulHeuristicResult_t));
SAME(offsetof(ps3c_lt_heuristic, algo), offsetof(cublasLtMatmulHeuristicResult_t, algo));
SAME(offsetof(ps3c_lt_heuristic, workspace_bytes), offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
SAME(offsetof(ps3c_lt_heuristic, state), offsetof(cublasLtMatmulHeuristicResult_t, state));
SAME(offsetof(ps3c_lt_heuristic, waves), offsetof(cublasLtMatmulHeuristicResult_t, wavesCount));
SAME(sizeof(ps3c_lt_status), sizeof(cublasStatus_t));
SAME(sizeof(ps3c_lt_type), sizeof(cudaDataType_t));
SAME(sizeof(ps3c_lt_compute), sizeof(cublasComputeType_t));
SAME(sizeof(ps3c_lt_desc_attribute), sizeof(cublasLtMatmulDescAttributes_t));
SAME(sizeof(ps3c_lt_preference_attribute), sizeof(cublasLtMatmulPreferenceAttributes_t));
SAME(sizeof(ps3c_lt_algo_attribute), sizeof(cublasLtMatmulAlgoConfigAttributes_t));

namespace
{

/* Two parameters are the same if both are pointers, or both are values of one size and kind. Names of types are not
 * compared, only their positions in the parameter list. */
template <class A, class B> constexpr bool same_parameter()
{
    return std::is_pointer_v<A> == std::is_pointer_v<B> && sizeof(A) == sizeof(B) &&
           (std::is_integral_v<A> || std::is_enum_v<A>) == (std::is_integral_v<B> || std::is_enum_v<B>);
}

template <class A, class B> struct same_function : std::false_type {
};
template <class R, class... A, class S, class... B> struct same_function<R (*)(A...), S (*)(B...)> {
    static constexpr bool count = sizeof...(A) == sizeof...(B);
    template <bool same_count, class = void> struct parameters : std::false_type {
    };
    template <class Unused> struct parameters<true, Unused> {
        static constexpr bool value = (same_parameter<A, B>() && ...);
    };
    static constexpr bool value = same_parameter<R, S>() && parameters<count>::value;
};

} // namespace

#define SAME_FUNCTION(name) static_assert(same_function<decltype(ps3c_lt_api::name), decltype(&::name)>::value, #name)

SAME_FUNCTION(cublasLtCreate);
SAME_FUNCTION(cublasLtMatmulDescCreate);
SAME_FUNCTION(cublasLtMatmulDescDestroy);
SAME_FUNCTION(cublasLtMatmulDescSetAttribute);
SAME_FUNCTION(cublasLtMatrixLayoutCreate);
SAME_FUNCTION(cublasLtMatrixLayoutDestroy);
SAME_FUNCTION(cublasLtMatmulPreferenceCreate);
SAME_FUNCTION(cublasLtMatmulPreferenceDestroy);
SAME_FUNCTION(cublasLtMatmulPreferenceSetAttribute);
SAME_FUNCTION(cublasLtMatmulAlgoGetHeuristic);
SAME_FUNCTION(cublasLtMatmulAlgoConfigGetAttribute);
SAME_FUNCTION(cublasLtMatmul);

#endif
