#include "stitch.hpp"

#include <algorithm>
#include <type_traits>

#include "half_rows.hpp"

namespace voxelcore {
namespace {

// The part of one patch channel that counts in plane z of the volume.
template <class Set, class T>
void put_plane(const T* patch_channel, Zyx patch, const Placement& at, Index z, float* plane, Index width,
               std::vector<float>& widened) {
    const Index n = at.box_stop.x - at.box_start.x;
    const Index first_x = at.box_start.x - at.start.x;
    for (Index y = at.box_start.y; y < at.box_stop.y; ++y) {
        const T* source = patch_channel + ((z - at.start.z) * patch.y + (y - at.start.y)) * patch.x + first_x;
        float* target = plane + y * width + at.box_start.x;
        if (at.weight_x == nullptr) {
            if constexpr (std::is_same_v<T, Half>) {
                widen(Set{}, source, n, target);
            } else {
                std::copy_n(source, n, target);
            }
            continue;
        }
        const float* values;
        if constexpr (std::is_same_v<T, Half>) {
            widen(Set{}, source, n, widened.data());
            values = widened.data();
        } else {
            values = source;
        }
        const float row_weight = at.weight_z[z - at.start.z] * at.weight_y[y - at.start.y];
        const float* weight = at.weight_x + first_x;
        for (Index i = 0; i < n; ++i) target[i] += row_weight * weight[i] * values[i];
    }
}

}  // namespace

template <class T>
void stitch(const T* patches, Zyx patch, Index channels, const std::vector<Placement>& placements, float* out,
            Zyx shape, Threads threads) {
    // A piece is one plane of one channel: it belongs to one thread, which walks the patches in their order.
    parallel_pieces(channels * shape.z, 1, threads, [&]<class Set>(Set, Index begin, Index end) {
        std::vector<float> widened(static_cast<std::size_t>(patch.x));
        for (Index piece = begin; piece < end; ++piece) {
            const Index channel = piece / shape.z;
            const Index z = piece % shape.z;
            for (std::size_t i = 0; i < placements.size(); ++i) {
                const Placement& at = placements[i];
                if (z < at.box_start.z || z >= at.box_stop.z) continue;
                const T* patch_channel =
                    patches + (static_cast<Index>(i) * channels + channel) * patch.voxels();
                put_plane<Set>(patch_channel, patch, at, z, out + piece * shape.y * shape.x, shape.x,
                               widened);
            }
        }
    });
}

template void stitch(const Half*, Zyx, Index, const std::vector<Placement>&, float*, Zyx, Threads);
template void stitch(const float*, Zyx, Index, const std::vector<Placement>&, float*, Zyx, Threads);

}  // namespace voxelcore
