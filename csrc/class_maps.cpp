#include "class_maps.hpp"

#include <algorithm>
#include <limits>

#include "linear_row.hpp"
#include "parallel.hpp"

namespace voxelcore {

template <class T>
void class_maps_to_labels(const ClassMapSlab<T>& maps, const LinearPlan& plan, Index begin_z, Index end_z,
                          std::uint8_t* out, int threads) {
    const Zyx shape = plan.shape_out();
    parallel_for((end_z - begin_z) * shape.y, rows_per_piece, threads, [&](Index begin, Index end) {
        LinearRow linear_row(plan);
        const auto n = static_cast<std::size_t>(shape.x);
        std::vector<float> best(n);
        std::vector<std::int32_t> label(n);  // as wide as the scores, so that the comparison vectorises
        for (Index row = begin; row < end; ++row) {
            std::ranges::fill(best, -std::numeric_limits<float>::infinity());
            std::ranges::fill(label, 0);
            for (Index channel = 0; channel < maps.channels; ++channel) {
                const T* source = maps.data + channel * maps.channel_stride;
                const float* score =
                    linear_row(source, maps.first_z, begin_z + row / shape.y, row % shape.y).data();
                const auto candidate = static_cast<std::int32_t>(channel);
                for (std::size_t i = 0; i < n; ++i) {
                    const bool wins = score[i] > best[i];
                    best[i] = wins ? score[i] : best[i];
                    label[i] = wins ? candidate : label[i];
                }
            }
            std::uint8_t* target = out + row * shape.x;
            for (std::size_t i = 0; i < n; ++i) target[i] = static_cast<std::uint8_t>(label[i]);
        }
    });
}

template void class_maps_to_labels(const ClassMapSlab<Half>&, const LinearPlan&, Index, Index, std::uint8_t*,
                                   int);
template void class_maps_to_labels(const ClassMapSlab<float>&, const LinearPlan&, Index, Index, std::uint8_t*,
                                   int);

}  // namespace voxelcore
