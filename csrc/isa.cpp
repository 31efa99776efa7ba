#include "isa.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

namespace voxelcore {
namespace {

constexpr std::array<Isa, 3> best_first{Isa::avx512, Isa::avx2, Isa::baseline};

Isa chosen_at_start() {
    const char* wanted = std::getenv("VOXELCORE_ISA");  // NOLINT(concurrency-mt-unsafe): nothing here sets it
    if (wanted != nullptr && *wanted != '\0') {
        if (const auto set = isa_named(wanted)) return *set;
        throw std::runtime_error(
            std::string("VOXELCORE_ISA must be baseline, avx2 or avx512, and one that this "
                        "processor has, got ") +
            wanted + "; unset it for the best");
    }
    return *std::ranges::find_if(best_first, has_isa);
}

std::atomic<Isa>& slot() {
    static std::atomic<Isa> in_use{chosen_at_start()};
    return in_use;
}

}  // namespace

bool has_isa([[maybe_unused]] Isa set) {
    if (set == Isa::baseline) return true;
#if VOXELCORE_X86
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
    if (set == Isa::avx2) return avx2;
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
    return false;
#endif
}

Isa isa() { return slot().load(std::memory_order_relaxed); }

void set_isa(Isa set) { slot().store(set, std::memory_order_relaxed); }

const char* name_of(Isa set) {
    switch (set) {
        case Isa::avx512:
            return "avx512";
        case Isa::avx2:
            return "avx2";
        case Isa::baseline:
            break;
    }
    return "baseline";
}

std::optional<Isa> isa_named(std::string_view name) {
    for (const Isa set : best_first)
        if (name == name_of(set) && has_isa(set)) return set;
    return std::nullopt;
}

}  // namespace voxelcore
