#pragma once

#include <vector>

#include "parallel.hpp"
#include "shape.hpp"

namespace voxelcore {

// Where a patch counts: its voxel p lies at start + p of the volume, and the voxels of [box_start, box_stop)
// are used. The box lies inside both the volume and the patch. Each weight pointer covers the patch's axis;
// all are null where the patch is copied instead of weighted and added.
struct Placement {
    Zyx start;
    Zyx box_start;
    Zyx box_stop;
    const float* weight_z = nullptr;
    const float* weight_y = nullptr;
    const float* weight_x = nullptr;
};

// Put patches (n, c, pz, py, px) into out (c, z, y, x), each at its placement. Where boxes overlap the
// weighted patches are added in their order, whatever the number of threads; to what out holds, or to zero
// where `from_zero`. T is Half or float.
template <class T>
void stitch(const T* patches, Zyx patch, Index channels, const std::vector<Placement>& placements, float* out,
            Zyx shape, bool from_zero, Threads threads);

}  // namespace voxelcore
