#pragma once

#include "axis.hpp"
#include "parallel.hpp"

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

// Where the label of output voxel (z, y, x) lies: strides of any sign, in voxels. An output on another axis
// order is a view of this kind, so that the orientation is undone by the store.
struct LabelView {
    std::uint8_t* data;
    Zyx stride;
};

// Labels of the output planes [begin_z, end_z): each class resampled trilinearly, then the class of the
// largest value, the lowest of equals. A NaN never wins; where every class is NaN the label is 0. The slab
// must hold the planes from plan.z.lower[begin_z] to plan.z.lower[end_z - 1], and the next where that has a
// weight. T is Half or float.
template <class T>
void class_maps_to_labels(const ClassMapSlab<T>& maps, const LinearPlan& plan, Index begin_z, Index end_z,
                          const LabelView& out, Threads threads);

}  // namespace voxelcore
