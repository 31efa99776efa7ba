#include <cmath>

#include "arguments.hpp"
#include "bind.hpp"
#include "preprocess.hpp"

namespace voxelcore {
namespace {

bool fits_float(double value) { return std::isfinite(static_cast<float>(value)); }

Normalisation normalisation_argument(const py::object& window_hu, const py::object& mean,
                                     const py::object& std) {
    if (!py::isinstance<py::sequence>(window_hu))
        throw py::type_error("window_hu must be two numbers (low, high), got " + text(window_hu));
    const auto window = py::reinterpret_borrow<py::sequence>(window_hu);
    if (py::len(window) != 2)
        throw py::value_error("window_hu must be two numbers (low, high), got " + text(window_hu));
    const double low = number(py::object(window[0]), "window_hu");
    const double high = number(py::object(window[1]), "window_hu");
    if (!fits_float(low) || !fits_float(high) || low >= high)
        throw py::value_error("window_hu must be finite with low < high, got " + text(window_hu));
    const double centre = number(mean, "mean");
    if (!fits_float(centre)) throw py::value_error("mean must be finite, got " + text(mean));
    const double deviation = number(std, "std");
    if (!fits_float(deviation) || static_cast<float>(deviation) <= 0.0F)
        throw py::value_error("std must be finite and above 0, got " + text(std));
    return {static_cast<float>(low), static_cast<float>(high), static_cast<float>(centre),
            static_cast<float>(deviation)};
}

void run(const py::array& input, Index first, const LinearPlan& plan, const Normalisation& normalisation,
         Index begin, Index end, py::array& result, Threads workers) {
    dispatch(result.dtype(), AnyFloat{}, [&]<class T>() {
        const auto* source = data<std::int16_t>(input);
        T* target = mutable_data<T>(result);
        const py::gil_scoped_release release;
        preprocess(source, first, plan, normalisation, begin, end, target, workers);
    });
}

py::array preprocessed(const py::object& volume, const py::object& shape_zyx, const py::object& window_hu,
                       const py::object& mean, const py::object& std, const py::dtype& dtype,
                       const py::object& out, const py::object& threads) {
    const py::array input = array_of(volume, "volume", Types<std::int16_t>{});
    require_volume(input, "volume", "(z, y, x)");
    const Zyx shape = shape_argument(shape_zyx, "shape_zyx");
    const Normalisation normalisation = normalisation_argument(window_hu, mean, std);
    require_dtype(dtype, "the result", AnyFloat{});
    py::array result = output(out, dtype, {shape.z, shape.y, shape.x}, input);
    const Threads workers = threads_argument(threads);
    const LinearPlan plan = linear_plan(shape_of(input), shape);
    run(input, 0, plan, normalisation, 0, shape.z, result, workers);
    return result;
}

py::array preprocessed_planes(const py::object& slab, const py::object& first_z, const py::object& planes,
                              const py::object& shape_zyx, const py::object& begin_z, const py::object& end_z,
                              const py::object& window_hu, const py::object& mean, const py::object& std,
                              const py::dtype& dtype, const py::object& out, const py::object& threads) {
    const py::array input = array_of(slab, "slab", Types<std::int16_t>{});
    require_volume(input, "slab", "(z, y, x)");
    const Zyx given = shape_of(input);
    const Zyx shape = shape_argument(shape_zyx, "shape_zyx");
    const Index total = integer(planes, "planes", given.z, longest_axis);
    const Index first = integer(first_z, "first_z", 0, total - given.z);
    const Index begin = integer(begin_z, "begin_z", 0, shape.z - 1);
    const Index end = integer(end_z, "end_z", begin + 1, shape.z);
    const Normalisation normalisation = normalisation_argument(window_hu, mean, std);
    require_dtype(dtype, "the result", AnyFloat{});
    py::array result = output(out, dtype, {end - begin, shape.y, shape.x}, input);
    const Threads workers = threads_argument(threads);
    const LinearPlan plan = linear_plan({total, given.y, given.x}, shape);
    const auto last = static_cast<std::size_t>(end - 1);
    if (plan.z.lower[static_cast<std::size_t>(begin)] < first ||
        plan.z.lower[last] + (plan.z.exact[last] != 0 ? 1 : 0) >= first + given.z)
        throw py::value_error("slab must hold every plane that the planes " + std::to_string(begin) + " to " +
                              std::to_string(end) + " of the result are made of");
    run(input, first, plan, normalisation, begin, end, result, workers);
    return result;
}

}  // namespace

void bind_preprocess(py::module_& m) {
    m.def("preprocess", &preprocessed, py::arg("volume"), py::arg("shape_zyx"), py::arg("window_hu"),
          py::arg("mean"), py::arg("std"), py::arg("dtype"), py::arg("out"), py::arg("threads"));
    m.def("preprocess_planes", &preprocessed_planes, py::arg("slab"), py::arg("first_z"), py::arg("planes"),
          py::arg("shape_zyx"), py::arg("begin_z"), py::arg("end_z"), py::arg("window_hu"), py::arg("mean"),
          py::arg("std"), py::arg("dtype"), py::arg("out"), py::arg("threads"));
}

}  // namespace voxelcore
