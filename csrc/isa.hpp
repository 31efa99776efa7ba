// One source, three instruction sets. A kernel's piece of work is a generic lambda that takes a tag;
// `with_isa` calls it inside a function that is compiled for that set and inlines the whole call tree into
// it, so that plain loops are vectorised anew for each. Everything that is not inlined stays baseline code:
// no object file is built with another -march, so no inline function of the standard library can slip out of
// one into an older processor.
//
// Contraction is off and no loop is reordered, so every set gives the same bits (of a NaN, that it is one).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "shape.hpp"

#if defined(__x86_64__) && defined(__GNUC__)
#define VOXELCORE_X86 1
#define VOXELCORE_TARGET_AVX2 gnu::target("avx2,f16c")
#define VOXELCORE_TARGET_AVX512 gnu::target("avx512f,avx512bw,avx512dq,avx512vl,f16c,prefer-vector-width=512")
#else
#define VOXELCORE_X86 0
#endif

namespace voxelcore {

enum class Isa : std::uint8_t { baseline, avx2, avx512 };

// Tags for overloads of the few inner loops that are written out for a set.
struct Baseline {};
struct Avx2 {};
struct Avx512 {};

// The best set of this processor, or the one that the environment variable VOXELCORE_ISA names.
// Throws std::runtime_error where there is no such set, or this processor does not have it.
Isa isa();
void set_isa(Isa set);
bool has_isa(Isa set);
const char* name_of(Isa set);
std::optional<Isa> isa_named(std::string_view name);  // one that this processor and build have

#if VOXELCORE_X86
template <class Body>
[[gnu::flatten, gnu::noinline, VOXELCORE_TARGET_AVX2]] void run_avx2(const Body& body, Index begin,
                                                                     Index end) {
    body(Avx2{}, begin, end);
}
template <class Body>
[[gnu::flatten, gnu::noinline, VOXELCORE_TARGET_AVX512]] void run_avx512(const Body& body, Index begin,
                                                                         Index end) {
    body(Avx512{}, begin, end);
}
#endif

template <class Body>
void with_isa([[maybe_unused]] Isa set, const Body& body, Index begin, Index end) {
#if VOXELCORE_X86
    if (set == Isa::avx512) return run_avx512(body, begin, end);
    if (set == Isa::avx2) return run_avx2(body, begin, end);
#endif
    body(Baseline{}, begin, end);
}

}  // namespace voxelcore
