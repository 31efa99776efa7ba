#include "bind.hpp"

PYBIND11_MODULE(_core, m) {
    m.doc() = "Kernels over raw volumes; voxelcore is their documented face.";
    voxelcore::bind_isa(m);
    voxelcore::bind_threads(m);
    voxelcore::bind_linear(m);
    voxelcore::bind_cubic(m);
    voxelcore::bind_labels(m);
    voxelcore::bind_class_maps(m);
    voxelcore::bind_preprocess(m);
    voxelcore::bind_clip(m);
    voxelcore::bind_draw(m);
    voxelcore::bind_label_runs(m);
    voxelcore::bind_patches(m);
    voxelcore::bind_stitch(m);
}
