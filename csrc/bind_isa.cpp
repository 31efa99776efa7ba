#include "arguments.hpp"
#include "bind.hpp"
#include "isa.hpp"

namespace voxelcore {
namespace {

py::tuple available() {
    py::list names;
    for (const Isa set : {Isa::baseline, Isa::avx2, Isa::avx512})
        if (has_isa(set)) names.append(name_of(set));
    return {names};
}

void use(const py::object& name) {
    if (!py::isinstance<py::str>(name)) throw py::type_error("name must be a string, got " + text(name));
    const auto set = isa_named(name.cast<std::string>());
    if (!set) throw py::value_error("name must be one of " + text(available()) + ", got " + text(name));
    set_isa(*set);
}

}  // namespace

void bind_isa(py::module_& m) {
    isa();  // a VOXELCORE_ISA that cannot be is refused by the import, not by some later call
    m.def("get_isa", [] { return name_of(isa()); });
    m.def("get_isas", &available);
    m.def("set_isa", &use, py::arg("name"));
}

}  // namespace voxelcore
