#pragma once

#include "parallel.hpp"
#include "spline.hpp"

namespace voxelcore {

// Tricubic B-spline interpolation. T is int16 (rounded to nearest, ties to even, and saturated) or float. The
// spline coefficients are global, so one float volume of the input's shape is held meanwhile.
template <class T>
void resample_cubic(const T* volume, const CubicPlan& plan, T* out, Threads threads);

}  // namespace voxelcore
