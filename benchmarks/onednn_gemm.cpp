/* oneDNN's product with the epilogues of a transformer block, for operations.py to load through ctypes.
 *
 * y = act(x w^T + bias) + residual; x (m, k), w (n, k), y and residual (m, n), all float32 or all bfloat16, bias (n)
 * float32. The weight is reordered once, outside the measured runs, into the layout that oneDNN prefers. The caller's
 * arrays stay in use until onednn_gemm_free.
 */
#include <oneapi/dnnl/dnnl.hpp>

#include <memory>
#include <unordered_map>

namespace
{

struct product {
    dnnl::engine engine{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream{engine};
    dnnl::matmul matmul;
    std::unordered_map<int, dnnl::memory> arguments;
};

} // namespace

extern "C" {

/* NULL when oneDNN refuses. residual may be NULL. */
void *onednn_gemm_new(long m, long n, long k, int bfloat16, int gelu, void *x, void *w, void *bias, void *residual,
                      void *y)
try {
    using dnnl::memory;
    auto p = std::make_unique<product>();
    const auto type = bfloat16 ? memory::data_type::bf16 : memory::data_type::f32;
    const memory::desc x_desc({m, k}, type, memory::format_tag::ab), y_desc({m, n}, type, memory::format_tag::ab);
    const memory::desc given({k, n}, type, memory::format_tag::ba), wanted({k, n}, type, memory::format_tag::any);
    const memory::desc bias_desc({1, n}, memory::data_type::f32, memory::format_tag::ab);
    dnnl::post_ops post;
    if (gelu)
        post.append_eltwise(dnnl::algorithm::eltwise_gelu_erf, 0, 0);
    if (residual)
        post.append_binary(dnnl::algorithm::binary_add, y_desc);
    dnnl::primitive_attr attributes;
    attributes.set_post_ops(post);
    const dnnl::matmul::primitive_desc desc(p->engine, x_desc, wanted, bias_desc, y_desc, attributes);
    memory source(given, p->engine, w), weight(desc.weights_desc(), p->engine);
    dnnl::reorder(source, weight).execute(p->stream, source, weight);
    p->stream.wait();
    p->matmul = dnnl::matmul(desc);
    p->arguments = {{DNNL_ARG_SRC, memory(x_desc, p->engine, x)},
                    {DNNL_ARG_WEIGHTS, weight},
                    {DNNL_ARG_BIAS, memory(bias_desc, p->engine, bias)},
                    {DNNL_ARG_DST, memory(y_desc, p->engine, y)}};
    if (residual)
        p->arguments[DNNL_ARG_ATTR_MULTIPLE_POST_OP(gelu ? 1 : 0) | DNNL_ARG_SRC_1] =
            memory(y_desc, p->engine, residual);
    return p.release();
} catch (const std::exception &) {
    return nullptr;
}

void onednn_gemm_run(void *opaque)
{
    auto *p = static_cast<product *>(opaque);
    p->matmul.execute(p->stream, p->arguments);
    p->stream.wait();
}

void onednn_gemm_free(void *opaque) { delete static_cast<product *>(opaque); }

} // extern "C"
