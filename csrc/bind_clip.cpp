#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "arguments.hpp"
#include "bind.hpp"
#include "clip.hpp"

namespace voxelcore {
namespace {

// To float, an inexact value to the neighbour whose last bit is 1: a second rounding, to float16, then is
// that of the double itself.
float rounded_to_odd(double value) {
    const auto nearest = static_cast<float>(value);
    if (static_cast<double>(nearest) == value || !std::isfinite(nearest)) return nearest;
    const bool is_beyond = std::abs(static_cast<double>(nearest)) > std::abs(value);
    const float towards_zero = is_beyond ? std::nextafter(nearest, 0.0F) : nearest;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(towards_zero) | 1U);
}

template <class T>
T bound(double value) {
    if constexpr (std::is_integral_v<T>) {
        constexpr double lowest = std::numeric_limits<T>::min();
        constexpr double highest = std::numeric_limits<T>::max();
        return static_cast<T>(std::clamp(value, lowest, highest));
    } else if constexpr (std::is_same_v<T, Half>) {
        return to_half(rounded_to_odd(value));
    } else {
        return static_cast<T>(value);
    }
}

// For integers: whole bounds, of which the range of the type holds some part.
template <class T>
void require_bounds(double low, double high, const std::string& got) {
    if constexpr (std::is_integral_v<T>) {
        const auto is_whole = [](double value) { return std::isinf(value) || std::trunc(value) == value; };
        if (!is_whole(low) || !is_whole(high))
            throw py::value_error(std::string("low and high must be whole numbers for ") + DType<T>::name +
                                  ", got " + got);
        if (low > std::numeric_limits<T>::max() || high < std::numeric_limits<T>::min())
            throw py::value_error(std::string("low and high must leave a value of ") + DType<T>::name +
                                  ", got " + got);
    }
}

py::array clipped(const py::object& volume, const py::object& low, const py::object& high,
                  const py::object& out, const py::object& threads) {
    const py::array input = array_of(volume, "volume", AnyVoxel{});
    require_volume(input, "volume", "(z, y, x)");
    const double lowest = number(low, "low");
    const double highest = number(high, "high");
    const std::string got = text(low) + " and " + text(high);
    if (!(lowest <= highest)) throw py::value_error("low must be <= high, got " + got);
    dispatch(input.dtype(), AnyVoxel{}, [&]<class T>() { require_bounds<T>(lowest, highest, got); });
    // Each voxel is read once and then written, so the volume may take its own result.
    const bool in_place = out.is(volume);
    if (in_place) require_writable(input, "out");
    py::array result = in_place ? input : output(out, input.dtype(), shape_vector(input), input);
    const Threads workers = threads_argument(threads);
    dispatch(input.dtype(), AnyVoxel{}, [&]<class T>() {
        const T* source = data<T>(input);
        const Index count = input.size();
        T* target = mutable_data<T>(result);
        const py::gil_scoped_release release;
        clip(source, count, bound<T>(lowest), bound<T>(highest), target, workers);
    });
    return result;
}

}  // namespace

void bind_clip(py::module_& m) {
    m.def("clip", &clipped, py::arg("volume"), py::arg("low"), py::arg("high"), py::arg("out"),
          py::arg("threads"));
}

}  // namespace voxelcore
