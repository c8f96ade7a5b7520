/* What the native tests of CUDA operations share. Each program is one test_<group>.cpp that includes this once:
 *
 *     #include "check.h"
 *
 *     TEST(layernorm_small)
 *     {
 *         for (ps3c_dtype dtype : DTYPES) {
 *             both run(dtype, 10, 40);                     // at most 10 tokens of 40 channels
 *             twin x(run, 2, 5, 40, random_values(run, 2 * 5 * 40)), y(run, 2, 5, 40);
 *             elements weight(run, random_values(run, 40)), bias(run, random_values(run, 40));
 *             for (side s : SIDES) {
 *                 ps3c_layernorm_args args = {weight.on(s), bias.on(s), 1e-6f, PS3C_ACT_NONE, x.on(s), y.on(s)};
 *                 run.call(s, &ps3c_backend::layernorm, args);
 *             }
 *             y.compare(1e-6);                             // and the padding's zeros
 *             CHECK(x.is_unchanged(), "layernorm wrote its input");
 *         }
 *     }
 *
 * Both sides get the same numbers: NAIVE is the naive CPU backend, CUDA the emulated library's, called as the engine
 * calls it. Memory is of exact size, 256-byte aligned, filled with NaN, with guards behind it (under AddressSanitizer:
 * its own); scratch is what scratch_bytes promises, filled with NaN anew for each call. A CUDA operation that allocates
 * or waits ends the program. Nothing here depends on from_rows or to_rows of the CUDA side: the layout is stated again.
 *
 * The program's arguments name tests: those whose name has one of them in it run. SMALL() says that the configuration
 * is slow (sanitizers): leave out large shapes.
 */
#ifndef CHECK_H
#define CHECK_H

#include "../../kernels/cuda/cuda.cuh"

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define CHECK_ADDRESSES_WATCHED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CHECK_ADDRESSES_WATCHED 1
#endif
#endif

extern "C" const ps3c_cuda_library *ps3c_cuda_open(const ps3c_cuda_host *host);

namespace
{

/* ---- tests and their counting ------------------------------------------------------------------------------------ */

struct test_case {
    const char *name;
    void (*function)();
};
inline std::vector<test_case> &all_tests()
{
    static std::vector<test_case> tests;
    return tests;
}
struct registration {
    registration(const char *name, void (*function)()) { all_tests().push_back({name, function}); }
};
#define TEST(name)                                        \
    static void name();                                   \
    static const registration name##_entry(#name, &name); \
    static void name()

long failures_of_test;
std::string check_context; /* set by tests: which shape a failure belongs to */

__attribute__((format(printf, 3, 4))) void failed(const char *file, int line, const char *format, ...)
{
    if (failures_of_test++ >= 10)
        return;
    va_list args;
    va_start(args, format);
    printf("%s:%d: %s%s", file, line, check_context.c_str(), check_context.empty() ? "" : ": ");
    vprintf(format, args);
    putchar('\n');
    va_end(args);
}
/* A failure is counted and told of; the test goes on. */
#define CHECK(condition, ...)                        \
    do {                                             \
        if (!(condition))                            \
            failed(__FILE__, __LINE__, __VA_ARGS__); \
    } while (0)

/* What failures of the rest of the scope are about. */
struct about {
    std::string before = check_context;
    __attribute__((format(printf, 2, 3))) explicit about(const char *format, ...)
    {
        char text[400];
        va_list args;
        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        check_context += (check_context.empty() ? "" : ", ") + std::string(text);
    }
    ~about() { check_context = before; }
};

inline bool SMALL()
{
    const char *configuration = getenv("EMU_CHECK");
    return configuration && strcmp(configuration, "plain") != 0;
}

/* ---- random numbers: xorshift64, begun anew for each test -------------------------------------------------------- */

uint64_t random_state;
inline uint64_t random_bits()
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}
/* [-1, 1) */
inline double random_value() { return (double)(random_bits() >> 11) / 4503599627370496.0 - 1; }
/* [low, high] */
inline int64_t random_int(int64_t low, int64_t high)
{
    return low + (int64_t)((random_bits() >> 11) % (uint64_t)(high - low + 1));
}
inline bool random_bool() { return random_bits() >> 40 & 1; }

