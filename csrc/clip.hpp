#pragma once

#include "parallel.hpp"
#include "shape.hpp"

namespace voxelcore {

// Voxels below low become low, those above high become high; a NaN stays. T is uint8, int16, Half or float.
template <class T>
void clip(const T* volume, Index count, T low, T high, T* out, Threads threads);

}  // namespace voxelcore
