#include <unistd.h>

#include "arguments.hpp"
#include "bind.hpp"
#include "parallel.hpp"

namespace voxelcore {
namespace {

// Python runs the handlers of signals in the main thread alone; others need not wait for its lock.
bool in_main_thread() {
#ifdef __linux__
    return gettid() == getpid();
#else
    return true;
#endif
}

// Ctrl-C: the handler raises KeyboardInterrupt, which ends the kernel like any exception in it.
void raise_what_signals_raise() {
    if (!in_main_thread()) return;
    const py::gil_scoped_acquire python;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

}  // namespace

void bind_threads(py::module_& m) {
    set_interruption(&raise_what_signals_raise);
    m.def(
        "set_threads",
        [](const py::object& n) { set_default_threads(static_cast<int>(integer(n, "n", 1, most_threads))); },
        py::arg("n"));
    m.def("get_threads", &default_threads);
}

}  // namespace voxelcore
