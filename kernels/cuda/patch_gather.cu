/* Patches of the image by bicubic resampling, straight from the source, for the selected positions only.
 *
 * A warp computes 32 columns of a patch, whose three colour channels lie side by side (42 columns at 14 pixels: two
 * warps), row by row. Each lane holds the taps of its own column. Source rows are resampled along x when they are first
 * needed, and the last four stay in registers: output row y needs source rows first(y) - 1 .. first(y) + 2, first()
 * never decreases, and at the usual ratios it grows by 0 or 1. first() and the four weights of a row are the same for
 * the whole warp: lane y computes them for row y and the warp reads them by shuffle, 32 rows at a time.
 *
 * Each value is sum over 4 rows of wy * (sum over 4 columns of wx * pixel). Weights of zero are not skipped, so that
 * NaN and infinity propagate as in torch's interpolate. The result does not depend on which rows were still in
 * registers. */
#include "resample.cuh"
#include "tokens.cuh"

namespace
{

struct gather_args {
    ps3c_cuda_scales scales;
    const int32_t *positions;
    int64_t rows, tokens, pitch; /* of out */
    int64_t patch, chunks;       /* chunks: of 32 columns, per patch */
    int64_t batch, height, width, stride[4];
};

/* A lane's column: offsets of its four taps in a source row, and their weights. */
struct column {
    int64_t offset[4];
    float weight[4];
};

__device__ __forceinline__ column column_of(const gather_args &a, int64_t scaled_width, int64_t x)
{
    const ps3c_cuda_bicubic taps = ps3c_cuda_bicubic_taps(a.width, scaled_width, x);
    column c;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        c.offset[k] = ps3c_cuda_clamp(taps.first + k - 1, 0, a.width - 1) * a.stride[3];
        c.weight[k] = taps.weight[k];
    }
    return c;
}

/* Row `row` (clamped) of the source, resampled along x. */
template <class T>
__device__ __forceinline__ float resample_row(const gather_args &a, const column &c, const T *plane, int64_t row)
{
    const T *from = plane + ps3c_cuda_clamp(row, 0, a.height - 1) * a.stride[2];
    float sum = c.weight[0] * ps3c_to_float(from[c.offset[0]]);
#pragma unroll
    for (int k = 1; k < 4; k++)
        sum = __fmaf_rn(c.weight[k], ps3c_to_float(from[c.offset[k]]), sum);
    return sum;
}

/* Resamples a column of a patch whose first row is row `top` of the scale. All lanes take part; active ones write. */
template <class T>
__device__ __forceinline__ void resample_column(const gather_args &a, const column &c, const T *plane,
                                                int64_t scaled_height, int64_t top, T *to, bool active)
{
    const int lane = threadIdx.x % 32, patch = (int)a.patch;
    float line[4] = {};
    int64_t have = -6; /* line[k] is source row have - 1 + k; first() starts at -1, so all four are read then */
    for (int begin = 0; begin < patch; begin += 32) {
        const int rows = patch - begin < 32 ? patch - begin : 32;
        const ps3c_cuda_bicubic own =
            ps3c_cuda_bicubic_taps(a.height, scaled_height, top + begin + (lane < rows ? lane : rows - 1));
        for (int y = 0; y < rows; y++) {
            const int64_t first = __shfl_sync(0xffffffffu, own.first, y), step = first - have;
            if (step == 1) {
                line[0] = line[1];
                line[1] = line[2];
                line[2] = line[3];
                line[3] = resample_row(a, c, plane, first + 2);
            } else if (step != 0) { /* four rows at once, so that their loads overlap */
#pragma unroll
                for (int k = 0; k < 4; k++)
                    line[k] = resample_row(a, c, plane, first - 1 + k);
            }
            have = first;
            float sum = __shfl_sync(0xffffffffu, own.weight[0], y) * line[0];
#pragma unroll
            for (int k = 1; k < 4; k++)
                sum = __fmaf_rn(__shfl_sync(0xffffffffu, own.weight[k], y), line[k], sum);
            if (active)
                to[(int64_t)(begin + y) * patch] = ps3c_from_float<T>(sum);
        }
    }
}

template <class T>
__global__ void __launch_bounds__(PS3C_ROW_WARPS * 32) gather_patches(gather_args a, const T *pixels, T *out)
{
    const int lane = threadIdx.x % 32;
    const int64_t area = a.patch * a.patch, channels = 3 * area, columns = 3 * a.patch;
    for (int64_t unit = ps3c_cuda_first_row(); unit < a.rows * a.chunks; unit += ps3c_cuda_row_step()) {
        const int64_t row = unit / a.chunks, chunk = unit - row * a.chunks;
        const ps3c_cuda_patch at = ps3c_cuda_locate(a.scales, a.positions, a.tokens, row);
        const ps3c_scale *scale = &a.scales.at[at.scale];
        const int64_t number = chunk * 32 + lane, own = number < columns ? number : columns - 1;
        const int64_t colour = own / a.patch, x = own - colour * a.patch;
        const column c = column_of(a, scale->width, at.col * a.patch + x);
        const T *plane = pixels + row / a.tokens % a.batch * a.stride[0] + colour * a.stride[1];
        T *to = out + row * a.pitch;
        resample_column(a, c, plane, scale->height, at.row * a.patch, to + colour * area + x, number < columns);
        if (chunk == 0 && lane < a.pitch - channels)
            to[channels + lane] = ps3c_from_float<T>(0.0f);
    }
}

template <class T> ps3c_status launch(const ps3c_run *run, const ps3c_patch_gather_args *args)
{
    const ps3c_tensor *pixels = args->pixels;
    gather_args a = {};
    a.scales = ps3c_cuda_scales_of(args->scales, args->num_scales);
    a.positions = args->positions;
    a.rows = args->out->segments * args->out->tokens;
    a.tokens = args->out->tokens;
    a.pitch = ps3c_pitch(args->out->channels);
    a.patch = args->patch;
    a.chunks = (3 * args->patch + 31) / 32;
    a.batch = pixels->shape[0];
    a.height = pixels->shape[2];
    a.width = pixels->shape[3];
    for (int i = 0; i < 4; i++)
        a.stride[i] = pixels->strides[i];
    if (a.rows)
        PS3C_CUDA_LAUNCH_ROWS(run, "patch_gather", (gather_patches<T>), a.rows * a.chunks, a, (const T *)pixels->data,
                              (T *)args->out->data);
    return PS3C_OK;
}

} // namespace

extern "C" ps3c_status ps3c_patch_gather_cuda(const ps3c_run *run, const ps3c_patch_gather_args *args)
{
    PS3C_CUDA_DISPATCH(run->dtype, T, return launch<T>(run, args));
}
