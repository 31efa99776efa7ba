// Sizes and indices of volumes. Arrays are C-ordered (z, y, x); every count is 64 bits wide.
#pragma once

#include <cstdint>

namespace voxelcore {

using Index = std::int64_t;

// The longest axis that is accepted anywhere. With it the number of voxels (2^60), and the products of three
// exact interpolation weights (2^63), cannot overflow.
inline constexpr Index longest_axis = Index{1} << 20;

struct Zyx {
    Index z;
    Index y;
    Index x;

    [[nodiscard]] constexpr Index voxels() const { return z * y * x; }
    [[nodiscard]] constexpr Index rows() const { return z * y; }
    constexpr bool operator==(const Zyx&) const = default;
};

}  // namespace voxelcore
