// Rows of float16 to float32 and back. The conversion instruction of AVX2's and AVX-512's processors (F16C)
// gives the bits of the software in half.hpp.
#pragma once

#include "half.hpp"
#include "isa.hpp"

#if VOXELCORE_X86
#include <immintrin.h>
#endif

namespace voxelcore {

inline void widen(Baseline /*set*/, const Half* in, Index count, float* out) {
    for (Index i = 0; i < count; ++i) out[i] = to_float(in[i]);
}
inline void narrow(Baseline /*set*/, const float* in, Index count, Half* out) {
    for (Index i = 0; i < count; ++i) out[i] = to_half(in[i]);
}

#if VOXELCORE_X86
[[VOXELCORE_TARGET_AVX2]] inline void widen(Avx2 /*set*/, const Half* in, Index count, float* out) {
    Index i = 0;
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i))));
    for (; i < count; ++i) out[i] = to_float(in[i]);
}
[[VOXELCORE_TARGET_AVX2]] inline void narrow(Avx2 /*set*/, const float* in, Index count, Half* out) {
    Index i = 0;
    for (; i + 8 <= count; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < count; ++i) out[i] = to_half(in[i]);
}

// GCC 12 warns of its own uninitialised operand in the forms without a mask.
inline constexpr std::uint16_t every_lane = 0xffff;

[[VOXELCORE_TARGET_AVX512]] inline void widen(Avx512 /*set*/, const Half* in, Index count, float* out) {
    Index i = 0;
    for (; i + 16 <= count; i += 16)
        _mm512_storeu_ps(
            out + i,
            _mm512_maskz_cvtph_ps(every_lane, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i))));
    for (; i < count; ++i) out[i] = to_float(in[i]);
}
[[VOXELCORE_TARGET_AVX512]] inline void narrow(Avx512 /*set*/, const float* in, Index count, Half* out) {
    Index i = 0;
    for (; i + 16 <= count; i += 16)
        _mm256_storeu_si256(
            reinterpret_cast<__m256i*>(out + i),
            _mm512_maskz_cvtps_ph(every_lane, _mm512_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < count; ++i) out[i] = to_half(in[i]);
}
#endif

}  // namespace voxelcore
