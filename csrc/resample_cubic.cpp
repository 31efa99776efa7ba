#include "resample_cubic.hpp"

#include <algorithm>
#include <memory>

#include "parallel.hpp"
#include "voxel.hpp"

namespace voxelcore {
namespace {

constexpr Index rows_per_block = 64;

// The weighted sum of the four rows (row_stride apart, mirrored) that output i of an axis is made of.
void blend(const float* rows, Index row_stride, const CubicAxis& axis, Index i, Index count, float* out) {
    const Index lower = axis.lower[static_cast<std::size_t>(i)];
    if (axis.is_identity()) {
        std::copy_n(rows + lower * row_stride, count, out);
        return;
    }
    const auto [w0, w1, w2, w3] = axis.weight[static_cast<std::size_t>(i)];
    const float* r0 = rows + mirrored(lower - 1, axis.n_in) * row_stride;
    const float* r1 = rows + lower * row_stride;
    const float* r2 = rows + mirrored(lower + 1, axis.n_in) * row_stride;
    const float* r3 = rows + mirrored(lower + 2, axis.n_in) * row_stride;
    for (Index k = 0; k < count; ++k) out[k] = (w0 * r0[k] + w1 * r1[k]) + (w2 * r2[k] + w3 * r3[k]);
}

// `row` holds the coefficients from index 1 on, and room for one mirrored coefficient before and two behind.
template <class T>
void interpolate_x(float* row, const CubicAxis& axis, T* out) {
    const Index n = axis.n_in;
    if (axis.is_identity()) {
        for (Index i = 0; i < n; ++i) out[i] = from_float<T>(row[1 + i]);
        return;
    }
    row[0] = row[1 + mirrored(-1, n)];
    row[1 + n] = row[1 + mirrored(n, n)];
    row[2 + n] = row[1 + mirrored(n + 1, n)];
    for (std::size_t i = 0; i < axis.lower.size(); ++i) {
        const float* taps = row + axis.lower[i];
        const auto& weight = axis.weight[i];
        out[i] = from_float<T>((weight[0] * taps[0] + weight[1] * taps[1]) +
                               (weight[2] * taps[2] + weight[3] * taps[3]));
    }
}

}  // namespace

template <class T>
void resample_cubic(const T* volume, const CubicPlan& plan, T* out, int threads) {
    const Zyx in = plan.shape_in();
    const Zyx shape = plan.shape_out();
    const auto coefficients = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(in.voxels()));
    spline_coefficients(volume, plan, coefficients.get(), threads);

    const Index blocks = (shape.y + rows_per_block - 1) / rows_per_block;
    parallel_for(shape.z * blocks, 1, threads, [&](Index begin, Index end) {
        std::vector<float> slab(static_cast<std::size_t>(in.y * in.x));  // one source plane at an output z
        std::vector<float> row(static_cast<std::size_t>(in.x) + 3);
        for (Index block = begin; block < end; ++block) {
            const Index z = block / blocks;
            const Index first_y = block % blocks * rows_per_block;
            const Index stop_y = std::min(first_y + rows_per_block, shape.y);
            // Mirrored rows lie within two of the end, so this range holds them too.
            const Index first_row = std::max<Index>(plan.y.lower[static_cast<std::size_t>(first_y)] - 2, 0);
            const Index stop_row =
                std::min<Index>(plan.y.lower[static_cast<std::size_t>(stop_y - 1)] + 3, in.y);
            blend(coefficients.get() + first_row * in.x, in.y * in.x, plan.z, z,
                  (stop_row - first_row) * in.x, slab.data() + first_row * in.x);
            for (Index y = first_y; y < stop_y; ++y) {
                blend(slab.data(), in.x, plan.y, y, in.x, row.data() + 1);
                interpolate_x(row.data(), plan.x, out + (z * shape.y + y) * shape.x);
            }
        }
    });
}

template void resample_cubic(const std::int16_t*, const CubicPlan&, std::int16_t*, int);
template void resample_cubic(const float*, const CubicPlan&, float*, int);

}  // namespace voxelcore
