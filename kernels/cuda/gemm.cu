/* y = act(x W^T + bias) * scale + residual: cuBLASLt's product (cublaslt.cu), then our epilogue (epilogue.cu) for what
 * cuBLASLt cannot do.
 *
 * The product does: the bias; the residual, as C with beta 1 (rounded once with the product), if there is no activation
 * or scale between; the tanh GELU of 16-bit types. A pass after it does: the exact GELU, ReLU (cuBLASLt's may lose
 * NaN), the layer scale. That pass works in place on y. If y is also the residual, the product goes to scratch instead,
 * in chunks of rows.
 *
 * A weight whose rows do not start or end on a multiple of 16 bytes (588 channels of a 14 x 14 patch) would get a slow
 * kernel or none. At each call it is copied to scratch, padded with zeros to the pitch, in blocks of outputs. The
 * product then runs over the pitch, where x has zeros too. The copy is a few MB at most, and is not cached, so that it
 * can never be out of date.
 *
 * A product that cuBLASLt refuses is computed by a plain kernel of ours: any shape, any strides, slow.
 */
#include "cublaslt.cuh"
#include "epilogue.cuh"

namespace
{

/* ---- scratch: cuBLASLt's workspace, a block of the padded weight, a chunk of the product ------------------------- */

constexpr int64_t WEIGHT_BYTES = (int64_t)4 << 20, CHUNK_BYTES = (int64_t)32 << 20;
/* An algorithm is chosen for at least this many rows. A pooled activation has a token for each image or text of a
 * group, and its result must not depend on their number. */
constexpr int64_t LEAST_PLANNED = 512;
constexpr int64_t LEAST_OUTPUTS = 64; /* least outputs in a block of the weight, however wide its rows are */

int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

/* Outputs in a block of the padded weight: all of them, or a multiple of LEAST_OUTPUTS. */
int64_t block_outputs(int64_t n, int64_t row_bytes)
{
    const int64_t fit = WEIGHT_BYTES / row_bytes / LEAST_OUTPUTS * LEAST_OUTPUTS;
    const int64_t most = fit > LEAST_OUTPUTS ? fit : LEAST_OUTPUTS;
    return n < most ? n : most;
}

int64_t block_bytes(int64_t n, int64_t row_bytes) { return round_up(block_outputs(n, row_bytes) * row_bytes, 256); }

int64_t chunk_rows(int64_t rows, int64_t row_bytes)
{
    const int64_t most = CHUNK_BYTES / row_bytes > 0 ? CHUNK_BYTES / row_bytes : 1;
    return rows < most ? rows : most;
}

/* An upper bound of the bytes of a chunk whose rows have at most row_bytes. */
int64_t chunk_bytes(int64_t rows, int64_t row_bytes)
{
    const int64_t most = row_bytes > CHUNK_BYTES ? row_bytes : CHUNK_BYTES;
    return rows < most / row_bytes ? rows * row_bytes : most;
}

/* ---- the padded weight ------------------------------------------------------------------------------------------- */

/* Where a weight's elements are: output o, input c at o * output_step + c * input_step. */
struct weight_view {
    int64_t output_step, input_step;
};

template <class T>
__global__ void pad_weight(const T *weight, weight_view view, int64_t outputs, int64_t k, int64_t pitch, T *out)
{
    const int64_t step = (int64_t)gridDim.x * blockDim.x, count = outputs * pitch;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        const int64_t output = i / pitch, c = i - output * pitch;
        out[i] = c < k ? weight[output * view.output_step + c * view.input_step] : ps3c_from_float<T>(0.0f);
    }
}

/* ---- the plain kernel -------------------------------------------------------------------------------------------- */

constexpr int TILE = 32, SIDE = 16; /* a block: TILE x TILE outputs, SIDE x SIDE threads, 2 x 2 outputs each */

template <class T> struct plain_args {
    int64_t rows, n, k, ldx, ldc, ldy;
    const T *x, *weight, *bias, *c;
    weight_view view;
    T *y;
    ps3c_activation_function act;
};

