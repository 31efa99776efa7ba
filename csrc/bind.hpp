#pragma once

#include <pybind11/pybind11.h>

namespace voxelcore {

void bind_class_maps(pybind11::module_& m);
void bind_clip(pybind11::module_& m);
void bind_cubic(pybind11::module_& m);
void bind_draw(pybind11::module_& m);
void bind_isa(pybind11::module_& m);
void bind_label_runs(pybind11::module_& m);
void bind_labels(pybind11::module_& m);
void bind_linear(pybind11::module_& m);
void bind_patches(pybind11::module_& m);
void bind_preprocess(pybind11::module_& m);
void bind_stitch(pybind11::module_& m);
void bind_threads(pybind11::module_& m);

}  // namespace voxelcore
