#pragma once

#include "axis.hpp"
#include "parallel.hpp"

namespace voxelcore {

struct Normalisation {
    float low;
    float high;
    float mean;
    float std;
};

// Trilinear resampling, clipping to [low, high] and (v - mean) / std while a row is in cache: planes begin to
// end of the result, from a slab that begins with plane `first` of the volume and has all that they are made
// of. T is Half or float.
template <class T>
void preprocess(const std::int16_t* slab, Index first, const LinearPlan& plan,
                const Normalisation& normalisation, Index begin, Index end, T* out, Threads threads);

}  // namespace voxelcore
