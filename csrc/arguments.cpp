#include "arguments.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include "parallel.hpp"

namespace voxelcore {
namespace {

std::string joined(const std::vector<const char*>& words) {
    std::string result = words.front();
    for (std::size_t i = 1; i < words.size(); ++i)
        result += (i + 1 == words.size() ? " or " : ", ") + std::string(words[i]);
    return result;
}

std::string tuple_text(const std::vector<Index>& values) {
    std::string result = "(";
    for (std::size_t i = 0; i < values.size(); ++i)
        result += (i == 0 ? "" : ", ") + std::to_string(values[i]);
    return result + (values.size() == 1 ? ",)" : ")");
}

bool is_aligned(const py::array& array) {
    return reinterpret_cast<std::uintptr_t>(array.data()) % static_cast<std::uintptr_t>(array.itemsize()) ==
           0;
}

bool overlap(const py::array& a, const py::array& b) {
    const auto a_begin = reinterpret_cast<std::uintptr_t>(a.data());
    const auto b_begin = reinterpret_cast<std::uintptr_t>(b.data());
    return a_begin < b_begin + static_cast<std::uintptr_t>(b.nbytes()) &&
           b_begin < a_begin + static_cast<std::uintptr_t>(a.nbytes());
}

// An int, or whatever says it is one by __index__; a float is not.
Index as_index(py::handle value, const char* name) {
    const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
    if (!index) {
        PyErr_Clear();
        throw py::type_error(std::string(name) + " must be a whole number, got " + text(value));
    }
    int overflow = 0;
    const long long result = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
    if (overflow != 0) throw py::value_error(std::string(name) + " must fit 64 bits, got " + text(value));
    return result;
}

}  // namespace

std::string text(py::handle value) { return py::repr(value).cast<std::string>(); }

std::string text(Zyx shape) { return tuple_text({shape.z, shape.y, shape.x}); }

std::vector<Index> shape_vector(const py::array& array) {
    return {array.shape(), array.shape() + array.ndim()};
}

std::string shape_text(const py::array& array) { return tuple_text(shape_vector(array)); }

void refuse_dtype(const char* name, const std::vector<const char*>& accepted, const py::dtype& got) {
    throw py::type_error(std::string(name) + " must have dtype " + joined(accepted) + ", got " +
                         py::str(got).cast<std::string>() + "; convert it with .astype");
}

void require_contiguous(const py::array& array, const char* name) {
    if ((array.flags() & py::array::c_style) == 0)
        throw py::value_error(std::string(name) + " must be C-contiguous, got strides " +
                              tuple_text({array.strides(), array.strides() + array.ndim()}) + " for shape " +
                              shape_text(array) + "; pass numpy.ascontiguousarray(" + name + ")");
    if (!is_aligned(array))
        throw py::value_error(std::string(name) + " must be aligned to its item size; pass a copy");
}

void require_volume(const py::array& array, const char* name, const char* axes) {
    const auto dimensions = 1 + std::count(axes, axes + std::strlen(axes), ',');
    if (array.ndim() != dimensions)
        throw py::value_error(std::string(name) + " must have the axes " + axes + ", got shape " +
                              shape_text(array));
    for (const Index size : shape_vector(array))
        if (size < 1 || size > longest_axis)
            throw py::value_error(std::string(name) + " must have 1 to " + std::to_string(longest_axis) +
                                  " elements on every axis, got shape " + shape_text(array));
    require_contiguous(array, name);
}

Zyx shape_of(const py::array& array) {
    const py::ssize_t* last = array.shape() + array.ndim();
    return {last[-3], last[-2], last[-1]};
}

Zyx three_integers(py::handle value, const char* name) {
    if (!py::isinstance<py::sequence>(value) && !py::isinstance<py::array>(value))
        throw py::type_error(std::string(name) + " must be three whole numbers (z, y, x), got " +
                             text(value));
    const auto sequence = py::reinterpret_borrow<py::sequence>(value);
    if (py::len(sequence) != 3)
        throw py::value_error(std::string(name) + " must be three whole numbers (z, y, x), got " +
                              text(value));
    return {as_index(py::object(sequence[0]), name), as_index(py::object(sequence[1]), name),
            as_index(py::object(sequence[2]), name)};
}

Zyx shape_argument(py::handle value, const char* name) {
    const Zyx shape = three_integers(value, name);
    if (std::min({shape.z, shape.y, shape.x}) < 1 || std::max({shape.z, shape.y, shape.x}) > longest_axis)
        throw py::value_error(std::string(name) + " must be 1 to " + std::to_string(longest_axis) +
                              " on every axis, got " + text(shape));
    return shape;
}

double number(py::handle value, const char* name) {
    const double result = PyFloat_AsDouble(value.ptr());
    if (result == -1.0 && PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        throw py::type_error(std::string(name) + " must be a number, got " + text(value));
    }
    return result;
}

Index integer(py::handle value, const char* name, Index least, Index most) {
    const Index result = as_index(value, name);
    if (result < least || result > most)
        throw py::value_error(std::string(name) + " must be " + std::to_string(least) + " to " +
                              std::to_string(most) + ", got " + text(value));
    return result;
}

Threads threads_argument(py::handle value) {
    if (value.is_none()) return {default_threads(), true};
    return {static_cast<int>(integer(value, "threads", 1, most_threads))};
}

py::array output(py::handle out, const py::dtype& dtype, const std::vector<Index>& shape,
                 const py::array& input) {
    if (out.is_none()) {
        Index bytes = dtype.itemsize();
        for (const Index size : shape)
            if (__builtin_mul_overflow(bytes, size, &bytes))
                throw py::value_error("the result would be larger than the address space, shape " +
                                      tuple_text(shape));
        return {dtype, shape};
    }
    if (!py::isinstance<py::array>(out))
        throw py::type_error("out must be a numpy array or None, got " + text(py::type::of(out)));
    auto array = py::reinterpret_borrow<py::array>(out);
    if (!array.dtype().equal(dtype))
        throw py::type_error("out must have dtype " + py::str(dtype).cast<std::string>() + ", got " +
                             py::str(array.dtype()).cast<std::string>());
    if (shape_vector(array) != shape)
        throw py::value_error("out must have shape " + tuple_text(shape) + ", got " + shape_text(array));
    require_writable(array, "out");
    if (overlap(array, input))
        throw py::value_error("out must not share memory with the input; pass another array");
    return array;
}

void require_writable(const py::array& array, const char* name) {
    require_contiguous(array, name);
    if (!array.writeable())
        throw py::value_error(std::string(name) + " must be writable, got a read-only array");
}

}  // namespace voxelcore
