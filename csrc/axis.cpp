#include "axis.hpp"

#include <algorithm>

namespace voxelcore {

LinearAxis linear_axis(Index n_in, Index n_out) {
    const auto size = static_cast<std::size_t>(n_out);
    LinearAxis axis{n_in, std::vector<std::int32_t>(size), std::vector<float>(size),
                    std::vector<std::int32_t>(size), 2 * n_out};
    for (std::size_t i = 0; i < size; ++i) {
        const Index unclamped = (2 * static_cast<Index>(i) + 1) * n_in - n_out;
        const Index position = std::clamp<Index>(unclamped, 0, (n_in - 1) * axis.denominator);
        const Index remainder = position % axis.denominator;
        axis.lower[i] = static_cast<std::int32_t>(position / axis.denominator);
        axis.exact[i] = static_cast<std::int32_t>(remainder);
        axis.weight[i] =
            static_cast<float>(static_cast<double>(remainder) / static_cast<double>(axis.denominator));
    }
    return axis;
}

std::vector<std::int32_t> nearest_axis(Index n_in, Index n_out) {
    std::vector<std::int32_t> source(static_cast<std::size_t>(n_out));
    for (std::size_t i = 0; i < source.size(); ++i)
        source[i] = static_cast<std::int32_t>((2 * static_cast<Index>(i) + 1) * n_in / (2 * n_out));
    return source;
}

LinearPlan linear_plan(Zyx shape_in, Zyx shape_out) {
    return {linear_axis(shape_in.z, shape_out.z), linear_axis(shape_in.y, shape_out.y),
            linear_axis(shape_in.x, shape_out.x)};
}

}  // namespace voxelcore
