// Two passes over memory: every source plane is filtered and interpolated along x and y while it is in cache,
// then every column along z. The axes commute, so that no array of coefficients of the whole volume is
// needed.
#include "resample_cubic.hpp"

#include <algorithm>
#include <vector>

#include "large_buffer.hpp"
#include "spline_panel.hpp"
#include "voxel.hpp"

namespace voxelcore {
namespace {

constexpr Index row_lanes = 32;     // rows of a plane that are filtered along x together
constexpr Index column_lanes = 64;  // columns that are filtered along y or z together

// A line of a panel to or from a volume. The full width is written as a constant, so that it becomes vectors.
template <Index width, class Convert>
void convert_line(Index lanes, const Convert& convert) {
    if (lanes == width) {
        for (Index j = 0; j < width; ++j) convert(j);
    } else {
        for (Index j = 0; j < lanes; ++j) convert(j);
    }
}

// Rows (count, n) of a plane along x: transposed into a panel, which makes lanes of the rows, and back.
template <class T>
void resample_rows(const T* rows, Index count, const CubicAxis& x, float* panel, float* out) {
    for (Index first = 0; first < count; first += row_lanes) {
        const Index lanes = std::min(row_lanes, count - first);
        for (Index j = 0; j < lanes; ++j) {
            const T* row = rows + (first + j) * x.n_in;
            for (Index i = 0; i < x.n_in; ++i) panel[i * row_lanes + j] = to_float(row[i]);
        }
        filter_panel<row_lanes>(panel, x);
        std::array<float, row_lanes> values;
        for (Index i = 0; i < x.size(); ++i) {
            interpolate_panel<row_lanes>(panel, x, i, values.data());
            for (Index j = 0; j < lanes; ++j)
                out[(first + j) * x.size() + i] = values[static_cast<std::size_t>(j)];
        }
    }
}

// Up to column_lanes columns along y or z, read from source (line_in values apart) into a panel and written
// to target (line_out apart).
template <class In, class Out>
void resample_columns(const In* source, Index line_in, Index lanes, const CubicAxis& axis, float* panel,
                      Out* target, Index line_out) {
    for (Index i = 0; i < axis.n_in; ++i) {
        const In* from = source + i * line_in;
        float* to = panel + i * column_lanes;
        convert_line<column_lanes>(lanes, [from, to](Index j) { to[j] = to_float(from[j]); });
    }
    filter_panel<column_lanes>(panel, axis);
    std::array<float, column_lanes> values;
    for (Index i = 0; i < axis.size(); ++i) {
        interpolate_panel<column_lanes>(panel, axis, i, values.data());
        const float* from = values.data();
        Out* to = target + i * line_out;
        convert_line<column_lanes>(lanes, [from, to](Index j) { to[j] = from_float<Out>(from[j]); });
    }
}

template <class T>
void resample_plane(const T* plane, const CubicPlan& plan, float* rows, float* panel, float* out) {
    const Index width = plan.x.size();
    float* target = plan.y.is_identity() ? out : rows;
    if (plan.x.is_identity()) {
        for (Index i = 0; i < plan.y.n_in * width; ++i) target[i] = to_float(plane[i]);
    } else {
        resample_rows(plane, plan.y.n_in, plan.x, panel, target);
    }
    if (plan.y.is_identity()) return;
    for (Index first = 0; first < width; first += column_lanes)
        resample_columns(rows + first, width, std::min(column_lanes, width - first), plan.y, panel,
                         out + first, width);
}

}  // namespace

template <class T>
void resample_cubic(const T* volume, const CubicPlan& plan, T* out, Threads threads) {
    const Zyx in = plan.shape_in();
    const Zyx shape = plan.shape_out();
    const Index plane = shape.y * shape.x;
    const LargeBuffer planes(in.z * plane);
    const auto panel_size = [](Index n, Index lanes) { return static_cast<std::size_t>(n * lanes); };

    parallel_pieces(in.z, 1, threads, [&](auto /*set*/, Index begin, Index end) {
        std::vector<float> rows(static_cast<std::size_t>(plan.y.is_identity() ? 0 : in.y * shape.x));
        std::vector<float> panel(std::max(panel_size(in.x, row_lanes), panel_size(in.y, column_lanes)));
        for (Index z = begin; z < end; ++z)
            resample_plane(volume + z * in.y * in.x, plan, rows.data(), panel.data(),
                           planes.data() + z * plane);
    });
    if (plan.z.is_identity()) {
        parallel_pieces(shape.voxels(), plane, threads, [&](auto /*set*/, Index begin, Index end) {
            for (Index i = begin; i < end; ++i) out[i] = from_float<T>(planes.data()[i]);
        });
        return;
    }
    parallel_pieces(plane, column_lanes, threads, [&](auto /*set*/, Index begin, Index end) {
        std::vector<float> panel(panel_size(in.z, column_lanes));
        resample_columns(planes.data() + begin, plane, end - begin, plan.z, panel.data(), out + begin, plane);
    });
}

template void resample_cubic(const std::int16_t*, const CubicPlan&, std::int16_t*, Threads);
template void resample_cubic(const float*, const CubicPlan&, float*, Threads);

}  // namespace voxelcore
