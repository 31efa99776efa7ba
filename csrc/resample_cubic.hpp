#pragma once

#include "parallel.hpp"
#include "spline.hpp"

namespace voxelcore {

// Tricubic B-spline interpolation. T is int16 (rounded to nearest, ties to even, and saturated) or float. One
// float volume is held meanwhile, with the planes of the input and the rows and columns of the output.
template <class T>
void resample_cubic(const T* volume, const CubicPlan& plan, T* out, Threads threads);

}  // namespace voxelcore
