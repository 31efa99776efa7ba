// Cubic B-spline interpolation: M. Unser, A. Aldroubi, M. Eden, "B-spline signal processing: part II", IEEE
// Trans. Signal Processing 41(2), 1993. The volume is continued by whole-sample mirroring (c b | a b c | b
// a).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "shape.hpp"

namespace voxelcore {

// Position and B-spline weights of each output voxel along one axis, on the same grid as LinearAxis. The four
// coefficients are lower - 1 to lower + 2, mirrored at the ends. Where the axis keeps its size (is_identity),
// its voxels are left as they are.
struct CubicAxis {
    Index n_in;
    std::vector<std::int32_t> lower;
    std::vector<std::array<float, 4>> weight;
    std::vector<float> initial;  // what each of the first voxels adds to the first value of the causal filter

    [[nodiscard]] Index size() const { return static_cast<Index>(lower.size()); }
    [[nodiscard]] bool is_identity() const { return size() == n_in; }
};

struct CubicPlan {
    CubicAxis z;
    CubicAxis y;
    CubicAxis x;

    [[nodiscard]] Zyx shape_in() const { return {z.n_in, y.n_in, x.n_in}; }
    [[nodiscard]] Zyx shape_out() const { return {z.size(), y.size(), x.size()}; }
};

CubicPlan cubic_plan(Zyx shape_in, Zyx shape_out);

// The voxel of an axis of n voxels that the index stands for when the axis is mirrored without end.
inline Index mirrored(Index index, Index n) {
    if (index >= 0 && index < n) return index;
    if (n == 1) return 0;
    const Index period = 2 * n - 2;
    const Index within = ((index % period) + period) % period;
    return within < n ? within : period - within;
}

}  // namespace voxelcore
