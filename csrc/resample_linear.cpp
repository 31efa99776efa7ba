#include "resample_linear.hpp"

#include "linear_row.hpp"
#include "stream.hpp"

namespace voxelcore {

template <class T>
void resample_linear(const T* volume, const LinearPlan& plan, T* out, Threads threads) {
    const Zyx shape = plan.shape_out();
    parallel_pieces(
        shape.rows(), rows_per_piece, threads, [&]<class Set>(Set /*set*/, Index begin, Index end) {
            LinearRow<Set> linear_row(plan);
            RowWriter<Set, T> writer(out, shape.rows(), shape.x);
            for (Index row = begin; row < end; ++row) {
                const float* values = linear_row(volume, 0, row / shape.y, row % shape.y).data();
                T* made = writer.next(row);
                const Index n = shape.x;  // not the captured one: a store of uint8 might change it
                if constexpr (std::is_same_v<T, Half>) {
                    narrow(Set{}, values, n, made);
                } else {
                    for (Index i = 0; i < n; ++i) made[i] = from_float<T>(values[i]);
                }
                writer.put(row);
            }
        });
}

template void resample_linear(const std::uint8_t*, const LinearPlan&, std::uint8_t*, Threads);
template void resample_linear(const std::int16_t*, const LinearPlan&, std::int16_t*, Threads);
template void resample_linear(const Half*, const LinearPlan&, Half*, Threads);
template void resample_linear(const float*, const LinearPlan&, float*, Threads);

}  // namespace voxelcore
