#include "processors.hpp"

#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <thread>

namespace voxelcore {
namespace {

constexpr const char* cgroups = "/sys/fs/cgroup";

// The quota of a control group of version 2 in processors; infinity where it has none.
double quota(const std::string& folder) {
    std::ifstream file(folder + "/cpu.max");
    double time = 0.0;
    double period = 0.0;
    return file >> time >> period && time > 0.0 && period > 0.0 ? time / period
                                                                : INFINITY;  // "max" is no number
}

// The smallest quota from this process's control group up to the root.
double smallest_quota() {
    std::ifstream own("/proc/self/cgroup");
    std::string path;
    for (std::string line; std::getline(own, line);)
        if (line.starts_with("0::")) path = line.substr(3);
    double smallest = quota(cgroups);
    for (; path.size() > 1; path.resize(path.rfind('/')))
        smallest = std::min(smallest, quota(cgroups + path));
    return smallest;
}

// glibc's hardware_concurrency() counts the processors of the machine, whatever the mask.
int in_affinity_mask() {
#ifdef __linux__
    for (int most = 1024; most <= 1 << 20;
         most *= 2) {  // the kernel wants room for all that the machine could have
        cpu_set_t* mask = CPU_ALLOC(most);
        if (mask == nullptr) break;
        const std::size_t size = CPU_ALLOC_SIZE(most);
        const int count = sched_getaffinity(0, size, mask) == 0 ? CPU_COUNT_S(size, mask) : 0;
        CPU_FREE(mask);
        if (count > 0) return count;
    }
#endif
    return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

int usable_processors() {
    const double most = std::ceil(std::min(smallest_quota(), 1e6));
    return std::max(1, std::min(in_affinity_mask(), static_cast<int>(most)));
}

}  // namespace voxelcore
