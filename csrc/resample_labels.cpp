#include "resample_labels.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace voxelcore {
namespace {

constexpr Index rows_per_piece = 32;
constexpr Index outputs_per_block = 64;  // in most of a label map all have one label, and are filled at once
constexpr std::int16_t mixed = -1;

template <class T>
bool is_uniform(const T* begin, const T* end) {
    T differs = 0;
    for (const T* at = begin; at < end; ++at) differs = static_cast<T>(differs | (*at ^ *begin));
    return differs == 0;
}

// The four source rows around an output row with their weights, in units of the product of the denominators
// of z and y.
struct RowBundle {
    std::array<const std::uint8_t*, 4> rows;
    std::array<std::uint64_t, 4> weights;
};

RowBundle bundle(const std::uint8_t* labels, const LinearPlan& plan, Index z, Index y) {
    const auto at_z = static_cast<std::size_t>(z);
    const auto at_y = static_cast<std::size_t>(y);
    const Index n = plan.x.n_in;
    const Index plane = plan.y.n_in * n;
    const auto far_z = static_cast<std::uint64_t>(plan.z.exact[at_z]);
    const auto far_y = static_cast<std::uint64_t>(plan.y.exact[at_y]);
    const std::uint64_t near_z = static_cast<std::uint64_t>(plan.z.denominator) - far_z;
    const std::uint64_t near_y = static_cast<std::uint64_t>(plan.y.denominator) - far_y;
    const std::uint8_t* first = labels + plan.z.lower[at_z] * plane + plan.y.lower[at_y] * n;
    const Index step_y = far_y == 0 ? 0 : n;  // a voxel without weight may lie outside: do not read it
    const Index step_z = far_z == 0 ? 0 : plane;
    return {{first, first + step_y, first + step_z, first + step_z + step_y},
            {near_z * near_y, near_z * far_y, far_z * near_y, far_z * far_y}};
}

// The label of greatest weight among the eight voxels around output voxel i, the lowest of equals.
std::uint8_t heaviest(const RowBundle& source, const LinearAxis& x, std::size_t i) {
    const auto far_x = static_cast<std::uint64_t>(x.exact[i]);
    const std::uint64_t near_x = static_cast<std::uint64_t>(x.denominator) - far_x;
    const Index near = x.lower[i];
    const Index far = far_x == 0 ? near : near + 1;
    std::array<std::uint8_t, 8> label;
    std::array<std::uint64_t, 8> weight;
    for (std::size_t row = 0; row < 4; ++row) {
        label[2 * row] = source.rows[row][near];
        label[2 * row + 1] = source.rows[row][far];
        weight[2 * row] = source.weights[row] * near_x;
        weight[2 * row + 1] = source.weights[row] * far_x;
    }
    std::uint8_t best = 255;
    std::uint64_t best_weight = 0;
    for (std::size_t candidate = 0; candidate < 8; ++candidate) {
        std::uint64_t total = 0;
        for (std::size_t other = 0; other < 8; ++other)
            total += label[other] == label[candidate] ? weight[other] : 0;
        if (total > best_weight || (total == best_weight && label[candidate] < best)) {
            best = label[candidate];
            best_weight = total;
        }
    }
    return best;
}

std::uint8_t voted(const RowBundle& source, const std::int16_t* agreed, const LinearAxis& x, std::size_t i) {
    const auto lower = static_cast<std::size_t>(x.lower[i]);
    const std::int16_t label = agreed[lower];
    const bool uniform = label != mixed && label == agreed[lower + 1];
    return uniform ? static_cast<std::uint8_t>(label) : heaviest(source, x, i);
}

}  // namespace

void resample_labels_nearest(const std::uint8_t* labels, Zyx shape_in, Zyx shape_out, std::uint8_t* out,
                             Threads threads) {
    const auto source_z = nearest_axis(shape_in.z, shape_out.z);
    const auto source_y = nearest_axis(shape_in.y, shape_out.y);
    const auto source_x = nearest_axis(shape_in.x, shape_out.x);
    parallel_pieces(shape_out.rows(), rows_per_piece, threads, [&](auto /*set*/, Index begin, Index end) {
        // Copies of what is captured: a store of uint8 might change it, for all that the compiler knows.
        const std::int32_t* x = source_x.data();
        const Index n = shape_out.x;
        for (Index row = begin; row < end; ++row) {
            const Index z = source_z[static_cast<std::size_t>(row / shape_out.y)];
            const Index y = source_y[static_cast<std::size_t>(row % shape_out.y)];
            const std::uint8_t* source = labels + (z * shape_in.y + y) * shape_in.x;
            std::uint8_t* target = out + row * n;
            for (Index first = 0; first < n; first += outputs_per_block) {
                const Index stop = std::min(first + outputs_per_block, n);
                if (is_uniform(source + x[first], source + x[stop - 1] + 1)) {
                    std::fill(target + first, target + stop, source[x[first]]);
                } else {
                    for (Index i = first; i < stop; ++i) target[i] = source[x[i]];
                }
            }
        }
    });
}

void resample_labels_linear(const std::uint8_t* labels, const LinearPlan& plan, std::uint8_t* out,
                            Threads threads) {
    const Zyx shape = plan.shape_out();
    const LinearAxis& x = plan.x;
    parallel_pieces(shape.rows(), rows_per_piece, threads, [&](auto /*set*/, Index begin, Index end) {
        // The label on which all four source rows agree, or `mixed`; the last voxel twice, as the upper
        // neighbour.
        std::vector<std::int16_t> agreed(static_cast<std::size_t>(x.n_in) + 1);
        for (Index row = begin; row < end; ++row) {
            const RowBundle source = bundle(labels, plan, row / shape.y, row % shape.y);
            const auto [a, b, c, d] = source.rows;
            for (Index i = 0; i < x.n_in; ++i) {
                const bool same = (a[i] == b[i]) & (a[i] == c[i]) & (a[i] == d[i]);
                agreed[static_cast<std::size_t>(i)] = same ? static_cast<std::int16_t>(a[i]) : mixed;
            }
            agreed.back() = agreed[agreed.size() - 2];
            std::uint8_t* target = out + row * shape.x;
            for (Index first = 0; first < shape.x; first += outputs_per_block) {
                const Index stop = std::min(first + outputs_per_block, shape.x);
                const auto low = static_cast<std::size_t>(x.lower[static_cast<std::size_t>(first)]);
                const auto high = static_cast<std::size_t>(x.lower[static_cast<std::size_t>(stop) - 1]) + 1;
                if (agreed[low] != mixed && is_uniform(agreed.data() + low, agreed.data() + high + 1)) {
                    std::fill(target + first, target + stop, static_cast<std::uint8_t>(agreed[low]));
                } else {
                    for (Index i = first; i < stop; ++i)
                        target[i] = voted(source, agreed.data(), x, static_cast<std::size_t>(i));
                }
            }
        }
    });
}

}  // namespace voxelcore
