// Threads for one kernel call. They are started and joined inside the call: a pool would not survive the fork
// of a data loader's worker, and would spin or sleep beside those of PyTorch and OpenMP.
#pragma once

#include <functional>

#include "isa.hpp"
#include "shape.hpp"

namespace voxelcore {

inline constexpr int most_threads = 1024;

// How many threads a call may use. A call that names a number gets it. One that leaves it to the default
// shares that number with all others that do so at the time: eight callers of a two-core process do not start
// sixteen.
struct Threads {
    int count;
    bool shared = false;
};

// The number of threads where a call does not say: VOXELCORE_THREADS or OMP_NUM_THREADS, else the processors
// that affinity and the cgroup's quota leave this process, until it is set.
int default_threads();
void set_default_threads(int threads);

// A function that throws where the user wants the call to end. The thread that called the kernel asks it a
// few times a second, holding no lock; it is set before the first call and never changed.
void set_interruption(void (*check)());

// Call body(begin, end) over [0, count) in pieces of `grain`, each piece exactly once. The pieces do not
// depend on the number of threads. The first exception stops the rest and is rethrown after all threads have
// joined. Fewer threads than asked for is not an error.
void parallel_for(Index count, Index grain, Threads threads, const std::function<void(Index, Index)>& body);

// The same with body(set, begin, end), compiled for each instruction set and called with the tag of the one
// in use.
template <class Body>
void parallel_pieces(Index count, Index grain, Threads threads, const Body& body) {
    const Isa set = isa();
    parallel_for(count, grain, threads,
                 [&, set](Index begin, Index end) { with_isa(set, body, begin, end); });
}

}  // namespace voxelcore
