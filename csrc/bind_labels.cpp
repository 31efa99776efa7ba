#include "arguments.hpp"
#include "bind.hpp"
#include "resample_labels.hpp"

namespace voxelcore {
namespace {

py::array labels(const py::object& labels, const py::object& shape_zyx, const py::object& method,
                 const py::object& out, const py::object& threads) {
    const py::array input = array_of(labels, "labels", Types<std::uint8_t>{});
    require_volume(input, "labels", "(z, y, x)");
    const Zyx shape = shape_argument(shape_zyx, "shape_zyx");
    const bool nearest = method.equal(py::str("nearest"));
    if (!nearest && !method.equal(py::str("linear")))
        throw py::value_error("method must be 'linear' or 'nearest', got " + text(method));
    py::array result = output(out, input.dtype(), {shape.z, shape.y, shape.x}, input);
    const Threads workers = threads_argument(threads);
    const auto* source = data<std::uint8_t>(input);
    auto* target = mutable_data<std::uint8_t>(result);
    const LinearPlan plan = linear_plan(shape_of(input), shape);
    const py::gil_scoped_release release;
    if (nearest)
        resample_labels_nearest(source, plan.shape_in(), plan.shape_out(), target, workers);
    else
        resample_labels_linear(source, plan, target, workers);
    return result;
}

}  // namespace

void bind_labels(py::module_& m) {
    m.def("resample_labels", &labels, py::arg("labels"), py::arg("shape_zyx"), py::arg("method"),
          py::arg("out"), py::arg("threads"));
}

}  // namespace voxelcore
