#include "arguments.hpp"
#include "bind.hpp"
#include "resample_linear.hpp"

namespace voxelcore {
namespace {

py::array linear(const py::object& volume, const py::object& shape_zyx, const py::object& out,
                 const py::object& threads) {
    const py::array input = array_of(volume, "volume", AnyVoxel{});
    require_volume(input, "volume", "(z, y, x)");
    const Zyx shape = shape_argument(shape_zyx, "shape_zyx");
    py::array result = output(out, input.dtype(), {shape.z, shape.y, shape.x}, input);
    const Threads workers = threads_argument(threads);
    const LinearPlan plan = linear_plan(shape_of(input), shape);
    dispatch(input.dtype(), AnyVoxel{}, [&]<class T>() {
        const T* source = data<T>(input);
        T* target = mutable_data<T>(result);
        const py::gil_scoped_release release;
        resample_linear(source, plan, target, workers);
    });
    return result;
}

}  // namespace

void bind_linear(py::module_& m) {
    m.def("resample_linear", &linear, py::arg("volume"), py::arg("shape_zyx"), py::arg("out"),
          py::arg("threads"));
}

}  // namespace voxelcore
