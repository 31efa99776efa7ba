#pragma once

#include "axis.hpp"

namespace voxelcore {

// The planes [first_z, first_z + depth) of class maps (c, z, y, x), so that labels can be made as soon as the
// planes they need are final. Classes are `channel_stride` elements apart.
template <class T>
struct ClassMapSlab {
    const T* data;
    Index channels;
    Index channel_stride;
    Index first_z;
};

// Labels of the output planes [begin_z, end_z), written from out[0] on: each class resampled trilinearly,
// then the class of the largest value, the lowest of equals. A NaN never wins; where every class is NaN the
// label is 0. The slab must hold the planes from plan.z.lower[begin_z] to plan.z.lower[end_z - 1] + 1. T is
// Half or float.
template <class T>
void class_maps_to_labels(const ClassMapSlab<T>& maps, const LinearPlan& plan, Index begin_z, Index end_z,
                          std::uint8_t* out, int threads);

}  // namespace voxelcore
