// The conversions between stored voxels (uint8, int16, float16, float32) and the float32 that is computed in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "half.hpp"

namespace voxelcore {

inline float to_float(std::uint8_t value) { return value; }
inline float to_float(std::int16_t value) { return value; }
inline float to_float(float value) { return value; }

// To the nearest integer, ties to even, for |value| < 2^22. Baseline x86-64 has no rounding instruction for
// vectors; adding and subtracting 1.5 * 2^23 leaves the rounding to the addition.
inline float round_to_even(float value) { return (value + 0x1.8p23F) - 0x1.8p23F; }

template <class T>
T from_float(float value) {
    constexpr auto lowest = static_cast<float>(std::numeric_limits<T>::min());
    constexpr auto highest = static_cast<float>(std::numeric_limits<T>::max());
    return static_cast<T>(static_cast<std::int32_t>(round_to_even(std::clamp(value, lowest, highest))));
}
template <>
inline float from_float<float>(float value) {
    return value;
}
template <>
inline Half from_float<Half>(float value) {
    return to_half(value);
}

}  // namespace voxelcore
