// Linear interpolation along a contiguous row through the tables of an axis: out[i] = lerp(row[lower[i]],
// row[lower[i] + 1], weight[i]). The compiler makes slow gathers of it or scalar loads; with AVX2 and AVX-512
// the taps of a vector of outputs lie in two vectors of the row and one permutation fetches them, so this
// loop is written out for those. Where an axis shrinks to less than half, they lie further apart and the
// plain loop does it.
#pragma once

#include "axis.hpp"
#include "isa.hpp"

#if VOXELCORE_X86
#include <immintrin.h>
#endif

namespace voxelcore {

// Floats behind the last voxel of a row that the loops below may read, whatever they hold.
inline constexpr std::size_t row_padding = 32;

// a where weight is 0, whatever b is: a NaN reaches only voxels in which it has a weight. A constant stays
// exact.
inline float lerp(float a, float b, float weight) { return a + (weight == 0.0F ? 0.0F : weight * (b - a)); }

// `finite` promises that the row holds no NaN and no infinity, so that a weight of 0 need not be looked at.
template <bool finite>
inline void interpolate_plain(const float* row, const LinearAxis& axis, Index begin, float* out) {
    const std::int32_t* lower = axis.lower.data();
    const float* weight = axis.weight.data();
    for (Index i = begin; i < axis.size(); ++i) {
        const float a = row[lower[i]];
        const float b = row[lower[i] + 1];
        out[i] = finite ? a + weight[i] * (b - a) : lerp(a, b, weight[i]);
    }
}

template <bool finite>
inline void interpolate(Baseline /*set*/, const float* row, const LinearAxis& axis, float* out) {
    interpolate_plain<finite>(row, axis, 0, out);
}

#if VOXELCORE_X86
[[VOXELCORE_TARGET_AVX2]] inline __m256 fetched(__m256 first, __m256 second, __m256i index) {
    const __m256 in_second = _mm256_castsi256_ps(_mm256_cmpgt_epi32(index, _mm256_set1_epi32(7)));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(first, index), _mm256_permutevar8x32_ps(second, index),
                            in_second);
}

template <bool finite>
[[VOXELCORE_TARGET_AVX2]] inline void interpolate(Avx2 /*set*/, const float* row, const LinearAxis& axis,
                                                  float* out) {
    constexpr Index lanes = 8;
    Index i = 0;
    if (axis.span(lanes) <= 2 * lanes) {
        const std::int32_t* lower = axis.lower.data();
        const __m256i one = _mm256_set1_epi32(1);
        for (; i + lanes <= axis.size(); i += lanes) {
            const float* window = row + lower[i];
            const __m256 first = _mm256_loadu_ps(window);
            const __m256 second = _mm256_loadu_ps(window + lanes);
            const __m256i near = _mm256_sub_epi32(
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lower + i)), _mm256_set1_epi32(lower[i]));
            const __m256i far = _mm256_add_epi32(near, one);
            const __m256 a = fetched(first, second, near);
            const __m256 weight = _mm256_loadu_ps(axis.weight.data() + i);
            __m256 step = _mm256_mul_ps(weight, _mm256_sub_ps(fetched(first, second, far), a));
            if constexpr (!finite)
                step = _mm256_and_ps(step, _mm256_cmp_ps(weight, _mm256_setzero_ps(), _CMP_NEQ_UQ));
            _mm256_storeu_ps(out + i, _mm256_add_ps(a, step));
        }
    }
    interpolate_plain<finite>(row, axis, i, out);
}

template <bool finite>
[[VOXELCORE_TARGET_AVX512]] inline void interpolate(Avx512 /*set*/, const float* row, const LinearAxis& axis,
                                                    float* out) {
    constexpr Index lanes = 16;
    Index i = 0;
    if (axis.span(lanes) <= 2 * lanes) {
        const std::int32_t* lower = axis.lower.data();
        const __m512i one = _mm512_set1_epi32(1);
        for (; i + lanes <= axis.size(); i += lanes) {
            const float* window = row + lower[i];
            const __m512 first = _mm512_loadu_ps(window);
            const __m512 second = _mm512_loadu_ps(window + lanes);
            const __m512i near = _mm512_sub_epi32(_mm512_loadu_si512(lower + i), _mm512_set1_epi32(lower[i]));
            const __m512 a = _mm512_permutex2var_ps(first, near, second);
            const __m512 b = _mm512_permutex2var_ps(first, _mm512_add_epi32(near, one), second);
            const __m512 weight = _mm512_loadu_ps(axis.weight.data() + i);
            __mmask16 counts = 0xffff;
            if constexpr (!finite) counts = _mm512_cmp_ps_mask(weight, _mm512_setzero_ps(), _CMP_NEQ_UQ);
            const __m512 step = _mm512_maskz_mul_ps(counts, weight, _mm512_sub_ps(b, a));
            _mm512_storeu_ps(out + i, _mm512_add_ps(a, step));
        }
    }
    interpolate_plain<finite>(row, axis, i, out);
}
#endif

}  // namespace voxelcore
