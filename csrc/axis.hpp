// Which source voxels an output voxel is made of, along one axis, computed once in exact integer arithmetic.
//
// Voxel edges are aligned: output voxel i lies at the source coordinate (i + 0.5) * n_in / n_out - 0.5,
// clamped to [0, n_in - 1]. Over the common denominator 2 * n_out that coordinate is an integer, so that no
// position is ever rounded to the wrong side of a voxel.
#pragma once

#include <cstdint>
#include <vector>

#include "shape.hpp"

namespace voxelcore {

struct LinearAxis {
    Index n_in;
    std::vector<std::int32_t> lower;  // the second voxel is lower + 1; it may be n_in, and has weight 0 then
    std::vector<float> weight;        // of the second voxel, in [0, 1); exactly 0 where the first is hit
    std::vector<std::int32_t> exact;  // the same weight in units of 1 / denominator
    Index denominator;

    [[nodiscard]] Index size() const { return static_cast<Index>(lower.size()); }
    [[nodiscard]] bool is_identity() const { return size() == n_in; }
    // At least as many source voxels as `outputs` neighbours are made of.
    [[nodiscard]] Index span(Index outputs) const { return ((outputs - 1) * n_in + size() - 1) / size() + 2; }
};

LinearAxis linear_axis(Index n_in, Index n_out);

// The voxel whose cell holds the centre of each output voxel; on the face between two, the one with the
// higher index.
std::vector<std::int32_t> nearest_axis(Index n_in, Index n_out);

struct LinearPlan {
    LinearAxis z;
    LinearAxis y;
    LinearAxis x;

    [[nodiscard]] Zyx shape_in() const { return {z.n_in, y.n_in, x.n_in}; }
    [[nodiscard]] Zyx shape_out() const { return {z.size(), y.size(), x.size()}; }
};

LinearPlan linear_plan(Zyx shape_in, Zyx shape_out);

}  // namespace voxelcore
