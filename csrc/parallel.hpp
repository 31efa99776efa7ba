// Threads for one kernel call. They are started and joined inside the call: a pool would not survive the fork
// of a data loader's worker.
#pragma once

#include <functional>

#include "shape.hpp"

namespace voxelcore {

inline constexpr int most_threads = 1024;

// The number of threads where a call does not say; the processors this process may use, until it is set.
int default_threads();
void set_default_threads(int threads);

// Call body(begin, end) over [0, count) in pieces of `grain`, each piece exactly once, on up to `threads`
// threads. The pieces do not depend on the number of threads. The first exception stops the rest and is
// rethrown after all threads have joined. Fewer threads than asked for is not an error.
void parallel_for(Index count, Index grain, int threads, const std::function<void(Index, Index)>& body);

}  // namespace voxelcore
