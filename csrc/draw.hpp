// Random draws that are functions of (seed, epoch, counter) and a stream only: no state, so no order and no
// thread matters.
#pragma once

#include <cstdint>
#include <vector>

#include "shape.hpp"

namespace voxelcore {

struct Source {
    std::uint64_t seed;
    std::uint32_t epoch;
};

// Streams from here on belong to the draws below; callers of uniform() have those before.
inline constexpr std::uint32_t first_reserved_stream = std::uint32_t{1} << 31;

// In [0, 1), a multiple of 2^-53: words 0 (low) and 1 (high) of Philox4x32-10 with key = seed and counter =
// (counter, epoch, stream), least significant word first.
double uniform(const Source& source, std::uint32_t stream, std::int64_t counter);
void uniform(const Source& source, std::uint32_t stream, const std::int64_t* counters, Index count,
             double* out);

// Indices with probability proportional to `weights`, which are finite and not negative, one at least
// positive.
void draw_volumes(const std::vector<double>& weights, const Source& source, const std::int64_t* counters,
                  Index count, std::int64_t* out);

// Patch starts (z, y, x), uniform over all that keep the patch inside the volume or, where `around` is not
// null, over those whose patch contains the flat voxel index around[i]. An axis thinner than the patch has
// one start, which centres the padding.
void draw_starts(Zyx shape, Zyx patch, const Source& source, const std::int64_t* counters,
                 const std::int64_t* around, Index count, std::int64_t* out);

}  // namespace voxelcore
