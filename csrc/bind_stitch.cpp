#include "arguments.hpp"
#include "bind.hpp"
#include "stitch.hpp"

namespace voxelcore {
namespace {

py::array boxes(py::handle value, const char* name, py::ssize_t count) {
    const py::array array = array_of(value, name, Types<std::int64_t>{});
    if (array.ndim() != 2 || array.shape(0) != count || array.shape(1) != 3)
        throw py::value_error(std::string(name) + " must have shape (" + std::to_string(count) +
                              ", 3), got " + shape_text(array));
    require_contiguous(array, name);
    return array;
}

py::array weights(py::handle value, const char* name, py::ssize_t count, Index size) {
    const py::array array = array_of(value, name, Types<float>{});
    if (array.ndim() != 2 || array.shape(0) != count || array.shape(1) != size)
        throw py::value_error(std::string(name) + " must have shape (" + std::to_string(count) + ", " +
                              std::to_string(size) + "), got " + shape_text(array));
    require_contiguous(array, name);
    return array;
}

bool box_fits(Index start, Index box_start, Index box_stop, Index patch, Index n) {
    return 0 <= box_start && box_start <= box_stop && box_stop <= n && start <= box_start &&
           box_stop <= start + patch;
}

void put(const py::object& patches, const py::object& starts_zyx, const py::object& box_starts_zyx,
         const py::object& box_stops_zyx, const py::object& weights_zyx, const py::object& out,
         bool from_zero, const py::object& threads) {
    const py::array input = array_of(patches, "patches", AnyFloat{});
    require_volume(input, "patches", "(n, c, z, y, x)");
    const py::ssize_t count = input.shape(0);
    const Index channels = input.shape(1);
    const Zyx patch = shape_of(input);
    const py::array starts = boxes(starts_zyx, "starts_zyx", count);
    const py::array box_starts = boxes(box_starts_zyx, "box_starts_zyx", count);
    const py::array box_stops = boxes(box_stops_zyx, "box_stops_zyx", count);
    std::vector<py::array> axis_weights;
    if (!weights_zyx.is_none()) {
        if (!py::isinstance<py::tuple>(weights_zyx) || py::len(weights_zyx) != 3)
            throw py::type_error("weights_zyx must be three arrays or None, got " + text(weights_zyx));
        const auto three = py::reinterpret_borrow<py::tuple>(weights_zyx);
        axis_weights = {weights(three[0], "weights_zyx[0]", count, patch.z),
                        weights(three[1], "weights_zyx[1]", count, patch.y),
                        weights(three[2], "weights_zyx[2]", count, patch.x)};
    }
    py::array result = array_of(out, "out", Types<float>{});
    require_volume(result, "out", "(c, z, y, x)");
    require_writable(result, "out");
    if (result.shape(0) != channels)
        throw py::value_error("out must have " + std::to_string(channels) + " channels, got shape " +
                              shape_text(result));
    const Zyx shape = shape_of(result);
    const Threads workers = threads_argument(threads);

    std::vector<Placement> placements;
    const auto at = [](const py::array& array, py::ssize_t i) {
        const auto* row = data<std::int64_t>(array) + 3 * i;
        return Zyx{row[0], row[1], row[2]};
    };
    for (py::ssize_t i = 0; i < count; ++i) {
        Placement placement{at(starts, i), at(box_starts, i), at(box_stops, i)};
        const auto& [start, begin, end, weight_z, weight_y, weight_x] = placement;
        if (!box_fits(start.z, begin.z, end.z, patch.z, shape.z) ||
            !box_fits(start.y, begin.y, end.y, patch.y, shape.y) ||
            !box_fits(start.x, begin.x, end.x, patch.x, shape.x))
            throw py::value_error("the box " + text(begin) + " to " + text(end) + " of patch " +
                                  std::to_string(i) + " must lie inside the volume " + text(shape) +
                                  " and inside the patch " + text(patch) + " at " + text(start));
        if (!axis_weights.empty()) {
            placement.weight_z = data<float>(axis_weights[0]) + i * patch.z;
            placement.weight_y = data<float>(axis_weights[1]) + i * patch.y;
            placement.weight_x = data<float>(axis_weights[2]) + i * patch.x;
        }
        placements.push_back(placement);
    }
    dispatch(input.dtype(), AnyFloat{}, [&]<class T>() {
        const T* source = data<T>(input);
        auto* target = mutable_data<float>(result);
        const py::gil_scoped_release release;
        stitch(source, patch, channels, placements, target, shape, from_zero, workers);
    });
}

}  // namespace

void bind_stitch(py::module_& m) {
    m.def("stitch", &put, py::arg("patches"), py::arg("starts_zyx"), py::arg("box_starts_zyx"),
          py::arg("box_stops_zyx"), py::arg("weights_zyx"), py::arg("out"), py::arg("from_zero"),
          py::arg("threads"));
}

}  // namespace voxelcore
