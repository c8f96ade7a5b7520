/* y = act(x W^T + bias) * scale + residual, plain C: torch.nn.functional.linear and what follows it in a block.
 * The reference of gemm.c, so sums are float64. It computes 48 tokens x 8 outputs at a time, so that each value of x is
 * converted once for eight outputs. */
#include "activate.h"
#include "threads.h"

enum { OUTPUTS = 8 };

/* Outputs [n0, n0 + count) of one panel. */
static void multiply(ps3c_dtype dtype, const ps3c_gemm_args *g, int64_t segment, int64_t first, int64_t n0, int count)
{
    double sum[OUTPUTS][PS3C_PANEL] = {{0}};
    int64_t lanes = g->x->tokens - first < PS3C_PANEL ? g->x->tokens - first : PS3C_PANEL;
    for (int64_t k = 0; k < g->k; k++) {
        double x[PS3C_PANEL];
        for (int64_t t = 0; t < lanes; t++)
            x[t] = ps3c_get(g->x, dtype, segment, first + t, k);
        for (int r = 0; r < count; r++) {
            double w = ps3c_load(dtype, g->weight, g->transposed ? k * g->ldw + n0 + r : (n0 + r) * g->ldw + k);
            for (int64_t t = 0; t < lanes; t++)
                sum[r][t] += w * x[t];
        }
    }
    for (int r = 0; r < count; r++) {
        int64_t n = n0 + r, channel = g->out_channel + n;
        double bias = g->bias ? ps3c_load(dtype, g->bias, n) : 0, scale = g->scale ? ps3c_load(dtype, g->scale, n) : 1;
        for (int64_t t = 0; t < lanes; t++) {
            double v = ps3c_activate(g->act, sum[r][t] + bias) * scale;
            if (g->residual)
                v += ps3c_get(g->residual, dtype, segment, first + t, n);
            ps3c_store(dtype, g->y->data, ps3c_element(g->y, dtype, segment, first + t, channel, n >= g->values_from),
                       (float)v);
            if (ps3c_is16(dtype) && channel % 2 == 0 && channel + 1 == g->y->channels)
                ps3c_set(g->y, dtype, segment, first + t, channel + 1, 0); /* the word's spare half */
        }
    }
}

typedef struct operation {
    const ps3c_run *run;
    const ps3c_gemm_args *args;
    int64_t panels, blocks; /* panels of a segment */
} operation;

/* One block of outputs of one panel. */
static void task(void *data, int64_t index, int thread)
{
    const operation *o = data;
    const int64_t i = index / o->blocks, n0 = index % o->blocks * OUTPUTS;
    const int64_t count = o->args->n - n0 < OUTPUTS ? o->args->n - n0 : OUTPUTS;
    (void)thread;
    multiply(o->run->dtype, o->args, i / o->panels, i % o->panels * PS3C_PANEL, n0, (int)count);
}

ps3c_status ps3c_gemm_naive(const ps3c_run *run, const ps3c_gemm_args *args)
{
    operation o = {run, args, ps3c_panels(args->x->tokens), (args->n + OUTPUTS - 1) / OUTPUTS};
    return ps3c_parallel(run, args->x->segments * o.panels * o.blocks, task, &o);
}
