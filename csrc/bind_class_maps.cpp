#include <algorithm>

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
    const Threads workers = threads_argument(threads);
    const LinearPlan plan = linear_plan(shape_of(input), shape);
    dispatch(input.dtype(), AnyFloat{}, [&]<class T>() {
        const ClassMapSlab<T> slab{data<T>(input), input.shape(0), shape_of(input).voxels(), 0};
        auto* target = mutable_data<std::uint8_t>(result);
        const py::gil_scoped_release release;
        class_maps_to_labels(slab, plan, 0, shape.z, {target, {shape.y * shape.x, shape.x, 1}}, workers);
    });
    return result;
}

// The last three axes without gaps; planes of a longer volume are such a view.
void require_contiguous_maps(const py::array& maps) {
    py::ssize_t expected = maps.itemsize();
    for (py::ssize_t axis = 3; axis > 0; expected *= maps.shape(axis), --axis)
        if (maps.shape(axis) != 1 && maps.strides(axis) != expected)
            throw py::value_error("class_maps must be C-contiguous within each class, got strides " +
                                  text(maps.attr("strides")) + "; pass numpy.ascontiguousarray(class_maps)");
    if (maps.strides(0) % maps.itemsize() != 0 ||
        reinterpret_cast<std::uintptr_t>(maps.data()) % static_cast<std::uintptr_t>(maps.itemsize()) != 0)
        throw py::value_error("class_maps must be aligned to its item size; pass a copy");
}

void export_planes(const py::object& class_maps, const py::object& first_z, const py::object& planes,
                   const py::object& begin_z, const py::object& end_z, const py::object& out,
                   const py::object& threads) {
    const py::array input = array_of(class_maps, "class_maps", AnyFloat{});
    if (input.ndim() != 4 || input.size() == 0 || input.shape(0) > most_classes)
        throw py::value_error("class_maps must have the axes (c, z, y, x) and 1 to 256 classes, got shape " +
                              shape_text(input));
    require_contiguous_maps(input);
    py::array result = array_of(out, "out", Types<std::uint8_t>{});
    if (result.ndim() != 3 || result.size() == 0 || !result.writeable())
        throw py::value_error("out must be writable and have the axes (z, y, x), got shape " +
                              shape_text(result));
    const Zyx slab = shape_of(input);
    const Zyx shape = shape_of(result);
    if (std::max({slab.y, slab.x, shape.z, shape.y, shape.x}) > longest_axis)
        throw py::value_error("class_maps and out must have at most " + std::to_string(longest_axis) +
                              " elements on every axis, got shapes " + shape_text(input) + " and " +
                              shape_text(result));
    const Index total = integer(planes, "planes", 1, longest_axis);
    const Index first = integer(first_z, "first_z", 0, total - slab.z);
    const Index begin = integer(begin_z, "begin_z", 0, shape.z);
    const Index end = integer(end_z, "end_z", begin, shape.z);
    const Threads workers = threads_argument(threads);
    if (begin == end) return;
    const LinearPlan plan = linear_plan({total, slab.y, slab.x}, shape);
    const auto last = static_cast<std::size_t>(end - 1);
    if (plan.z.lower[static_cast<std::size_t>(begin)] < first ||
        plan.z.lower[last] + (plan.z.exact[last] != 0 ? 1 : 0) >= first + slab.z)
        throw py::value_error("class_maps must hold every plane that the labels " + std::to_string(begin) +
                              " to " + std::to_string(end) + " are made of");
    dispatch(input.dtype(), AnyFloat{}, [&]<class T>() {
        const ClassMapSlab<T> maps{data<T>(input), input.shape(0), input.strides(0) / input.itemsize(),
                                   first};
        const LabelView view{mutable_data<std::uint8_t>(result),
                             {result.strides(0), result.strides(1), result.strides(2)}};
        const py::gil_scoped_release release;
        class_maps_to_labels(maps, plan, begin, end, view, workers);
    });
}

}  // namespace

void bind_class_maps(py::module_& m) {
    m.def("class_maps_to_labels", &to_labels, py::arg("class_maps"), py::arg("shape_zyx"), py::arg("out"),
          py::arg("threads"));
    m.def("export_planes", &export_planes, py::arg("class_maps"), py::arg("first_z"), py::arg("planes"),
          py::arg("begin_z"), py::arg("end_z"), py::arg("out"), py::arg("threads"));
}

}  // namespace voxelcore
