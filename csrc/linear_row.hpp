// One output row of a linear resampling: blend the 2 x 2 source rows around it into one float row that stays
// in cache, then interpolate along x through the axis tables. No full-size intermediate exists.
#pragma once

#include <span>
#include <vector>

#include "axis.hpp"
#include "voxel.hpp"

namespace voxelcore {

// a where weight is 0, whatever b is: a NaN reaches only voxels in which it has a weight. A constant stays
// exact.
inline float lerp(float a, float b, float weight) { return a + (weight == 0.0F ? 0.0F : weight * (b - a)); }

class LinearRow {
  public:
    explicit LinearRow(const LinearPlan& plan)
        : plan_(plan),
          blended_(static_cast<std::size_t>(plan.x.n_in) + 1),
          interpolated_(static_cast<std::size_t>(plan.x.is_identity() ? 0 : plan.x.size())) {}

    // The float values of output row (z, y). `source` is plane `first_z` of the source volume, so that a slab
    // does. Valid until the next call.
    template <class T>
    std::span<const float> operator()(const T* source, Index first_z, Index z, Index y) {
        blend(source, first_z, z, y);
        const auto n_out = static_cast<std::size_t>(plan_.x.size());
        if (plan_.x.is_identity()) return {blended_.data(), n_out};
        blended_.back() = blended_[blended_.size() - 2];  // the second voxel of the last interval
        const float* row = blended_.data();
        const std::int32_t* lower = plan_.x.lower.data();
        const float* weight = plan_.x.weight.data();
        float* out = interpolated_.data();
        for (std::size_t i = 0; i < n_out; ++i) out[i] = lerp(row[lower[i]], row[lower[i] + 1], weight[i]);
        return interpolated_;
    }

  private:
    template <class T>
    void blend(const T* source, Index first_z, Index z, Index y) {
        const auto at_z = static_cast<std::size_t>(z);
        const auto at_y = static_cast<std::size_t>(y);
        const float weight_z = plan_.z.weight[at_z];
        const float weight_y = plan_.y.weight[at_y];
        const Index n = plan_.x.n_in;
        const Index plane = plan_.y.n_in * n;
        const T* r00 = source + (plan_.z.lower[at_z] - first_z) * plane + plan_.y.lower[at_y] * n;
        const T* r01 =
            weight_y == 0.0F ? r00 : r00 + n;  // a voxel without weight may lie outside: do not read it
        const T* r10 = weight_z == 0.0F ? r00 : r00 + plane;
        const T* r11 = weight_z == 0.0F ? r01 : r01 + plane;
        float* row = blended_.data();
        if (weight_z == 0.0F && weight_y == 0.0F) {
            for (Index i = 0; i < n; ++i) row[i] = to_float(r00[i]);
        } else if (weight_z == 0.0F) {
            for (Index i = 0; i < n; ++i) row[i] = lerp(to_float(r00[i]), to_float(r01[i]), weight_y);
        } else if (weight_y == 0.0F) {
            for (Index i = 0; i < n; ++i) row[i] = lerp(to_float(r00[i]), to_float(r10[i]), weight_z);
        } else {
            for (Index i = 0; i < n; ++i) {
                const float near = lerp(to_float(r00[i]), to_float(r01[i]), weight_y);
                const float far = lerp(to_float(r10[i]), to_float(r11[i]), weight_y);
                row[i] = lerp(near, far, weight_z);
            }
        }
    }

    const LinearPlan& plan_;
    std::vector<float> blended_;       // one source row and a copy of its last voxel
    std::vector<float> interpolated_;  // one output row
};

// Rows of output that one piece of parallel work makes: enough to pay for its two row buffers.
inline constexpr Index rows_per_piece = 32;

}  // namespace voxelcore
