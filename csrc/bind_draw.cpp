#include <cmath>
#include <limits>

#include "arguments.hpp"
#include "bind.hpp"
#include "draw.hpp"

namespace voxelcore {
namespace {

std::uint64_t seed_argument(py::handle value) {
    const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
    if (!index) {
        PyErr_Clear();
        throw py::type_error("seed must be a whole number, got " + text(value));
    }
    const std::uint64_t seed = PyLong_AsUnsignedLongLong(index.ptr());
    if (PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        throw py::value_error("seed must be 0 to 2**64 - 1, got " + text(value));
    }
    return seed;
}

std::uint32_t word(py::handle value, const char* name) {
    return static_cast<std::uint32_t>(integer(value, name, 0, std::numeric_limits<std::uint32_t>::max()));
}

py::array counters_argument(py::handle value) {
    py::array counters = array_of(value, "counters", Types<std::int64_t>{});
    require_contiguous(counters, "counters");
    return counters;
}

py::array uniform_numbers(const py::object& counters, const py::object& seed, const py::object& epoch,
                          const py::object& stream) {
    const py::array input = counters_argument(counters);
    const Source source{seed_argument(seed), word(epoch, "epoch")};
    const std::uint32_t of_stream = word(stream, "stream");
    py::array result(py::dtype::of<double>(), shape_vector(input));
    const auto* counter = data<std::int64_t>(input);
    auto* number = mutable_data<double>(result);
    const Index count = input.size();
    const py::gil_scoped_release release;
    uniform(source, of_stream, counter, count, number);
    return result;
}

std::vector<double> weights_argument(py::handle value) {
    const py::array array = array_of(value, "weights", Types<double>{});
    if (array.ndim() != 1 || array.size() == 0)
        throw py::value_error("weights must have one axis that is not empty, got shape " + shape_text(array));
    require_contiguous(array, "weights");
    std::vector<double> weights(data<double>(array), data<double>(array) + array.size());
    double total = 0.0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        if (!std::isfinite(weights[i]) || weights[i] < 0.0)
            throw py::value_error("weights must be finite and >= 0, got " + std::to_string(weights[i]) +
                                  " at index " + std::to_string(i));
        total += weights[i];
    }
    if (!std::isfinite(total) || total <= 0.0)
        throw py::value_error("weights must have a finite sum above 0, got " + std::to_string(total));
    return weights;
}

py::array volumes(const py::object& weights, const py::object& counters, const py::object& seed,
                  const py::object& epoch) {
    const std::vector<double> probabilities = weights_argument(weights);
    const py::array input = counters_argument(counters);
    const Source source{seed_argument(seed), word(epoch, "epoch")};
    py::array result(py::dtype::of<std::int64_t>(), shape_vector(input));
    const auto* counter = data<std::int64_t>(input);
    auto* drawn = mutable_data<std::int64_t>(result);
    const Index count = input.size();
    const py::gil_scoped_release release;
    draw_volumes(probabilities, source, counter, count, drawn);
    return result;
}

// One flat voxel index a counter; null where starts are not tied to a voxel.
const std::int64_t* around_argument(const py::object& around, const py::array& counters, Zyx shape) {
    if (around.is_none()) return nullptr;
    const py::array array = array_of(around, "around", Types<std::int64_t>{});
    if (array.ndim() != 1 || array.size() != counters.size())
        throw py::value_error("around must have one voxel for each counter, got shape " + shape_text(array) +
                              " for " + std::to_string(counters.size()) + " counters");
    require_contiguous(array, "around");
    const auto* voxels = data<std::int64_t>(array);
    for (Index i = 0; i < array.size(); ++i)
        if (voxels[i] < 0 || voxels[i] >= shape.voxels())
            throw py::value_error("around must hold flat voxel indices below " +
                                  std::to_string(shape.voxels()) + ", got " + std::to_string(voxels[i]) +
                                  " at index " + std::to_string(i));
    return voxels;
}

py::array starts(const py::object& shape_zyx, const py::object& patch_shape_zyx, const py::object& counters,
                 const py::object& seed, const py::object& epoch, const py::object& around) {
    const Zyx shape = shape_argument(shape_zyx, "shape_zyx");
    const Zyx patch = shape_argument(patch_shape_zyx, "patch_shape_zyx");
    const py::array input = counters_argument(counters);
    if (input.ndim() != 1)
        throw py::value_error("counters must have one axis, got shape " + shape_text(input));
    const Source source{seed_argument(seed), word(epoch, "epoch")};
    const std::int64_t* voxels = around_argument(around, input, shape);
    py::array result(py::dtype::of<std::int64_t>(), std::vector<Index>{input.size(), 3});
    const auto* counter = data<std::int64_t>(input);
    auto* start = mutable_data<std::int64_t>(result);
    const Index count = input.size();
    const py::gil_scoped_release release;
    draw_starts(shape, patch, source, counter, voxels, count, start);
    return result;
}

}  // namespace

void bind_draw(py::module_& m) {
    m.def("uniform", &uniform_numbers, py::arg("counters"), py::arg("seed"), py::arg("epoch"),
          py::arg("stream"));
    m.def("draw_volumes", &volumes, py::arg("weights"), py::arg("counters"), py::arg("seed"),
          py::arg("epoch"));
    m.def("draw_starts", &starts, py::arg("shape_zyx"), py::arg("patch_shape_zyx"), py::arg("counters"),
          py::arg("seed"), py::arg("epoch"), py::arg("around"));
}

}  // namespace voxelcore
