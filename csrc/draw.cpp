#include "draw.hpp"

#include <algorithm>

#include "philox.hpp"

namespace voxelcore {
namespace {

constexpr std::uint32_t volume_stream = first_reserved_stream;
constexpr std::uint32_t start_stream = first_reserved_stream + 1;  // one an axis

constexpr std::uint32_t low_word(std::uint64_t value) { return static_cast<std::uint32_t>(value); }
constexpr std::uint32_t high_word(std::uint64_t value) { return static_cast<std::uint32_t>(value >> 32); }

struct Range {
    Index first;
    Index last;
};

Range starts_inside(Index n, Index patch) {
    if (n < patch) return {-((patch - n) / 2), -((patch - n) / 2)};
    return {0, n - patch};
}

Range starts_around(Range inside, Index patch, Index voxel) {
    if (inside.first == inside.last) return inside;
    return {std::max(inside.first, voxel - patch + 1), std::min(inside.last, voxel)};
}

Index draw_start(Range range, double fraction) {
    // fraction <= 1 - 2^-53, so that the product rounds to less than the count for any count below 2^53.
    return range.first + static_cast<Index>(fraction * static_cast<double>(range.last - range.first + 1));
}

}  // namespace

double uniform(const Source& source, std::uint32_t stream, std::int64_t counter) {
    const auto unsigned_counter = static_cast<std::uint64_t>(counter);
    const PhiloxCounter words =
        philox({low_word(unsigned_counter), high_word(unsigned_counter), source.epoch, stream},
               {low_word(source.seed), high_word(source.seed)});
    const std::uint64_t bits = words[0] | (static_cast<std::uint64_t>(words[1]) << 32);
    return static_cast<double>(bits >> 11) * 0x1p-53;
}

void uniform(const Source& source, std::uint32_t stream, const std::int64_t* counters, Index count,
             double* out) {
    for (Index i = 0; i < count; ++i) out[i] = uniform(source, stream, counters[i]);
}

void draw_volumes(const std::vector<double>& weights, const Source& source, const std::int64_t* counters,
                  Index count, std::int64_t* out) {
    std::vector<double> cumulative(weights.size());
    Index last_positive = 0;
    double total = 0.0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        total += weights[i];
        cumulative[i] = total;
        if (weights[i] > 0.0) last_positive = static_cast<Index>(i);
    }
    for (Index i = 0; i < count; ++i) {
        const double target = uniform(source, volume_stream, counters[i]) * total;
        // The first sum above the target: a weight of zero has the sum of its predecessor and is never the
        // first.
        const auto found = std::ranges::upper_bound(cumulative, target);
        // Subnormal sums can round the target up to the total.
        out[i] = std::min<Index>(found - cumulative.begin(), last_positive);
    }
}

void draw_starts(Zyx shape, Zyx patch, const Source& source, const std::int64_t* counters,
                 const std::int64_t* around, Index count, std::int64_t* out) {
    const Range inside_z = starts_inside(shape.z, patch.z);
    const Range inside_y = starts_inside(shape.y, patch.y);
    const Range inside_x = starts_inside(shape.x, patch.x);
    for (Index i = 0; i < count; ++i) {
        Range z = inside_z;
        Range y = inside_y;
        Range x = inside_x;
        if (around != nullptr) {
            z = starts_around(inside_z, patch.z, around[i] / (shape.y * shape.x));
            y = starts_around(inside_y, patch.y, around[i] / shape.x % shape.y);
            x = starts_around(inside_x, patch.x, around[i] % shape.x);
        }
        out[3 * i] = draw_start(z, uniform(source, start_stream, counters[i]));
        out[3 * i + 1] = draw_start(y, uniform(source, start_stream + 1, counters[i]));
        out[3 * i + 2] = draw_start(x, uniform(source, start_stream + 2, counters[i]));
    }
}

}  // namespace voxelcore
