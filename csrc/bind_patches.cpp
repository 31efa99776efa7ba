#include "arguments.hpp"
#include "bind.hpp"
#include "patches.hpp"

namespace voxelcore {
namespace {

bool is_inside(Index start, Index patch, Index n) { return start >= 0 && start <= n - patch; }
bool touches(Index start, Index patch, Index n) { return start > -patch && start < n; }

std::vector<Zyx> starts_argument(py::handle value) {
    const py::array array = array_of(value, "starts_zyx", Types<std::int64_t>{});
    if (array.ndim() != 2 || array.shape(1) != 3)
        throw py::value_error("starts_zyx must have shape (n, 3), got " + shape_text(array));
    require_contiguous(array, "starts_zyx");
    const auto* values = data<std::int64_t>(array);
    std::vector<Zyx> starts(static_cast<std::size_t>(array.shape(0)));
    for (Zyx& start : starts) {
        start = {values[0], values[1], values[2]};
        values += 3;
    }
    return starts;
}

void require_starts(const std::vector<Zyx>& starts, Zyx patch, Zyx shape, bool padded) {
    const auto fits = padded ? touches : is_inside;
    for (std::size_t i = 0; i < starts.size(); ++i) {
        const Zyx at = starts[i];
        if (fits(at.z, patch.z, shape.z) && fits(at.y, patch.y, shape.y) && fits(at.x, patch.x, shape.x))
            continue;
        throw py::value_error(std::string("starts_zyx must keep each patch ") +
                              (padded ? "touching" : "inside") + " the volume, got " + text(at) +
                              " at index " + std::to_string(i) + " for a patch " + text(patch) +
                              " of a volume " + text(shape) +
                              (padded ? "" : "; pass pad='edge' to repeat the edge voxels"));
    }
}

py::array extract(const py::object& volume, const py::object& starts_zyx, const py::object& patch_shape_zyx,
                  const py::object& pad, const py::object& out, const py::object& threads) {
    const py::array input = array_of(volume, "volume", AnyVoxel{});
    require_volume(input, "volume", "(z, y, x)");
    const Zyx shape = shape_of(input);
    const std::vector<Zyx> starts = starts_argument(starts_zyx);
    const Zyx patch = shape_argument(patch_shape_zyx, "patch_shape_zyx");
    const bool padded = pad.equal(py::str("edge"));
    if (!padded && !pad.equal(py::str("error")))
        throw py::value_error("pad must be 'edge' or 'error', got " + text(pad));
    require_starts(starts, patch, shape, padded);
    py::array result =
        output(out, input.dtype(), {static_cast<Index>(starts.size()), patch.z, patch.y, patch.x}, input);
    const int workers = threads_argument(threads);
    dispatch(input.dtype(), AnyVoxel{}, [&]<class T>() {
        const T* source = data<T>(input);
        T* target = mutable_data<T>(result);
        const py::gil_scoped_release release;
        extract_patches(source, shape, starts, patch, target, workers);
    });
    return result;
}

}  // namespace

void bind_patches(py::module_& m) {
    m.def("extract_patches", &extract, py::arg("volume"), py::arg("starts_zyx"), py::arg("patch_shape_zyx"),
          py::arg("pad"), py::arg("out"), py::arg("threads"));
}

}  // namespace voxelcore