template <class T> __global__ void __launch_bounds__(SIDE *SIDE) plain_product(plain_args<T> a)
{
    PS3C_SHARED(float, xs, [TILE][TILE + 1]);
    PS3C_SHARED(float, ws, [TILE][TILE + 1]);
    const int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    const int64_t row = (int64_t)blockIdx.x * TILE, output = (int64_t)blockIdx.y * TILE;
    float sum[2][2] = {{0.0f, 0.0f}, {0.0f, 0.0f}};
    for (int64_t k = 0; k < a.k; k += TILE) {
        for (int i = threadIdx.x; i < TILE * TILE; i += SIDE * SIDE) {
            const int r = i / TILE, c = i % TILE;
            xs[r][c] = row + r < a.rows && k + c < a.k ? ps3c_to_float(a.x[(row + r) * a.ldx + k + c]) : 0.0f;
            ws[r][c] = output + r < a.n && k + c < a.k
                           ? ps3c_to_float(a.weight[(output + r) * a.view.output_step + (k + c) * a.view.input_step])
                           : 0.0f;
        }
        __syncthreads();
        for (int c = 0; c < TILE; c++)
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 2; j++)
                    sum[i][j] = __fmaf_rn(xs[ty + SIDE * i][c], ws[tx + SIDE * j][c], sum[i][j]);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const int64_t r = row + ty + SIDE * i, o = output + tx + SIDE * j;
            if (r < a.rows && o < a.n) {
                float v = sum[i][j] + (a.bias ? ps3c_to_float(a.bias[o]) : 0.0f);
                v = ps3c_activate(a.act, v) + (a.c ? ps3c_to_float(a.c[r * a.ldc + o]) : 0.0f);
                a.y[r * a.ldy + o] = ps3c_from_float<T>(v);
            }
        }
}

template <class T> ps3c_status launch_plain(const ps3c_run *run, const ps3c_lt_product *g)
{
    plain_args<T> a = {};
    a.rows = g->rows;
    a.n = g->n;
    a.k = g->k;
    a.ldx = g->ldx;
    a.ldc = g->ldc;
    a.ldy = g->ldy;
    a.x = (const T *)g->x;
    a.weight = (const T *)g->weight;
    a.bias = (const T *)g->bias;
    a.c = (const T *)g->c;
    a.view = {g->transposed ? 1 : g->ldw, g->transposed ? g->ldw : 1};
    a.y = (T *)g->y;
    a.act = g->gelu ? PS3C_ACT_GELU_TANH : PS3C_ACT_NONE;
    const dim3 grid((unsigned)((g->rows + TILE - 1) / TILE), (unsigned)((g->n + TILE - 1) / TILE));
    PS3C_CUDA_LAUNCH(run, "gemm", (plain_product<T>), grid, SIDE * SIDE, 0, a);
    return PS3C_OK;
}

/* ---- the operation ----------------------------------------------------------------------------------------------- */

const void *at(const void *base, int64_t elements, size_t size)
{
    return base ? (const char *)base + elements * (int64_t)size : nullptr;
}

/* How a call is computed. */
struct gemm_plan {
    size_t size;                  /* bytes of an element */
    bool padded;                  /* the weight is padded in scratch */
    bool gelu, add, after, apart; /* in the product: GELU, residual; a pass after it; the product in scratch */
    int64_t rows, y_pitch, residual_pitch;
    void *workspace, *weight, *chunk;
};

gemm_plan plan_gemm(const ps3c_run *run, const ps3c_gemm_args *args)
{
    gemm_plan c = {};
    c.size = run->dtype == PS3C_FLOAT32 ? 4 : 2;
    const int64_t row = (args->transposed ? args->n : args->k) * (int64_t)c.size, step = args->ldw * (int64_t)c.size;
    c.padded = row % 16 || step % 16 || (uintptr_t)args->weight % 16;
    c.gelu = args->act == PS3C_ACT_GELU_TANH && run->dtype != PS3C_FLOAT32 && !args->scale && !args->residual;
    c.after = (args->act != PS3C_ACT_NONE && !c.gelu) || args->scale;
    c.add = args->residual && !c.after;
    c.apart = c.after && args->residual && args->residual->data == args->y->data;
    c.rows = args->x->segments * args->x->tokens;
    c.y_pitch = ps3c_pitch(args->y->channels);
    c.residual_pitch = args->residual ? ps3c_pitch(args->residual->channels) : 0;
    c.workspace = (void *)(((uintptr_t)run->scratch + 255) / 256 * 256);
    c.weight = (char *)c.workspace + ps3c_lt_workspace_bytes();
    c.chunk = (char *)c.weight + (c.padded ? block_bytes(args->n, ps3c_pitch(args->k) * (int64_t)c.size) : 0);
    return c;
}

template <class T>
ps3c_status copy_weight(const ps3c_run *run, const ps3c_gemm_args *args, const gemm_plan *c, int64_t first,
                        int64_t count)
{
    const weight_view view = {args->transposed ? 1 : args->ldw, args->transposed ? args->ldw : 1};
    const int64_t pitch = ps3c_pitch(args->k);
    PS3C_CUDA_LAUNCH(run, "gemm", (pad_weight<T>), ps3c_cuda_blocks(count * pitch, 256), 256, 0,
                     (const T *)args->weight + first * view.output_step, view, count, args->k, pitch, (T *)c->weight);
    return PS3C_OK;
}

