#include "stitch.hpp"

#include <algorithm>
#include <type_traits>

#include "half_rows.hpp"

namespace voxelcore {
namespace {

template <class Set, class T>
void put_row(const T* source, Index count, const float* weight, float row_weight, float* target,
             [[maybe_unused]] float* widened) {
    if (weight == nullptr) {
        if constexpr (std::is_same_v<T, Half>) {
            widen(Set{}, source, count, target);
        } else {
            std::copy_n(source, count, target);
        }
    } else if constexpr (std::is_same_v<T, Half>) {
        widen(Set{}, source, count, widened);
        put_row<Set>(static_cast<const float*>(widened), count, weight, row_weight, target, nullptr);
    } else {
        for (Index i = 0; i < count; ++i) target[i] += row_weight * weight[i] * source[i];
    }
}

// Patch channels that count in the same rows of plane z, one after the other.
template <class T>
struct Strip {
    std::vector<const Placement*> placements;
    std::vector<const T*> planes;  // plane z of each patch
};

// Row by row over all patches of a strip: the plane is written from front to back, each row whole.
template <class Set, class T>
void put_strip(const Strip<T>& strip, Zyx patch, Index z, float* plane, Index width, float* widened) {
    const Placement& first = *strip.placements.front();
    for (Index y = first.box_start.y; y < first.box_stop.y; ++y) {
        for (std::size_t i = 0; i < strip.placements.size(); ++i) {
            const Placement& at = *strip.placements[i];
            const Index first_x = at.box_start.x - at.start.x;
            const T* source = strip.planes[i] + (y - at.start.y) * patch.x + first_x;
            const bool weighted = at.weight_x != nullptr;
            put_row<Set>(source, at.box_stop.x - at.box_start.x, weighted ? at.weight_x + first_x : nullptr,
                         weighted ? at.weight_z[z - at.start.z] * at.weight_y[y - at.start.y] : 0.0F,
                         plane + y * width + at.box_start.x, widened);
        }
    }
}

bool same_rows(const Placement& a, const Placement& b) {
    return a.box_start.y == b.box_start.y && a.box_stop.y == b.box_stop.y;
}

}  // namespace

template <class T>
void stitch(const T* patches, Zyx patch, Index channels, const std::vector<Placement>& placements, float* out,
            Zyx shape, bool from_zero, Threads threads) {
    // A piece is one plane of one channel: it belongs to one thread, which adds the patches of a voxel in
    // order.
    parallel_pieces(channels * shape.z, 1, threads, [&]<class Set>(Set /*set*/, Index begin, Index end) {
        std::vector<float> widened(static_cast<std::size_t>(patch.x));
        Strip<T> strip;
        for (Index piece = begin; piece < end; ++piece) {
            const Index channel = piece / shape.z;
            const Index z = piece % shape.z;
            float* plane = out + piece * shape.y * shape.x;
            const auto put = [&] {
                if (strip.placements.empty()) return;
                put_strip<Set>(strip, patch, z, plane, shape.x, widened.data());
                strip.placements.clear();
                strip.planes.clear();
            };
            if (from_zero) std::fill_n(plane, shape.y * shape.x, 0.0F);
            for (std::size_t i = 0; i < placements.size(); ++i) {
                const Placement& at = placements[i];
                if (z < at.box_start.z || z >= at.box_stop.z) continue;
                if (!strip.placements.empty() && !same_rows(*strip.placements.back(), at)) put();
                const Index in_patches =
                    (static_cast<Index>(i) * channels + channel) * patch.z + z - at.start.z;
                strip.placements.push_back(&at);
                strip.planes.push_back(patches + in_patches * patch.y * patch.x);
            }
            put();
        }
    });
}

template void stitch(const Half*, Zyx, Index, const std::vector<Placement>&, float*, Zyx, bool, Threads);
template void stitch(const float*, Zyx, Index, const std::vector<Placement>&, float*, Zyx, bool, Threads);

}  // namespace voxelcore
