#pragma once

namespace voxelcore {

// The processors that this process may keep busy: those of its affinity mask, or fewer where a cgroup of
// version 2 caps its time (docker run --cpus), at least 1.
int usable_processors();

}  // namespace voxelcore