/* Outputs [first, first + count) of rows [row, row + rows), into y, whose rows are ldy apart. */
ps3c_status multiply(const ps3c_run *run, const ps3c_gemm_args *args, const gemm_plan *c, int64_t row, int64_t rows,
                     int64_t first, int64_t count, void *y, int64_t ldy)
{
    ps3c_lt_product g = {};
    bool done;
    g.rows = rows;
    g.planned = round_up(args->x->tokens > LEAST_PLANNED ? args->x->tokens : LEAST_PLANNED, 64);
    g.n = count;
    g.k = c->padded ? ps3c_pitch(args->k) : args->k;
    g.weight = c->padded ? c->weight : args->weight;
    g.ldw = c->padded ? g.k : args->ldw;
    g.transposed = args->transposed && !c->padded;
    g.bias = at(args->bias, first, c->size);
    g.gelu = c->gelu;
    g.ldx = ps3c_pitch(args->x->channels);
    g.x = at(args->x->data, row * g.ldx, c->size);
    if (c->add) {
        g.ldc = c->residual_pitch;
        g.c = at(args->residual->data, row * g.ldc + first, c->size);
    }
    g.y = y;
    g.ldy = ldy;
    g.workspace = c->workspace;
    if (c->padded)
        PS3C_CUDA_DISPATCH(run->dtype, T, PS3C_TRY(copy_weight<T>(run, args, c, first, count)));
    PS3C_TRY(ps3c_lt_multiply(run, &g, &done));
    if (!done)
        PS3C_CUDA_DISPATCH(run->dtype, T, PS3C_TRY(launch_plain<T>(run, &g)));
    return PS3C_OK;
}

/* Rows [row, row + rows): the product, then the epilogue. */
ps3c_status compute(const ps3c_run *run, const ps3c_gemm_args *args, const gemm_plan *c, int64_t row, int64_t rows)
{
    void *y = (void *)at(args->y->data, row * c->y_pitch, c->size);
    void *to = c->apart ? c->chunk : (void *)at(y, args->out_channel, c->size);
    const int64_t ld = c->apart ? ps3c_pitch(args->n) : c->y_pitch;
    const int64_t block = c->padded ? block_outputs(args->n, ps3c_pitch(args->k) * (int64_t)c->size) : args->n;
    for (int64_t first = 0; first < args->n; first += block) {
        const int64_t count = args->n - first < block ? args->n - first : block;
        PS3C_TRY(multiply(run, args, c, row, rows, first, count, (void *)at(to, first, c->size), ld));
    }
    if (c->after) {
        ps3c_epilogue e = {};
        e.rows = rows;
        e.n = args->n;
        e.in = to;
        e.in_pitch = ld;
        e.act = args->act;
        e.scale = args->scale;
        e.residual = args->residual ? at(args->residual->data, row * c->residual_pitch, c->size) : nullptr;
        e.residual_pitch = c->residual_pitch;
        e.y = y;
        e.y_channels = args->y->channels;
        e.channel = args->out_channel;
        return ps3c_epilogue_cuda(run, &e);
    }
    if (args->out_channel + args->n == args->y->channels)
        return ps3c_zero_pads_cuda(run, y, rows, args->y->channels);
    return PS3C_OK;
}

} // namespace

/* tokens: the maximum rows of a product; channels: the maximum inputs or outputs. */
size_t ps3c_gemm_cuda_scratch(ps3c_dtype dtype, int64_t tokens, int64_t channels)
{
    const int64_t row = ps3c_pitch(channels > 0 ? channels : 1) * (dtype == PS3C_FLOAT32 ? 4 : 2);
    /* The maximum bytes of a block: blocks of narrower rows have more outputs, up to WEIGHT_BYTES. */
    const int64_t block = LEAST_OUTPUTS * row > WEIGHT_BYTES ? LEAST_OUTPUTS * row : WEIGHT_BYTES;
    const int64_t weight = channels < block / row ? channels * row : block;
    const int64_t align = 256; /* for aligning the start of scratch to 256 bytes */
    return ps3c_lt_workspace_bytes() + (size_t)(align + round_up(weight, align) + chunk_bytes(tokens, row));
}

extern "C" ps3c_status ps3c_gemm_cuda(const ps3c_run *run, const ps3c_gemm_args *args)
{
    const gemm_plan c = plan_gemm(run, args);
    const int64_t most = c.apart ? chunk_rows(c.rows, ps3c_pitch(args->n) * (int64_t)c.size) : c.rows;
    for (int64_t row = 0; row < c.rows; row += most)
        PS3C_TRY(compute(run, args, &c, row, c.rows - row < most ? c.rows - row : most));
    return PS3C_OK;
}
