"""Peak memory of an export in a process of its own: python -m benchmarks.export_memory '[maps, labels, planes]'."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

import voxelcore
from benchmarks.volumes import CLASSES, Shape, class_map_planes


def resident(which: str) -> int:
    """Return the memory this process holds (VmRSS), or the most it held since `forget_peak` (VmHWM), in bytes.

    Not getrusage's ru_maxrss: that also counts what the parent held when it started this process.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(which):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status must have {which}")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    from_shape: Shape
    to_shape: Shape
    from_shape, to_shape, planes = json.loads(sys.argv[1])
    labels = np.full(to_shape, 255, np.uint8)  # touched
    class_map_planes(from_shape, 0, 1)  # warm
    voxelcore.class_maps_to_labels(np.zeros((CLASSES, 2, 8, 8), np.float32), (2, 8, 8))
    forget_peak()
    before = resident("VmRSS")
    exporter = voxelcore.LabelExporter(from_shape, labels)
    slab_bytes = 0
    for first in range(0, from_shape[0], planes):
        depth = min(planes, from_shape[0] - first)
        slab = np.empty((CLASSES, depth, *from_shape[1:]), np.float32)
        for plane in range(depth):
            slab[:, plane] = class_map_planes(from_shape, first + plane, first + plane + 1)[:, 0]
        exporter.add(slab)
        slab_bytes = max(slab_bytes, slab.nbytes)
        del slab
    above = resident("VmHWM") - before
    middle = from_shape[0] // 2
    expected = voxelcore.class_maps_to_labels(
        class_map_planes(from_shape, middle, middle + 1), (1, *to_shape[1:])
    )
    np.testing.assert_array_equal(labels[middle], expected[0])
    assert exporter.done == to_shape[0]
    sys.stdout.write(json.dumps({"above": above, "slab": slab_bytes, "labels": labels.nbytes}) + "\n")


if __name__ == "__main__":
    main()
