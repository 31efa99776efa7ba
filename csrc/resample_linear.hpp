#pragma once

#include "axis.hpp"
#include "parallel.hpp"

namespace voxelcore {

// Trilinear. T is uint8, int16 (rounded to nearest, ties to even), Half or float.
template <class T>
void resample_linear(const T* volume, const LinearPlan& plan, T* out, Threads threads);

}  // namespace voxelcore
