// One output row of a linear resampling: blend the 2 x 2 source rows around it into one float row that stays
// in cache, then interpolate along x through the axis tables. No full-size intermediate exists.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "axis.hpp"
#include "half_rows.hpp"
#include "stream.hpp"
#include "taps.hpp"
#include "voxel.hpp"

namespace voxelcore {

template <class Set>
class LinearRow {
  public:
    explicit LinearRow(const LinearPlan& plan)
        : plan_(plan),
          blended_(static_cast<std::size_t>(plan.x.n_in) + row_padding),
          interpolated_(static_cast<std::size_t>(plan.x.is_identity() ? 0 : plan.x.size())) {}

    // The float values of output row (z, y). `source` is plane `first_z` of the source volume, so that a slab
    // does. Valid until the next call.
    template <class T>
    std::span<const float> operator()(const T* source, Index first_z, Index z, Index y) {
        blend(source, first_z, z, y);
        const auto n_in = static_cast<std::size_t>(plan_.x.n_in);
        if (plan_.x.is_identity()) return {blended_.data(), n_in};
        blended_[n_in] = blended_[n_in - 1];  // the second voxel of the last interval
        interpolate<std::is_integral_v<T>>(Set{}, blended_.data(), plan_.x, interpolated_.data());
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
        // A row without weight may lie outside: it is not read.
        const T* near = source + (plan_.z.lower[at_z] - first_z) * plane + plan_.y.lower[at_y] * n;
        prefetch(near, 2 * n, n);  // the next output's rows
        if (weight_z != 0.0F) prefetch(near, plane + 2 * n, n);
        if (weight_z == 0.0F && weight_y == 0.0F) {
            blend_rows<1, T>({near}, {});
        } else if (weight_z == 0.0F) {
            blend_rows<2, T>({near, near + n}, {weight_y});
        } else if (weight_y == 0.0F) {
            blend_rows<2, T>({near, near + plane}, {weight_z});
        } else {
            blend_rows<4, T>({near, near + n, near + plane, near + plane + n}, {weight_y, weight_z});
        }
    }

    // One row, two with a weight, or two times two: first along y, then along z. No weight is 0.
    template <std::size_t count, class T>
    void blend_rows(std::array<const T*, count> rows, std::array<float, 2> weights) {
        const Index n = plan_.x.n_in;
        if constexpr (std::is_same_v<T, Half>) {
            widened_.resize(count * static_cast<std::size_t>(n));
            std::array<const float*, count> wide;
            for (std::size_t row = 0; row < count; ++row) {
                float* to = widened_.data() + row * static_cast<std::size_t>(n);
                widen(Set{}, rows[row], n, to);
                wide[row] = to;
            }
            blend_rows<count, float>(wide, weights);
        } else {
            const auto between = [](float a, float b, float weight) { return a + weight * (b - a); };
            float* row = blended_.data();
            for (Index i = 0; i < n; ++i) {
                float value = to_float(rows[0][i]);
                if constexpr (count > 1) value = between(value, to_float(rows[1][i]), weights[0]);
                if constexpr (count > 2)
                    value = between(value, between(to_float(rows[2][i]), to_float(rows[3][i]), weights[0]),
                                    weights[1]);
                row[i] = value;
            }
        }
    }

    const LinearPlan& plan_;
    std::vector<float> blended_;       // one source row, a copy of its last voxel, and padding
    std::vector<float> interpolated_;  // one output row
    std::vector<float> widened_;       // source rows of float16
};

// Rows of output that one piece of parallel work makes: enough to pay for its row buffers.
inline constexpr Index rows_per_piece = 32;

}  // namespace voxelcore
