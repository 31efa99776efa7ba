#pragma once

#include <vector>

#include "parallel.hpp"
#include "shape.hpp"

namespace voxelcore {

// A patch to be cut out of a volume, which it overlaps.
template <class T>
struct PatchSource {
    const T* volume;
    Zyx shape;
    Zyx start;
};

// Copy patches of one shape, each out of a volume of its own, into out (n, pz, py, px). Where a patch leaves
// its volume it repeats the nearest edge voxel. T is uint8, int16, Half or float.
template <class T>
void extract_patches(const std::vector<PatchSource<T>>& sources, Zyx patch, T* out, Threads threads);

}  // namespace voxelcore
