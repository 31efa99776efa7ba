#include "preprocess.hpp"

#include "linear_row.hpp"
#include "stream.hpp"

namespace voxelcore {

template <class T>
void preprocess(const std::int16_t* slab, Index first, const LinearPlan& plan,
                const Normalisation& normalisation, Index begin, Index end, T* out, Threads threads) {
    const Zyx shape{end - begin, plan.y.size(), plan.x.size()};
    parallel_pieces(
        shape.rows(), rows_per_piece, threads, [&]<class Set>(Set /*set*/, Index first_row, Index end_row) {
            const auto [low, high, mean, deviation] = normalisation;
            LinearRow<Set> linear_row(plan);
            RowWriter<Set, T> writer(out, shape.rows(), shape.x);
            std::vector<float> normalised(static_cast<std::size_t>(std::is_same_v<T, Half> ? shape.x : 0));
            for (Index row = first_row; row < end_row; ++row) {
                const float* values = linear_row(slab, first, begin + row / shape.y, row % shape.y).data();
                float* made;
                if constexpr (std::is_same_v<T, Half>) {
                    made = normalised.data();
                } else {
                    made = writer.next(row);
                }
                for (Index i = 0; i < shape.x; ++i)
                    made[i] = (std::min(std::max(values[i], low), high) - mean) / deviation;
                if constexpr (std::is_same_v<T, Half>) narrow(Set{}, made, shape.x, writer.next(row));
                writer.put(row);
            }
        });
}

template void preprocess(const std::int16_t*, Index, const LinearPlan&, const Normalisation&, Index, Index,
                         Half*, Threads);
template void preprocess(const std::int16_t*, Index, const LinearPlan&, const Normalisation&, Index, Index,
                         float*, Threads);

}  // namespace voxelcore
