/* Warp functions and tensor core products: the last lane to arrive works on the operands of all lanes. */
#include "scheduler.h"

namespace emu
{

namespace
{

using work = void (*)(void **slots, unsigned mask);

void collective(unsigned mask, const char *name, site where, void *operands, work what, bool orders_memory = false)
{
    tsan_ignore ignore;
    fiber *me = current;
    warp &w = *me->of;
    if (!(mask >> me->lane & 1))
        fail(where, "%s: lane %u is not in its own mask %08x", name, me->lane, mask);
    meeting &m = w.meetings[__builtin_ctz(mask)];
    m.arrive(name, where);
    if (m.arrived == 1) {
        m.mask = mask;
        for (int i = 0; i < 32; i++)
            if (mask >> i & 1 && (!w.fibers[i] || w.fibers[i]->done))
                fail(where, "%s: mask %08x has lane %d, which %s", name, mask, i,
                     w.fibers[i] ? "has ended" : "the block does not have");
    }
    if (m.mask != mask)
        fail(where, "%s: masks differ, %08x and %08x", name, mask, m.mask);
    void *sync = m.token();
    if (orders_memory)
        release(sync);
    w.slots[me->lane] = operands;
    if (m.arrived == (unsigned)__builtin_popcount(mask)) {
        if (what)
            what(w.slots, mask);
        m.arrived = 0;
        m.generation++;
        for (int i = 0; i < 32; i++)
            if (mask >> i & 1 && w.fibers[i] != me)
                wake(w.fibers[i]);
        if (the_block->seed)
            yield();
    } else {
        wait(name, where);
    }
    if (orders_memory)
        acquire(sync);
}

/* Calls f(lane, operands) for the mask's lanes. */
template <class T, class F> void each_lane(void **slots, unsigned mask, F f)
{
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1)
            f(i, static_cast<T *>(slots[i]));
}

float half_value(unsigned h)
{
    struct table {
        float at[65536];
        table()
        {
            for (unsigned i = 0; i < 65536; i++)
                at[i] = __half2float(__ushort_as_half((unsigned short)i));
        }
    };
    static const table *values = new table();
    return values->at[h];
}

/* ---- products ---------------------------------------------------------------------------------------------------- */

struct mma_operands {
    mma_kind kind;
    float *d;
    const uint32_t *a, *b;
    site where;
};

float tf32_value(const mma_operands *o, uint32_t u)
{
    if (u & 0x1fffu && (u & 0x7fffffffu) <= 0x7f800000u)
        fail(o->where, "mma: %08x is no TF32 number; to_tf32 makes one", u);
    return bits<float>(u);
}

/* The two 16-bit elements of a word. */
void unpack(bool bf16, uint32_t pair, float *to, int step)
{
    to[0] = bf16 ? bits<float>(pair << 16) : half_value(pair & 0xffff);
    to[step] = bf16 ? bits<float>(pair & 0xffff0000u) : half_value(pair >> 16);
}

void multiply(void **slots, unsigned mask)
{
    float a[16][16], b[16][8], d[16][8];
    const mma_kind kind = static_cast<mma_operands *>(slots[0])->kind;
    const bool bf16 = kind == mma_kind::bf16_k16 || kind == mma_kind::bf16_k8, tf32 = kind == mma_kind::tf32_k8;
    const int depth = kind == mma_kind::bf16_k16 || kind == mma_kind::f16_k16 ? 16 : 8;
    each_lane<mma_operands>(slots, mask, [&](int lane, mma_operands *o) {
        const int g = lane / 4, t = lane % 4;
        if (tf32) {
            for (int r = 0; r < 4; r++)
                a[g + r % 2 * 8][t + r / 2 * 4] = tf32_value(o, o->a[r]);
            for (int r = 0; r < 2; r++)
                b[t + r * 4][g] = tf32_value(o, o->b[r]);
        } else {
            for (int r = 0; r < depth / 4; r++)
                unpack(bf16, o->a[r], &a[g + r % 2 * 8][2 * t + r / 2 * 8], 1);
            for (int r = 0; r < depth / 8; r++)
                unpack(bf16, o->b[r], &b[2 * t + r * 8][g], 8);
        }
        for (int r = 0; r < 4; r++)
            d[g + r / 2 * 8][2 * t + r % 2] = o->d[r];
    });
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < depth; k++)
            for (int j = 0; j < 8; j++)
                d[i][j] += a[i][k] * b[k][j];
    each_lane<mma_operands>(slots, mask, [&](int lane, mma_operands *o) {
        for (int r = 0; r < 4; r++)
            o->d[r] = d[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2];
    });
}

} // namespace

void mma(mma_kind kind, float *d, const uint32_t *a, const uint32_t *b, site where)
{
    mma_operands mine = {kind, d, a, b, where};
    collective(~0u, "mma", where, &mine, multiply);
}

