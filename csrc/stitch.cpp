#include "stitch.hpp"

#include "parallel.hpp"
#include "voxel.hpp"

namespace voxelcore {
namespace {

// The part of one patch channel that counts in plane z of the volume.
template <class T>
void put_plane(const T* patch_channel, Zyx patch, const Placement& at, Index z, float* plane, Index width) {
    const Index n = at.box_stop.x - at.box_start.x;
    const Index first_x = at.box_start.x - at.start.x;
    for (Index y = at.box_start.y; y < at.box_stop.y; ++y) {
        const T* source = patch_channel + ((z - at.start.z) * patch.y + (y - at.start.y)) * patch.x + first_x;
        float* target = plane + y * width + at.box_start.x;
        if (at.weight_x == nullptr) {
            for (Index i = 0; i < n; ++i) target[i] = to_float(source[i]);
        } else {
            const float row_weight = at.weight_z[z - at.start.z] * at.weight_y[y - at.start.y];
            const float* weight = at.weight_x + first_x;
            for (Index i = 0; i < n; ++i) target[i] += row_weight * weight[i] * to_float(source[i]);
        }
    }
}

}  // namespace

template <class T>
void stitch(const T* patches, Zyx patch, Index channels, const std::vector<Placement>& placements, float* out,
            Zyx shape, int threads) {
    // A piece is one plane of one channel: it belongs to one thread, which walks the patches in their order.
    parallel_for(channels * shape.z, 1, threads, [&](Index begin, Index end) {
        for (Index piece = begin; piece < end; ++piece) {
            const Index channel = piece / shape.z;
            const Index z = piece % shape.z;
            for (std::size_t i = 0; i < placements.size(); ++i) {
                const Placement& at = placements[i];
                if (z < at.box_start.z || z >= at.box_stop.z) continue;
                const T* patch_channel =
                    patches + (static_cast<Index>(i) * channels + channel) * patch.voxels();
                put_plane(patch_channel, patch, at, z, out + piece * shape.y * shape.x, shape.x);
            }
        }
    });
}

template void stitch(const Half*, Zyx, Index, const std::vector<Placement>&, float*, Zyx, int);
template void stitch(const float*, Zyx, Index, const std::vector<Placement>&, float*, Zyx, int);

}  // namespace voxelcore
