// IEEE 754 binary16 in software, since F16C is not part of baseline x86-64. Branch-free, so that loops
// vectorise.
#pragma once

#include <bit>
#include <cstdint>

namespace voxelcore {

struct Half {
    std::uint16_t bits;
};

// Exact; a NaN becomes a quiet one. The subnormal path goes through an integer, so that a flush-to-zero mode
// set by another library in the same process changes nothing.
inline float to_float(Half half) {
    const std::uint32_t magnitude = half.bits & 0x7fffU;
    const std::uint32_t sign = static_cast<std::uint32_t>(half.bits & 0x8000U) << 16;
    const std::uint32_t shifted = magnitude << 13;
    const auto subnormal =
        std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24F);
    const std::uint32_t normal = shifted + (112U << 23);
    const std::uint32_t quiet = magnitude > 0x7c00U ? 0x00400000U : 0U;
    const std::uint32_t special = shifted | 0x7f800000U | quiet;
    const std::uint32_t finite = magnitude < 0x0400U ? subnormal : normal;
    return std::bit_cast<float>(sign | (magnitude >= 0x7c00U ? special : finite));
}

// To nearest, ties to even; beyond 65504 by half a unit or more to infinity; a NaN stays a (quiet) NaN.
inline Half to_half(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t magnitude = bits & 0x7fffffffU;
    const std::uint32_t sign = (bits >> 16) & 0x8000U;
    // 0.5 has the unit in the last place of a half subnormal, so the addition rounds to it.
    const std::uint32_t subnormal =
        std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3f000000U;
    const std::uint32_t normal = (magnitude + 0xfffU + ((magnitude >> 13) & 1U) - (112U << 23)) >> 13;
    const std::uint32_t not_a_number = 0x7e00U | ((magnitude >> 13) & 0x3ffU);
    const std::uint32_t overflow = magnitude > 0x7f800000U ? not_a_number : 0x7c00U;
    const std::uint32_t finite = magnitude < 0x38800000U ? subnormal : normal;
    return {static_cast<std::uint16_t>(sign | (magnitude >= 0x477ff000U ? overflow : finite))};
}

}  // namespace voxelcore
