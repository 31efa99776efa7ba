#pragma once

#include <cstdint>
#include <vector>

#include "shape.hpp"

namespace voxelcore {

// Every voxel of one label as runs along the flat (C-ordered) index: where each run starts, and how many
// voxels of the label the runs up to and including it hold. The k-th voxel is found by bisection, so that one
// can be drawn without a list of all.
struct LabelRuns {
    std::vector<Index> start;
    std::vector<Index> cumulative;
};

LabelRuns label_runs(const std::uint8_t* labels, Index count, std::uint8_t label);

}  // namespace voxelcore
