#include "arguments.hpp"
#include "bind.hpp"
#include "class_maps.hpp"

namespace voxelcore {
namespace {

constexpr Index most_classes = 256;  // a label is a uint8

py::array to_labels(const py::object& class_maps, const py::object& shape_zyx, const py::object& out,
                    const py::object& threads) {
    const py::array input = array_of(class_maps, "class_maps", AnyFloat{});
    require_volume(input, "class_maps", "(c, z, y, x)");
    if (input.shape(0) > most_classes)
        throw py::value_error("class_maps must have 1 to 256 classes, got shape " + shape_text(input));
    const Zyx shape = shape_argument(shape_zyx, "shape_zyx");
    py::array result = output(out, py::dtype::of<std::uint8_t>(), {shape.z, shape.y, shape.x}, input);
    const int workers = threads_argument(threads);
    const LinearPlan plan = linear_plan(shape_of(input), shape);
    dispatch(input.dtype(), AnyFloat{}, [&]<class T>() {
        const ClassMapSlab<T> slab{data<T>(input), input.shape(0), shape_of(input).voxels(), 0};
        auto* target = mutable_data<std::uint8_t>(result);
        const py::gil_scoped_release release;
        class_maps_to_labels(slab, plan, 0, shape.z, target, workers);
    });
    return result;
}

}  // namespace

void bind_class_maps(py::module_& m) {
    m.def("class_maps_to_labels", &to_labels, py::arg("class_maps"), py::arg("shape_zyx"), py::arg("out"),
          py::arg("threads"));
}

}  // namespace voxelcore
