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
// its coefficients are the voxels themselves.
struct CubicAxis {
    Index n_in;
    std::vector<std::int32_t> lower;
    std::vector<std::array<float, 4>> weight;

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
Index mirrored(Index index, Index n);

// The coefficients of the spline that passes through every voxel, along each axis that `plan` resamples. T is
// int16 or float.
template <class T>
void spline_coefficients(const T* volume, const CubicPlan& plan, float* coefficients, int threads);

}  // namespace voxelcore
