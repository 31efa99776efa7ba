// A panel is `lanes` lines of an axis side by side: value i of lane j is panel[i * lanes + j]. What is
// recursive along the axis is a plain loop over lanes.
#pragma once

#include <algorithm>
#include <array>
#include <numbers>

#include "spline.hpp"

namespace voxelcore {

inline constexpr double spline_pole = std::numbers::sqrt3 - 2.0;
inline constexpr double spline_gain = 6.0;

// Turn the voxels of a panel into the coefficients of the spline through them, in place.
template <Index lanes>
void filter_panel(float* panel, const CubicAxis& axis) {
    constexpr auto pole = static_cast<float>(spline_pole);
    constexpr auto gain = static_cast<float>(spline_gain);
    constexpr auto end = static_cast<float>(spline_pole / (spline_pole * spline_pole - 1.0));
    const Index n = axis.n_in;
    if (n == 1) return;
    std::array<float, lanes> first{};
    for (std::size_t k = 0; k < axis.initial.size(); ++k) {
        const float* line = panel + static_cast<Index>(k) * lanes;
        for (Index j = 0; j < lanes; ++j) first[static_cast<std::size_t>(j)] += axis.initial[k] * line[j];
    }
    std::copy_n(first.data(), lanes, panel);
    for (Index i = 1; i < n; ++i) {
        float* line = panel + i * lanes;
        const float* previous = line - lanes;
        for (Index j = 0; j < lanes; ++j) line[j] = gain * line[j] + pole * previous[j];
    }
    float* last = panel + (n - 1) * lanes;
    for (Index j = 0; j < lanes; ++j) last[j] = end * (last[j] + pole * (last - lanes)[j]);
    for (Index i = n - 2; i >= 0; --i) {
        float* line = panel + i * lanes;
        const float* next = line + lanes;
        for (Index j = 0; j < lanes; ++j) line[j] = pole * (next[j] - line[j]);
    }
}

// Output i of an axis from a panel of coefficients.
template <Index lanes>
void interpolate_panel(const float* panel, const CubicAxis& axis, Index i, float* out) {
    const Index lower = axis.lower[static_cast<std::size_t>(i)];
    const auto [w0, w1, w2, w3] = axis.weight[static_cast<std::size_t>(i)];
    const float* p0 = panel + mirrored(lower - 1, axis.n_in) * lanes;
    const float* p1 = panel + lower * lanes;
    const float* p2 = panel + mirrored(lower + 1, axis.n_in) * lanes;
    const float* p3 = panel + mirrored(lower + 2, axis.n_in) * lanes;
    for (Index j = 0; j < lanes; ++j) out[j] = (w0 * p0[j] + w1 * p1[j]) + (w2 * p2[j] + w3 * p3[j]);
}

}  // namespace voxelcore