/* ---- dtypes ------------------------------------------------------------------------------------------------------ */

const ps3c_dtype DTYPES[] = {PS3C_FLOAT32, PS3C_FLOAT16, PS3C_BFLOAT16};

inline size_t element_bytes(ps3c_dtype dtype) { return dtype == PS3C_FLOAT32 ? 4 : 2; }
inline float get(ps3c_dtype dtype, const void *p, int64_t i)
{
    PS3C_CUDA_DISPATCH(dtype, T, return ps3c_to_float(((const T *)p)[i]));
}
inline void put(ps3c_dtype dtype, void *p, int64_t i, float value)
{
    PS3C_CUDA_DISPATCH(dtype, T, ((T *)p)[i] = ps3c_from_float<T>(value));
}
inline float rounded(ps3c_dtype dtype, float value)
{
    PS3C_CUDA_DISPATCH(dtype, T, return ps3c_to_float(ps3c_from_float<T>(value)));
}
/* One unit in the last place of the dtype at x, or more. */
inline double unit(ps3c_dtype dtype, double x)
{
    const double a = std::fabs(x);
    return dtype == PS3C_FLOAT32 ? a * 0x1p-23 : dtype == PS3C_BFLOAT16 ? a * 0x1p-7 : a * 0x1p-10 + 0x1p-24;
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

class memory
{
  public:
    explicit memory(size_t size) : bytes(size)
    {
        if (cudaMalloc(&block, bytes + GUARD + !bytes) != cudaSuccess)
            exit(2);
        fill(0xff);
        memset((char *)block + bytes, 0xa5, GUARD);
    }
    memory(const memory &) = delete;
    memory &operator=(const memory &) = delete;
    ~memory()
    {
        CHECK(is_intact(), "wrote beyond %zu bytes of memory", bytes);
        cudaFree(block);
    }
    void *data() const { return block; }
    void fill(int byte) { memset(block, byte, bytes); }
    bool is_intact() const
    {
        for (size_t i = 0; i < GUARD; i++)
            if (((const unsigned char *)block)[bytes + i] != 0xa5)
                return false;
        return true;
    }
    const size_t bytes;

  private:
#ifdef CHECK_ADDRESSES_WATCHED
    static constexpr size_t GUARD = 0;
#else
    static constexpr size_t GUARD = 256;
#endif
    void *block = nullptr;
};

/* ---- the two backends -------------------------------------------------------------------------------------------- */

enum side { NAIVE, CUDA };
const side SIDES[] = {NAIVE, CUDA};

inline ps3c_status leave_sentence(ps3c_context *context, ps3c_status status, const char *sentence)
{
    return ps3c_fail(context, status, "%s", sentence);
}
inline const ps3c_cuda_library *cuda_library()
{
    static const ps3c_cuda_host host = {PS3C_CUDA_ABI, sizeof(ps3c_backend), leave_sentence};
    static const ps3c_cuda_library *library = ps3c_cuda_open(&host);
    return library;
}
inline const ps3c_backend *backend_of(side s)
{
    const ps3c_backend *backend = nullptr;
    if (s == CUDA)
        return cuda_library()->backend;
    ps3c_cpu_source.find(nullptr, 0, "naive", &backend);
    return backend;
}

/* A run on each backend: activations of up to `tokens` tokens in all, of up to `channels` channels, and rank calls of
 * up to `positions` patches. */
class both
{
  public:
    both(ps3c_dtype type, int64_t tokens, int64_t channels, int64_t positions = 1, bool tf32 = false)
        : dtype(type), context(ps3c_context_create()),
          naive_scratch(backend_of(NAIVE)->scratch_bytes(type, 1, tokens, channels, positions)),
          cuda_scratch(backend_of(CUDA)->scratch_bytes(type, 1, tokens, channels, positions))
    {
        for (side s : SIDES) {
            runs[s] = ps3c_run();
            runs[s].context = context;
            runs[s].dtype = dtype;
            runs[s].threads = 1;
            runs[s].tf32 = s == CUDA && tf32;
            runs[s].scratch = scratch(s).data();
            runs[s].scratch_bytes = scratch(s).bytes;
        }
    }
    both(const both &) = delete;
    both &operator=(const both &) = delete;
    ~both() { ps3c_context_free(context); }

    /* The operation's status and sentence. */
    template <class Args>
    ps3c_status status_of(side s, ps3c_status (*ps3c_backend::*operation)(const ps3c_run *, const Args *),
                          const Args &args)
    {
        memory &room = scratch(s);
        room.fill(0xff);
        if (s == CUDA)
            emu_forbid_waiting(true);
        const ps3c_status status = (backend_of(s)->*operation)(&runs[s], &args);
        emu_forbid_waiting(false);
        CHECK(room.is_intact(), "wrote beyond the scratch of %zu bytes", room.bytes);
        return status;
    }
    const char *sentence() const { return ps3c_context_message(context); }

    /* The same, where it has to be OK. */
    template <class Args>
    void call(side s, ps3c_status (*ps3c_backend::*operation)(const ps3c_run *, const Args *), const Args &args)
    {
        const ps3c_status status = status_of(s, operation, args);
        CHECK(status == PS3C_OK, "%s: status %d: %s", s == CUDA ? "CUDA" : "naive", (int)status, sentence());
    }

    const ps3c_dtype dtype;
    ps3c_context *const context;
    ps3c_run runs[2];

  private:
    memory &scratch(side s) { return s == CUDA ? cuda_scratch : naive_scratch; }
    memory naive_scratch, cuda_scratch;
};

/* count random values of the run's dtype in [shift - scale, shift + scale). */
inline std::vector<float> random_values(const both &run, int64_t count, double scale = 1, double shift = 0)
{
    std::vector<float> values((size_t)count);
    for (float &value : values)
        value = rounded(run.dtype, (float)(random_value() * scale + shift));
    return values;
}

/* ---- comparison -------------------------------------------------------------------------------------------------- */

/* got within arithmetic * (|want| + magnitude), and a unit in the last place of dtype; NaN and Inf are equal to
 * themselves. exact: the same value. */
struct comparison {
    ps3c_dtype dtype;
    double arithmetic, magnitude;
    bool exact;
    double worst = 0; /* error over what is allowed */
    int64_t wrong = 0;

    bool is_close(float got, float want)
    {
        if ((std::isnan(got) && std::isnan(want)) || got == want)
            return true;
        const double allowed = exact ? 0
                                     : arithmetic * (std::fabs((double)want) + magnitude) +
                                           unit(dtype, std::fabs((double)want) + arithmetic * magnitude);
        const double error = std::fabs((double)got - want), ratio = error / allowed;
        worst = ratio > worst ? ratio : worst;
        return error <= allowed;
    }
    /* Tells of the first. */
    void see(float got, float want, const char *what, int64_t a, int64_t b, int64_t c)
    {
        if (!is_close(got, want) && !wrong++)
            failed(what, 0, "at [%lld][%lld][%lld]: got %.9g, expected %.9g", (long long)a, (long long)b, (long long)c,
                   got, want);
    }
    void conclude(const char *what, int64_t count) const
    {
        if (wrong)
            failed(what, 0, "%lld of %lld values wrong, at most %.3g times the tolerance", (long long)wrong,
                   (long long)count, worst);
    }
};

/* ---- what operations work on ------------------------------------------------------------------------------------- */

/* An activation on both backends: with the same rows ([segment][token][channel], values of the dtype), or NaN. */
class twin
{
  public:
    twin(both &r, int64_t segments, int64_t tokens, int64_t channels)
        : run(r), naive_memory(backend_of(NAIVE)->activation_bytes(r.dtype, segments, tokens, channels)),
          cuda_memory(backend_of(CUDA)->activation_bytes(r.dtype, segments, tokens, channels)),
          activations{{naive_memory.data(), segments, tokens, channels},
                      {cuda_memory.data(), segments, tokens, channels}}
    {
    }
    twin(both &r, int64_t segments, int64_t tokens, int64_t channels, const std::vector<float> &values)
        : twin(r, segments, tokens, channels)
    {
        set(values);
    }
    const ps3c_activation *on(side s) const { return &activations[s]; }

    void set(const std::vector<float> &values)
    {
        const ps3c_activation &a = activations[CUDA];
        if ((int64_t)values.size() != count())
            exit(2);
        written = values;
        memory rows((size_t)count() * element_bytes(run.dtype));
        for (int64_t i = 0; i < count(); i++)
            put(run.dtype, rows.data(), i, values[(size_t)i]);
        run.call(NAIVE, &ps3c_backend::from_rows, ps3c_from_rows_args{rows.data(), on(NAIVE)});
        const int64_t pitch = ps3c_pitch(a.channels);
        for (int64_t i = 0; i < a.segments * a.tokens; i++)
            for (int64_t c = 0; c < pitch; c++)
                put(run.dtype, a.data, i * pitch + c, c < a.channels ? values[(size_t)(i * a.channels + c)] : 0.0f);
    }

    std::vector<float> rows(side s)
    {
        const ps3c_activation &a = activations[s];
        std::vector<float> values((size_t)count());
        if (s == CUDA) {
            for (int64_t i = 0; i < a.segments * a.tokens; i++)
                for (int64_t c = 0; c < a.channels; c++)
                    values[(size_t)(i * a.channels + c)] = get(run.dtype, a.data, i * ps3c_pitch(a.channels) + c);
            return values;
        }
        memory plain((size_t)count() * element_bytes(run.dtype));
        ps3c_to_rows_args args = {on(NAIVE), nullptr, a.segments, 0, plain.data(), a.channels, a.tokens * a.channels};
        if (count())
            run.call(NAIVE, &ps3c_backend::to_rows, args);
        for (int64_t i = 0; i < count(); i++)
            values[(size_t)i] = get(run.dtype, plain.data(), i);
        return values;
    }

    /* CUDA's against naive: see `comparison`. And the padding channels are zero. */
    void compare(double arithmetic, double magnitude = 1, bool exact = false)
    {
        compare_with(rows(NAIVE), arithmetic, magnitude, exact);
    }
    void compare_exact() { compare(0, 0, true); }
    void compare_with(const std::vector<float> &want, double arithmetic, double magnitude = 1, bool exact = false)
    {
        const ps3c_activation &a = activations[CUDA];
        const std::vector<float> got = rows(CUDA);
        comparison values = {run.dtype, arithmetic, magnitude, exact};
        for (int64_t i = 0; i < count(); i++)
            values.see(got[(size_t)i], want[(size_t)i], "activation", i / a.channels / a.tokens,
                       i / a.channels % a.tokens, i % a.channels);
        values.conclude("activation", count());
        CHECK(pads_are_zero(), "padding channels are not zero");
    }
    bool pads_are_zero() const
    {
        const ps3c_activation &a = activations[CUDA];
        const int64_t pitch = ps3c_pitch(a.channels);
        for (int64_t i = 0; i < a.segments * a.tokens; i++)
            for (int64_t c = a.channels; c < pitch; c++)
                if (!(get(run.dtype, a.data, i * pitch + c) == 0.0f))
                    return false;
        return true;
    }
    /* Compares bits. A NaN counts as changed in a 16-bit type, because the conversion there and back changes its bits.
     */
    bool is_unchanged()
    {
        const std::vector<float> now = rows(CUDA);
        return memcmp(now.data(), written.data(), now.size() * 4) == 0 && pads_are_zero();
    }
    int64_t count() const { return activations[0].segments * activations[0].tokens * activations[0].channels; }

  private:
    both &run;
    memory naive_memory, cuda_memory;
    const ps3c_activation activations[2];
    std::vector<float> written;
};

/* An array of T (float, int32_t, uint8_t, ...) on both sides: with values, or 0xff throughout. */
template <class T> class array
{
  public:
    explicit array(int64_t size)
        : count(size), naive_memory((size_t)size * sizeof(T)), cuda_memory((size_t)size * sizeof(T))
    {
    }
    explicit array(const std::vector<T> &values) : array((int64_t)values.size())
    {
        for (side s : SIDES)
            std::copy(values.begin(), values.end(), on(s));
    }
    T *on(side s) const { return (T *)(s == CUDA ? cuda_memory : naive_memory).data(); }
    T at(side s, int64_t i) const { return on(s)[i]; }
    void compare(double arithmetic, double magnitude = 1, bool exact = false)
    {
        comparison values = {PS3C_FLOAT32, arithmetic, magnitude, exact};
        for (int64_t i = 0; i < count; i++)
            values.see((float)at(CUDA, i), (float)at(NAIVE, i), "array", 0, 0, i);
        values.conclude("array", count);
    }
    /* Bit for bit. */
    void compare_exact()
    {
        int64_t i = 0;
        while (i < count && !memcmp(on(CUDA) + i, on(NAIVE) + i, sizeof(T)))
            i++;
        CHECK(i == count, "array at [%lld]: got %.9g, expected %.9g", (long long)i, (double)at(CUDA, i),
              (double)at(NAIVE, i));
    }
    const int64_t count;

  private:
    memory naive_memory, cuda_memory;
};

/* Plain elements of the run's dtype (weights, maps, rows of output) on both sides, `offset` elements from alignment. */
class elements
{
  public:
    elements(const both &run, int64_t size, int64_t offset = 0)
        : count(size), dtype(run.dtype), skipped((size_t)offset * element_bytes(dtype)),
          naive_memory((size_t)size * element_bytes(dtype) + skipped),
          cuda_memory((size_t)size * element_bytes(dtype) + skipped)
    {
    }
    elements(const both &run, const std::vector<float> &values, int64_t offset = 0)
        : elements(run, (int64_t)values.size(), offset)
    {
        for (side s : SIDES)
            for (int64_t i = 0; i < count; i++)
                put(dtype, on(s), i, values[(size_t)i]);
    }
    void *on(side s) const { return (char *)(s == CUDA ? cuda_memory : naive_memory).data() + skipped; }
    float at(side s, int64_t i) const { return get(dtype, on(s), i); }
    void compare(double arithmetic, double magnitude = 1, bool exact = false)
    {
        comparison values = {dtype, arithmetic, magnitude, exact};
        for (int64_t i = 0; i < count; i++)
            values.see(at(CUDA, i), at(NAIVE, i), "elements", 0, 0, i);
        values.conclude("elements", count);
    }
    void compare_exact() { compare(0, 0, true); }
    const int64_t count;

  private:
    const ps3c_dtype dtype;
    const size_t skipped;
    memory naive_memory, cuda_memory;
};

/* A contiguous tensor over memory of a side. */
inline ps3c_tensor tensor_over(side s, void *data, ps3c_dtype dtype, std::initializer_list<int64_t> shape)
{
    ps3c_tensor tensor = {};
    tensor.data = data;
    tensor.dtype = dtype;
    tensor.device.type = s == CUDA ? PS3C_CUDA : PS3C_CPU;
    for (int64_t extent : shape)
        tensor.shape[tensor.ndim++] = extent;
    int64_t stride = 1;
    for (int d = tensor.ndim - 1; d >= 0; d--) {
        tensor.strides[d] = stride;
        stride *= tensor.shape[d];
    }
    return tensor;
}

} // namespace

int main(int argc, char **argv)
{
    int passed = 0, failed_tests = 0;
    setvbuf(stdout, nullptr, _IOLBF, 0);
    for (const test_case &test : all_tests()) {
        bool wanted = argc < 2;
        for (int i = 1; i < argc; i++)
            wanted = wanted || strstr(test.name, argv[i]);
        if (!wanted)
            continue;
        failures_of_test = 0;
        check_context.clear();
        random_state = 88172645463325252ull;
        test.function();
        if (failures_of_test) {
            printf("FAILED %s: %ld failures\n", test.name, failures_of_test);
            failed_tests++;
        } else {
            passed++;
        }
    }
    printf("%d passed, %d failed\n", passed, failed_tests);
    return failed_tests || !passed ? 1 : 0;
}

#endif
