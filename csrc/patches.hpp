#pragma once

#include <vector>

#include "shape.hpp"

namespace voxelcore {

// Copy the patches that start at `starts` (each overlaps the volume) into out (n, pz, py, px). Where a patch
// leaves the volume it repeats the nearest edge voxel. T is uint8, int16, Half or float.
template <class T>
void extract_patches(const T* volume, Zyx shape, const std::vector<Zyx>& starts, Zyx patch, T* out,
                     int threads);

}  // namespace voxelcore
