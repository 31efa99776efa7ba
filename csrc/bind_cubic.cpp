#include "arguments.hpp"
#include "bind.hpp"
#include "resample_cubic.hpp"

namespace voxelcore {
namespace {

using Accepted = Types<std::int16_t, float>;

py::array cubic(const py::object& volume, const py::object& shape_zyx, const py::object& out,
                const py::object& threads) {
    const py::array input = array_of(volume, "volume", Accepted{});
    require_volume(input, "volume", "(z, y, x)");
    const Zyx shape = shape_argument(shape_zyx, "shape_zyx");
    py::array result = output(out, input.dtype(), {shape.z, shape.y, shape.x}, input);
    const Threads workers = threads_argument(threads);
    const CubicPlan plan = cubic_plan(shape_of(input), shape);
    dispatch(input.dtype(), Accepted{}, [&]<class T>() {
        const T* source = data<T>(input);
        T* target = mutable_data<T>(result);
        const py::gil_scoped_release release;
        resample_cubic(source, plan, target, workers);
    });
    return result;
}

}  // namespace

void bind_cubic(py::module_& m) {
    m.def("resample_cubic", &cubic, py::arg("volume"), py::arg("shape_zyx"), py::arg("out"),
          py::arg("threads"));
}

}  // namespace voxelcore
