#include "spline.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "axis.hpp"
#include "parallel.hpp"
#include "voxel.hpp"

namespace voxelcore {
namespace {

constexpr double pole = std::numbers::sqrt3 - 2.0;
constexpr double gain = 6.0;
constexpr Index most_lanes = 32;
constexpr Index horizon = 64;  // |pole|^64 is below 1e-36

CubicAxis cubic_axis(Index n_in, Index n_out) {
    const LinearAxis linear = linear_axis(n_in, n_out);
    CubicAxis axis{n_in, linear.lower, std::vector<std::array<float, 4>>(linear.lower.size())};
    for (std::size_t i = 0; i < axis.weight.size(); ++i) {
        const double t = static_cast<double>(linear.exact[i]) / static_cast<double>(linear.denominator);
        const double s = 1.0 - t;
        axis.weight[i] = {
            static_cast<float>(s * s * s / 6.0), static_cast<float>((4.0 - 3.0 * t * t * (1.0 + s)) / 6.0),
            static_cast<float>((4.0 - 3.0 * s * s * (1.0 + t)) / 6.0), static_cast<float>(t * t * t / 6.0)};
    }
    return axis;
}

// What each of the first voxels adds to the first value of the causal filter, when the line is mirrored
// without end.
std::vector<double> initial_weights(Index n) {
    std::vector<double> weights(static_cast<std::size_t>(std::min(n, horizon)));
    const auto period = static_cast<double>(2 * n - 2);
    for (std::size_t k = 0; k < weights.size(); ++k) {
        const auto at = static_cast<double>(k);
        const bool is_end = k == 0 || static_cast<Index>(k) == n - 1;
        weights[k] = (std::pow(pole, at) + (is_end ? 0.0 : std::pow(pole, period - at))) /
                     (1.0 - std::pow(pole, period));
    }
    return weights;
}

// Filter up to most_lanes lines of n >= 2 values side by side, in place: value i of lane j is panel[i *
// most_lanes + j].
void filter_panel(double* panel, Index n, const std::vector<double>& initial) {
    std::array<double, most_lanes> first{};
    for (std::size_t k = 0; k < initial.size(); ++k)
        for (Index j = 0; j < most_lanes; ++j)
            first[static_cast<std::size_t>(j)] +=
                gain * initial[k] * panel[static_cast<Index>(k) * most_lanes + j];
    std::ranges::copy(first, panel);
    for (Index i = 1; i < n; ++i) {
        double* line = panel + i * most_lanes;
        const double* previous = line - most_lanes;
        for (Index j = 0; j < most_lanes; ++j) line[j] = gain * line[j] + pole * previous[j];
    }
    double* last = panel + (n - 1) * most_lanes;
    for (Index j = 0; j < most_lanes; ++j)
        last[j] = pole / (pole * pole - 1.0) * (last[j] + pole * (last - most_lanes)[j]);
    for (Index i = n - 2; i >= 0; --i) {
        double* line = panel + i * most_lanes;
        const double* next = line + most_lanes;
        for (Index j = 0; j < most_lanes; ++j) line[j] = pole * (next[j] - line[j]);
    }
}

// Lines of n values `stride` apart. There are groups * per_group of them; lines of a group are `lane_stride`
// apart.
struct Lines {
    Index n;
    Index stride;
    Index groups;
    Index group_stride;
    Index per_group;
    Index lane_stride;
};

template <class T>
void filter_lines(const T* source, float* target, const Lines& lines, int threads) {
    const std::vector<double> initial = initial_weights(lines.n);
    const Index panels = (lines.per_group + most_lanes - 1) / most_lanes;
    parallel_for(lines.groups * panels, 1, threads, [&](Index begin, Index end) {
        std::vector<double> panel(static_cast<std::size_t>(lines.n * most_lanes));
        for (Index piece = begin; piece < end; ++piece) {
            const Index first_lane = piece % panels * most_lanes;
            const Index lanes = std::min(most_lanes, lines.per_group - first_lane);
            const Index offset = piece / panels * lines.group_stride + first_lane * lines.lane_stride;
            for (Index i = 0; i < lines.n; ++i)
                for (Index j = 0; j < lanes; ++j)
                    panel[static_cast<std::size_t>(i * most_lanes + j)] =
                        to_float(source[offset + i * lines.stride + j * lines.lane_stride]);
            filter_panel(panel.data(), lines.n, initial);
            for (Index i = 0; i < lines.n; ++i)
                for (Index j = 0; j < lanes; ++j)
                    target[offset + i * lines.stride + j * lines.lane_stride] =
                        static_cast<float>(panel[static_cast<std::size_t>(i * most_lanes + j)]);
        }
    });
}

bool needs_filter(const CubicAxis& axis) { return !axis.is_identity() && axis.n_in > 1; }

}  // namespace

CubicPlan cubic_plan(Zyx shape_in, Zyx shape_out) {
    return {cubic_axis(shape_in.z, shape_out.z), cubic_axis(shape_in.y, shape_out.y),
            cubic_axis(shape_in.x, shape_out.x)};
}

Index mirrored(Index index, Index n) {
    if (n == 1) return 0;
    const Index period = 2 * n - 2;
    const Index within = ((index % period) + period) % period;
    return std::min(within, period - within);
}

template <class T>
void spline_coefficients(const T* volume, const CubicPlan& plan, float* coefficients, int threads) {
    const auto [n_z, n_y, n_x] = plan.shape_in();
    const Index plane = n_y * n_x;
    if (needs_filter(plan.x)) {
        filter_lines(volume, coefficients, {n_x, 1, 1, 0, n_z * n_y, n_x}, threads);
    } else {
        parallel_for(n_z * n_y, 64, threads, [&, row = n_x](Index begin, Index end) {
            for (Index i = begin * row; i < end * row; ++i) coefficients[i] = to_float(volume[i]);
        });
    }
    if (needs_filter(plan.y))
        filter_lines(coefficients, coefficients, {n_y, n_x, n_z, plane, n_x, 1}, threads);
    if (needs_filter(plan.z)) filter_lines(coefficients, coefficients, {n_z, plane, 1, 0, plane, 1}, threads);
}

template void spline_coefficients(const std::int16_t*, const CubicPlan&, float*, int);
template void spline_coefficients(const float*, const CubicPlan&, float*, int);

}  // namespace voxelcore
