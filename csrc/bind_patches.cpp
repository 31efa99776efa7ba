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

void require_start(Zyx at, Index index, Zyx patch, Zyx shape, bool padded) {
    const auto fits = padded ? touches : is_inside;
    if (fits(at.z, patch.z, shape.z) && fits(at.y, patch.y, shape.y) && fits(at.x, patch.x, shape.x)) return;
    throw py::value_error(std::string("starts_zyx must keep each patch ") + (padded ? "touching" : "inside") +
                          " the volume, got " + text(at) + " at index " + std::to_string(index) +
                          " for a patch " + text(patch) + " of a volume " + text(shape) +
                          (padded ? "" : "; pass pad='edge' to repeat the edge voxels"));
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
    for (std::size_t i = 0; i < starts.size(); ++i)
        require_start(starts[i], static_cast<Index>(i), patch, shape, padded);
    py::array result =
        output(out, input.dtype(), {static_cast<Index>(starts.size()), patch.z, patch.y, patch.x}, input);
    const Threads workers = threads_argument(threads);
    dispatch(input.dtype(), AnyVoxel{}, [&]<class T>() {
        std::vector<PatchSource<T>> sources;
        sources.reserve(starts.size());
        for (const Zyx start : starts) sources.push_back({data<T>(input), shape, start});
        T* target = mutable_data<T>(result);
        const py::gil_scoped_release release;
        extract_patches(sources, patch, target, workers);
    });
    return result;
}

// volumes[i] (c, z, y, x) gives out[i] (c, pz, py, px).
void extract_each(const py::list& volumes, const py::object& starts_zyx, const py::object& out,
                  const py::object& threads) {
    const std::vector<Zyx> starts = starts_argument(starts_zyx);
    py::array result = array_of(out, "out", AnyVoxel{});
    require_volume(result, "out", "(n, c, z, y, x)");
    require_writable(result, "out");
    const Zyx patch = shape_of(result);
    const Index channels = result.shape(1);
    const auto count = static_cast<std::size_t>(result.shape(0));
    if (starts.size() != count || volumes.size() != count)
        throw py::value_error("volumes and starts_zyx must be as many as the patches of out, " +
                              std::to_string(count) + ", got " + std::to_string(volumes.size()) + " and " +
                              std::to_string(starts.size()));
    const Threads workers = threads_argument(threads);
    std::vector<py::array> inputs;  // a list can be changed by another thread while the kernel runs
    for (std::size_t i = 0; i < count; ++i) {
        const py::array& input = inputs.emplace_back(array_of(volumes[i], "a volume", AnyVoxel{}));
        require_volume(input, "a volume", "(c, z, y, x)");
        if (!input.dtype().equal(result.dtype()) || input.shape(0) != channels)
            throw py::value_error("a volume must have the dtype and the channels of out, got " +
                                  py::str(input.dtype()).cast<std::string>() + " " + shape_text(input));
        require_start(starts[i], static_cast<Index>(i), patch, shape_of(input), true);
    }
    dispatch(result.dtype(), AnyVoxel{}, [&]<class T>() {
        std::vector<PatchSource<T>> sources;
        sources.reserve(count * static_cast<std::size_t>(channels));
        for (std::size_t i = 0; i < count; ++i) {
            const Zyx shape = shape_of(inputs[i]);
            for (Index channel = 0; channel < channels; ++channel)
                sources.push_back({data<T>(inputs[i]) + channel * shape.voxels(), shape, starts[i]});
        }
        T* target = mutable_data<T>(result);
        const py::gil_scoped_release release;
        extract_patches(sources, patch, target, workers);
    });
}

}  // namespace

void bind_patches(py::module_& m) {
    m.def("extract_patches", &extract, py::arg("volume"), py::arg("starts_zyx"), py::arg("patch_shape_zyx"),
          py::arg("pad"), py::arg("out"), py::arg("threads"));
    m.def("extract_each", &extract_each, py::arg("volumes"), py::arg("starts_zyx"), py::arg("out"),
          py::arg("threads"));
}

}  // namespace voxelcore
