#include "clip.hpp"

#include <algorithm>

#include "voxel.hpp"

namespace voxelcore {
namespace {

constexpr Index voxels_per_piece = Index{1} << 16;
constexpr Index bytes_per_thread = Index{16}
                                   << 20;  // about a millisecond of work, below which a thread does not pay

template <class T>
T clipped(T value, T low, T high) {
    const T raised = value < low ? low : value;
    return raised > high ? high : raised;
}

template <>
Half clipped(Half value, Half low, Half high) {
    const float as_float = to_float(value);
    const Half raised = as_float < to_float(low) ? low : value;
    return as_float > to_float(high) ? high : raised;
}

}  // namespace

template <class T>
void clip(const T* volume, Index count, T low, T high, T* out, Threads threads) {
    const Index useful = 1 + count * static_cast<Index>(sizeof(T)) / bytes_per_thread;
    threads.count = static_cast<int>(std::min<Index>(threads.count, useful));
    parallel_pieces(count, voxels_per_piece, threads, [&](auto /*set*/, Index begin, Index end) {
        // Copies of what is captured: a store of uint8 might change it, for all that the compiler knows.
        const T* from = volume;
        T* to = out;
        const T lowest = low;
        const T highest = high;
        for (Index i = begin; i < end; ++i) to[i] = clipped(from[i], lowest, highest);
    });
}

template void clip(const std::uint8_t*, Index, std::uint8_t, std::uint8_t, std::uint8_t*, Threads);
template void clip(const std::int16_t*, Index, std::int16_t, std::int16_t, std::int16_t*, Threads);
template void clip(const Half*, Index, Half, Half, Half*, Threads);
template void clip(const float*, Index, float, float, float*, Threads);

}  // namespace voxelcore