void warp_ldmatrix(uint32_t *out, int count, bool transposed, const uint32_t (&row)[4], site where)
{
    struct operands {
        uint16_t row[8];
        uint32_t *out;
        int count;
        bool transposed;
    } mine = {{}, out, count, transposed};
    {
        tsan_ignore ignore;
        memcpy(mine.row, row, sizeof mine.row);
    }
    collective(~0u, "ldmatrix", where, &mine, [](void **slots, unsigned mask) {
        auto element = [&](int matrix, int r, int c) -> uint32_t {
            return static_cast<operands *>(slots[8 * matrix + r])->row[c];
        };
        each_lane<operands>(slots, mask, [&](int lane, operands *o) {
            const int g = lane / 4, c = lane % 4 * 2;
            for (int m = 0; m < o->count; m++)
                o->out[m] = o->transposed ? element(m, c, g) | element(m, c + 1, g) << 16
                                          : element(m, g, c) | element(m, g, c + 1) << 16;
        });
    });
}

/* ---- votes, matches, sums ---------------------------------------------------------------------------------------- */

void warp_sync(unsigned mask, site where) { collective(mask, "__syncwarp", where, nullptr, nullptr, true); }

unsigned warp_ballot(unsigned mask, const char *name, int predicate, site where)
{
    struct operands {
        int predicate;
        unsigned result;
    } mine = {predicate, 0};
    collective(mask, name, where, &mine, [](void **slots, unsigned mask) {
        unsigned result = 0;
        each_lane<operands>(slots, mask, [&](int lane, operands *o) { result |= (o->predicate ? 1u : 0u) << lane; });
        each_lane<operands>(slots, mask, [&](int, operands *o) { o->result = result; });
    });
    return mine.result;
}

unsigned warp_match(unsigned mask, uint64_t value, site where)
{
    struct operands {
        uint64_t value;
        unsigned result;
    } mine = {value, 0};
    collective(mask, "__match_any_sync", where, &mine, [](void **slots, unsigned mask) {
        each_lane<operands>(slots, mask, [&](int, operands *o) {
            each_lane<operands>(slots, mask, [&](int lane, operands *other) {
                o->result |= (o->value == other->value ? 1u : 0u) << lane;
            });
        });
    });
    return mine.result;
}

int64_t warp_reduce(unsigned mask, const char *name, reduction kind, int64_t value, site where)
{
    struct operands {
        reduction kind;
        int64_t value, result;
    } mine = {kind, value, 0};
    collective(mask, name, where, &mine, [](void **slots, unsigned mask) {
        int64_t result = 0;
        bool first = true;
        each_lane<operands>(slots, mask, [&](int, operands *o) {
            const int64_t v = o->value;
            result = first                         ? v
                     : o->kind == reduction::sum   ? result + v
                     : o->kind == reduction::least ? (v < result ? v : result)
                     : o->kind == reduction::most  ? (v > result ? v : result)
                     : o->kind == reduction::and_  ? result & v
                     : o->kind == reduction::or_   ? result | v
                                                   : result ^ v;
            first = false;
        });
        each_lane<operands>(slots, mask, [&](int, operands *o) { o->result = result; });
    });
    return mine.result;
}

/* ---- shuffles ---------------------------------------------------------------------------------------------------- */

void warp_shuffle(unsigned mask, const char *name, shuffle kind, void *value, size_t bytes, int argument, int width,
                  site where)
{
    if (width < 1 || width > 32 || width & (width - 1))
        fail(where, "%s: width %d", name, width);
    const int lane = (int)self->lane, first = lane & ~(width - 1), last = first + width - 1;
    int from = lane;
    if (kind == shuffle::index)
        from = first | (argument & (width - 1));
    else if (kind == shuffle::up)
        from = argument <= lane - first ? lane - argument : lane;
    else if (kind == shuffle::down)
        from = argument <= last - lane ? lane + argument : lane;
    else
        from = (lane ^ argument) > last ? lane : lane ^ argument;
    if (from < 0 || from > 31 || !(mask >> from & 1))
        fail(where, "%s: lane %d reads lane %d, not in mask %08x", name, lane, from, mask);
    struct operands {
        char in[16], out[16];
        int from;
    } mine = {{}, {}, from};
    {
        tsan_ignore ignore;
        memcpy(mine.in, value, bytes);
    }
    collective(mask, name, where, &mine, [](void **slots, unsigned mask) {
        each_lane<operands>(
            slots, mask, [&](int, operands *to) { memcpy(to->out, static_cast<operands *>(slots[to->from])->in, 16); });
    });
    tsan_ignore ignore;
    memcpy(value, mine.out, bytes);
}

} // namespace emu
