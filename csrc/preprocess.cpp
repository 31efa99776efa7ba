#include "preprocess.hpp"

#include "linear_row.hpp"
#include "parallel.hpp"

namespace voxelcore {

template <class T>
void preprocess(const std::int16_t* volume, const LinearPlan& plan, const Normalisation& normalisation,
                T* out, int threads) {
    const Zyx shape = plan.shape_out();
    const float low = normalisation.low;
    const float high = normalisation.high;
    const float mean = normalisation.mean;
    const float deviation = normalisation.std;
    parallel_for(shape.rows(), rows_per_piece, threads, [&](Index begin, Index end) {
        LinearRow linear_row(plan);
        for (Index row = begin; row < end; ++row) {
            const float* values = linear_row(volume, 0, row / shape.y, row % shape.y).data();
            T* target = out + row * shape.x;
            for (Index i = 0; i < shape.x; ++i) {
                const float clipped = std::min(std::max(values[i], low), high);
                target[i] = from_float<T>((clipped - mean) / deviation);
            }
        }
    });
}

template void preprocess(const std::int16_t*, const LinearPlan&, const Normalisation&, Half*, int);
template void preprocess(const std::int16_t*, const LinearPlan&, const Normalisation&, float*, int);

}  // namespace voxelcore
