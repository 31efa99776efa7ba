#include "arguments.hpp"
#include "bind.hpp"
#include "parallel.hpp"

namespace voxelcore {

void bind_threads(py::module_& m) {
    m.def(
        "set_threads",
        [](const py::object& n) { set_default_threads(static_cast<int>(integer(n, "n", 1, most_threads))); },
        py::arg("n"));
    m.def("get_threads", &default_threads);
}

}  // namespace voxelcore
