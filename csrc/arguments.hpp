// What every binding does with its arguments: NumPy arrays into raw pointers, with all validation here.
// Nothing is cast and nothing is copied: what does not fit is refused with a message that says what was
// required, what came, and the remedy.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <optional>
#include <string>
#include <vector>

#include "half.hpp"
#include "parallel.hpp"
#include "shape.hpp"

namespace voxelcore {

namespace py = pybind11;

template <class T>
struct DType;  // NumPy's name of T, and its kind
template <>
struct DType<std::uint8_t> {
    static constexpr const char* name = "uint8";
    static constexpr char kind = 'u';
};
template <>
struct DType<std::int16_t> {
    static constexpr const char* name = "int16";
    static constexpr char kind = 'i';
};
template <>
struct DType<std::int64_t> {
    static constexpr const char* name = "int64";
    static constexpr char kind = 'i';
};
template <>
struct DType<Half> {
    static constexpr const char* name = "float16";
    static constexpr char kind = 'f';
};
template <>
struct DType<float> {
    static constexpr const char* name = "float32";
    static constexpr char kind = 'f';
};
template <>
struct DType<double> {
    static constexpr const char* name = "float64";
    static constexpr char kind = 'f';
};

template <class T>
bool holds(const py::dtype& dtype) {
    return dtype.kind() == DType<T>::kind && dtype.itemsize() == static_cast<py::ssize_t>(sizeof(T)) &&
           (dtype.byteorder() == '=' || dtype.byteorder() == '|');
}

template <class... Ts>
struct Types {};
using AnyVoxel = Types<std::uint8_t, std::int16_t, Half, float>;
using AnyFloat = Types<Half, float>;

std::string text(py::handle value);  // repr
[[noreturn]] void refuse_dtype(const char* name, const std::vector<const char*>& accepted,
                               const py::dtype& got);

template <class... Ts>
void require_dtype(const py::dtype& dtype, const char* name, Types<Ts...> /*accepted*/) {
    if (!(holds<Ts>(dtype) || ...)) refuse_dtype(name, {DType<Ts>::name...}, dtype);
}

// Call function<T>() for the type that `dtype` holds; require_dtype with the same types came before.
template <class Function, class... Ts>
void dispatch(const py::dtype& dtype, Types<Ts...> /*accepted*/, Function&& function) {
    const bool found = ((holds<Ts>(dtype) && (function.template operator()<Ts>(), true)) || ...);
    if (!found) throw std::logic_error("a dtype was accepted for which there is no kernel");
}

template <class... Ts>
py::array array_of(py::handle value, const char* name, Types<Ts...> accepted) {
    if (!py::isinstance<py::array>(value))
        throw py::type_error(std::string(name) + " must be a numpy array, got " + text(py::type::of(value)));
    auto array = py::reinterpret_borrow<py::array>(value);
    require_dtype(array.dtype(), name, accepted);
    return array;
}

// As many axes as `axes` says ("(z, y, x)"), none empty or longer than longest_axis, C-contiguous and
// aligned.
void require_volume(const py::array& array, const char* name, const char* axes);
void require_contiguous(const py::array& array, const char* name);
// The last three axes.
Zyx shape_of(const py::array& array);
std::vector<Index> shape_vector(const py::array& array);
std::string shape_text(const py::array& array);
std::string text(Zyx shape);

template <class T>
const T* data(const py::array& array) {
    return static_cast<const T*>(array.data());
}
template <class T>
T* mutable_data(py::array& array) {
    return static_cast<T*>(array.mutable_data());
}

// Three whole numbers; a shape has none below 1 or above longest_axis.
Zyx three_integers(py::handle value, const char* name);
Zyx shape_argument(py::handle value, const char* name);
double number(py::handle value, const char* name);
Index integer(py::handle value, const char* name, Index least, Index most);
Threads threads_argument(py::handle value);

// A new array, or `out` after checking that it is exactly that array and shares no memory with `input`.
py::array output(py::handle out, const py::dtype& dtype, const std::vector<Index>& shape,
                 const py::array& input);
// An array that is written into: C-contiguous, aligned, writable.
void require_writable(const py::array& array, const char* name);

}  // namespace voxelcore
