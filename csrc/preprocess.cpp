#include "preprocess.hpp"

#include "linear_row.hpp"

namespace voxelcore {

template <class T>
void preprocess(const std::int16_t* volume, const LinearPlan& plan, const Normalisation& normalisation,
                T* out, Threads threads) {
    const Zyx shape = plan.shape_out();
    parallel_pieces(shape.rows(), rows_per_piece, threads, [&]<class Set>(Set, Index begin, Index end) {
        const auto [low, high, mean, deviation] = normalisation;
        LinearRow<Set> linear_row(plan);
        std::vector<float> normalised(static_cast<std::size_t>(shape.x));
        for (Index row = begin; row < end; ++row) {
            const float* values = linear_row(volume, 0, row / shape.y, row % shape.y).data();
            T* target = out + row * shape.x;
            if constexpr (std::is_same_v<T, Half>) {
                for (Index i = 0; i < shape.x; ++i)
                    normalised[static_cast<std::size_t>(i)] =
                        (std::min(std::max(values[i], low), high) - mean) / deviation;
                narrow(Set{}, normalised.data(), shape.x, target);
            } else {
                for (Index i = 0; i < shape.x; ++i)
                    target[i] = (std::min(std::max(values[i], low), high) - mean) / deviation;
            }
        }
    });
}

template void preprocess(const std::int16_t*, const LinearPlan&, const Normalisation&, Half*, Threads);
template void preprocess(const std::int16_t*, const LinearPlan&, const Normalisation&, float*, Threads);

}  // namespace voxelcore
