#include "preprocess.hpp"

#include "linear_row.hpp"
#include "stream.hpp"

namespace voxelcore {

template <class T>
void preprocess(const std::int16_t* volume, const LinearPlan& plan, const Normalisation& normalisation,
                T* out, Threads threads) {
    const Zyx shape = plan.shape_out();
    parallel_pieces(
        shape.rows(), rows_per_piece, threads, [&]<class Set>(Set /*set*/, Index begin, Index end) {
            const auto [low, high, mean, deviation] = normalisation;
            LinearRow<Set> linear_row(plan);
            RowWriter<Set, T> writer(out, shape.rows(), shape.x);
            std::vector<float> normalised(static_cast<std::size_t>(std::is_same_v<T, Half> ? shape.x : 0));
            for (Index row = begin; row < end; ++row) {
                const float* values = linear_row(volume, 0, row / shape.y, row % shape.y).data();
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

template void preprocess(const std::int16_t*, const LinearPlan&, const Normalisation&, Half*, Threads);
template void preprocess(const std::int16_t*, const LinearPlan&, const Normalisation&, float*, Threads);

}  // namespace voxelcore
