#pragma once

#include "axis.hpp"
#include "parallel.hpp"

namespace voxelcore {

void resample_labels_nearest(const std::uint8_t* labels, Zyx shape_in, Zyx shape_out, std::uint8_t* out,
                             Threads threads);

// The label whose indicator, resampled trilinearly, is largest; of equals the lowest label. Weights are
// integers, so that a tie is a tie and never a matter of rounding.
void resample_labels_linear(const std::uint8_t* labels, const LinearPlan& plan, std::uint8_t* out,
                            Threads threads);

}  // namespace voxelcore
