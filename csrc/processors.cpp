#include "processors.hpp"

#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

namespace voxelcore {
namespace {

constexpr const char* cgroups = "/sys/fs/cgroup";

// What a small file of the kernel's holds, "" where there is none. Not by std::ifstream, which crashed here
// beside PyTorch 2.11 and SimpleITK (Python 3.12, g++ 13), as it does where two copies of libstdc++ share a
// process.
std::string content(const std::string& path) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "r"), std::fclose);
    std::string text;
    if (!file) return text;
    char part[512];
    while (const std::size_t size = std::fread(part, 1, sizeof part, file.get())) text.append(part, size);
    return text;
}

// The quota of a control group of version 2 in processors; infinity where it has none.
double quota(const std::string& folder) {
    const std::string text = content(folder + "/cpu.max");  // "TIME PERIOD", or "max PERIOD"
    char* end = nullptr;
    const auto time = static_cast<double>(std::strtoll(text.c_str(), &end, 10));
    const auto period = static_cast<double>(std::strtoll(end, nullptr, 10));
    return time > 0.0 && period > 0.0 ? time / period : INFINITY;
}

// The path of this process's control group of version 2 below the root, "" where it has none.
std::string own_group() {
    const std::string groups = "\n" + content("/proc/self/cgroup");
    const std::size_t start = groups.find("\n0::/");
    if (start == std::string::npos) return "";
    const std::size_t first = start + 4;
    return groups.substr(first, groups.find('\n', first) - first);
}

// The smallest quota from this process's control group up to the root.
double smallest_quota() {
    double smallest = quota(cgroups);
    for (std::string path = own_group(); path.size() > 1; path.resize(path.rfind('/')))
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
