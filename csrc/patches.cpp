#include "patches.hpp"

#include <algorithm>

#include "half.hpp"
#include "stream.hpp"

namespace voxelcore {

constexpr Index planes_a_piece = 8;

template <class T>
void extract_patches(const std::vector<PatchSource<T>>& sources, Zyx patch, T* out, Threads threads) {
    const auto planes = static_cast<Index>(sources.size()) * patch.z;
    parallel_pieces(planes, planes_a_piece, threads, [&]<class Set>(Set /*set*/, Index begin, Index end) {
        // A row is a few cache lines, the first and the last of them shared with its neighbours: planes are
        // streamed.
        RowWriter<Set, T> writer(out, planes, patch.y * patch.x);
        for (Index plane = begin; plane < end; ++plane) {
            const auto [volume, shape, start] = sources[static_cast<std::size_t>(plane / patch.z)];
            const Index z = std::clamp<Index>(start.z + plane % patch.z, 0, shape.z - 1);
            const Index first_x = std::max<Index>(start.x, 0);
            const Index last_x = std::min(start.x + patch.x, shape.x);
            T* target = writer.next(plane);
            for (Index row = 0; row < patch.y; ++row) {
                const Index y = std::clamp<Index>(start.y + row, 0, shape.y - 1);
                const T* source = volume + (z * shape.y + y) * shape.x;
                target = std::fill_n(target, first_x - start.x, source[0]);
                target = std::copy(source + first_x, source + last_x, target);
                target = std::fill_n(target, start.x + patch.x - last_x, source[shape.x - 1]);
            }
            writer.put(plane);
        }
    });
}

template void extract_patches(const std::vector<PatchSource<std::uint8_t>>&, Zyx, std::uint8_t*, Threads);
template void extract_patches(const std::vector<PatchSource<std::int16_t>>&, Zyx, std::int16_t*, Threads);
template void extract_patches(const std::vector<PatchSource<Half>>&, Zyx, Half*, Threads);
template void extract_patches(const std::vector<PatchSource<float>>&, Zyx, float*, Threads);

}  // namespace voxelcore
