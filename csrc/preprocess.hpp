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

// Trilinear resampling, clipping to [low, high] and (v - mean) / std while a row is in cache. T is Half or
// float.
template <class T>
void preprocess(const std::int16_t* volume, const LinearPlan& plan, const Normalisation& normalisation,
                T* out, Threads threads);

}  // namespace voxelcore
