#include "arguments.hpp"
#include "bind.hpp"
#include "label_runs.hpp"

namespace voxelcore {
namespace {

py::array_t<std::int64_t> copied(const std::vector<Index>& values) {
    return py::array_t<std::int64_t>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::tuple runs(const py::object& labels, const py::object& label) {
    const py::array input = array_of(labels, "labels", Types<std::uint8_t>{});
    require_volume(input, "labels", "(z, y, x)");
    const auto value = static_cast<std::uint8_t>(integer(label, "label", 0, 255));
    const auto* source = data<std::uint8_t>(input);
    LabelRuns found;
    {
        const py::gil_scoped_release release;
        found = label_runs(source, shape_of(input).voxels(), value);
    }
    return py::make_tuple(copied(found.start), copied(found.cumulative));
}

}  // namespace

void bind_label_runs(py::module_& m) { m.def("label_runs", &runs, py::arg("labels"), py::arg("label")); }

}  // namespace voxelcore
