#include "resample_linear.hpp"

#include "linear_row.hpp"
#include "parallel.hpp"

namespace voxelcore {

template <class T>
void resample_linear(const T* volume, const LinearPlan& plan, T* out, int threads) {
    const Zyx shape = plan.shape_out();
    parallel_for(shape.rows(), rows_per_piece, threads, [&](Index begin, Index end) {
        LinearRow linear_row(plan);
        for (Index row = begin; row < end; ++row) {
            const float* values = linear_row(volume, 0, row / shape.y, row % shape.y).data();
            T* target = out + row * shape.x;
            for (Index i = 0; i < shape.x; ++i) target[i] = from_float<T>(values[i]);
        }
    });
}

template void resample_linear(const std::uint8_t*, const LinearPlan&, std::uint8_t*, int);
template void resample_linear(const std::int16_t*, const LinearPlan&, std::int16_t*, int);
template void resample_linear(const Half*, const LinearPlan&, Half*, int);
template void resample_linear(const float*, const LinearPlan&, float*, int);

}  // namespace voxelcore
