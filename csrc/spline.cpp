#include "spline.hpp"

#include <algorithm>
#include <cmath>

#include "axis.hpp"
#include "spline_panel.hpp"

namespace voxelcore {
namespace {

constexpr Index horizon = 64;  // |pole|^64 is below 1e-36

// The causal filter starts with the sum of all voxels before the first, the line being mirrored without end.
std::vector<float> initial_weights(Index n) {
    if (n == 1) return {};
    std::vector<float> weights(static_cast<std::size_t>(std::min(n, horizon)));
    const auto period = static_cast<double>(2 * n - 2);
    for (std::size_t k = 0; k < weights.size(); ++k) {
        const auto at = static_cast<double>(k);
        const bool is_end = k == 0 || static_cast<Index>(k) == n - 1;
        weights[k] = static_cast<float>(
            spline_gain * (std::pow(spline_pole, at) + (is_end ? 0.0 : std::pow(spline_pole, period - at))) /
            (1.0 - std::pow(spline_pole, period)));
    }
    return weights;
}

CubicAxis cubic_axis(Index n_in, Index n_out) {
    const LinearAxis linear = linear_axis(n_in, n_out);
    CubicAxis axis{n_in, linear.lower, std::vector<std::array<float, 4>>(linear.lower.size()),
                   initial_weights(n_in)};
    for (std::size_t i = 0; i < axis.weight.size(); ++i) {
        const double t = static_cast<double>(linear.exact[i]) / static_cast<double>(linear.denominator);
        const double s = 1.0 - t;
        axis.weight[i] = {
            static_cast<float>(s * s * s / 6.0), static_cast<float>((4.0 - 3.0 * t * t * (1.0 + s)) / 6.0),
            static_cast<float>((4.0 - 3.0 * s * s * (1.0 + t)) / 6.0), static_cast<float>(t * t * t / 6.0)};
    }
    return axis;
}

}  // namespace

CubicPlan cubic_plan(Zyx shape_in, Zyx shape_out) {
    return {cubic_axis(shape_in.z, shape_out.z), cubic_axis(shape_in.y, shape_out.y),
            cubic_axis(shape_in.x, shape_out.x)};
}

}  // namespace voxelcore
