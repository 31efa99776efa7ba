#include "class_maps.hpp"

#include <algorithm>
#include <limits>

#include "linear_row.hpp"

namespace voxelcore {

template <class T>
void class_maps_to_labels(const ClassMapSlab<T>& maps, const LinearPlan& plan, Index begin_z, Index end_z,
                          const LabelView& out, Threads threads) {
    const Zyx shape = plan.shape_out();
    const Index count = (end_z - begin_z) * shape.y;
    parallel_pieces(count, rows_per_piece, threads, [&]<class Set>(Set /*set*/, Index begin, Index end) {
        LinearRow<Set> linear_row(plan);
        const auto n = static_cast<std::size_t>(shape.x);
        std::vector<float> best(n);
        std::vector<std::int32_t> label(n);  // as wide as the scores, so that the comparison vectorises
        for (Index row = begin; row < end; ++row) {
            const Index z = begin_z + row / shape.y;
            const Index y = row % shape.y;
            std::ranges::fill(best, -std::numeric_limits<float>::infinity());
            std::ranges::fill(label, 0);
            for (Index channel = 0; channel < maps.channels; ++channel) {
                const T* source = maps.data + channel * maps.channel_stride;
                const float* score = linear_row(source, maps.first_z, z, y).data();
                const auto candidate = static_cast<std::int32_t>(channel);
                for (std::size_t i = 0; i < n; ++i) {
                    const bool wins = score[i] > best[i];
                    best[i] = wins ? score[i] : best[i];
                    label[i] = wins ? candidate : label[i];
                }
            }
            // Copies of what is captured: a store of uint8 might change it, for all that the compiler knows.
            const std::int32_t* from = label.data();
            const Index step = out.stride.x;
            std::uint8_t* target = out.data + z * out.stride.z + y * out.stride.y;
            if (step == 1) {
                for (std::size_t i = 0; i < n; ++i) target[i] = static_cast<std::uint8_t>(from[i]);
            } else {
                for (std::size_t i = 0; i < n; ++i, target += step)
                    *target = static_cast<std::uint8_t>(from[i]);
            }
        }
    });
}

template void class_maps_to_labels(const ClassMapSlab<Half>&, const LinearPlan&, Index, Index,
                                   const LabelView&, Threads);
template void class_maps_to_labels(const ClassMapSlab<float>&, const LinearPlan&, Index, Index,
                                   const LabelView&, Threads);

}  // namespace voxelcore
