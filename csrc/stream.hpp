// Writing a row past the caches. A result much larger than the caches is not read again soon; an ordinary
// store would first read each line of it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "isa.hpp"

#if VOXELCORE_X86
#include <immintrin.h>
#endif

namespace voxelcore {

// Results from this size on are streamed: half of a common last-level cache.
inline constexpr Index streamed_bytes = Index{16} << 20;

inline void stream(Baseline /*set*/, const void* from, Index bytes, void* to) {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
}

#if VOXELCORE_X86
// Whole lines where the target begins; what comes before and after them is stored as usual.
template <class Set>
[[VOXELCORE_TARGET_AVX2]] inline void stream(Set /*set*/, const void* from, Index bytes, void* to) {
    constexpr Index line = 64;
    const auto* source = static_cast<const char*>(from);
    auto* target = static_cast<char*>(to);
    const Index before =
        std::min(bytes, -static_cast<Index>(reinterpret_cast<std::uintptr_t>(target)) & (line - 1));
    std::memcpy(target, source, static_cast<std::size_t>(before));
    Index i = before;
    for (; i + line <= bytes; i += line)
        for (Index half = i; half < i + line; half += line / 2)
            _mm256_stream_si256(reinterpret_cast<__m256i*>(target + half),
                                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source + half)));
    std::memcpy(target + i, source + i, static_cast<std::size_t>(bytes - i));
}
#endif

// Other threads see what this one streamed.
inline void streamed() {
#if VOXELCORE_X86
    _mm_sfence();
#endif
}

// Ask for the `count` elements that lie `offset` after `near`, which are needed soon: the processor's own
// prefetching stops at every page. They may lie outside the array; then nothing happens, and no pointer to
// them is formed.
template <class T>
void prefetch(const T* near, Index offset, Index count) {
    constexpr Index line = 64;
    const auto first =
        reinterpret_cast<std::uintptr_t>(near) + static_cast<std::uintptr_t>(offset) * sizeof(T);
    const Index bytes = count * static_cast<Index>(sizeof(T));
    for (Index i = 0; i < bytes; i += line)
        // NOLINTNEXTLINE(performance-no-int-to-ptr): nothing is read through it
        __builtin_prefetch(reinterpret_cast<const void*>(first + static_cast<std::uintptr_t>(i)));
}

// Takes the rows of a result (rows, size) from one thread, and streams them where the whole is large.
template <class Set, class T>
class RowWriter {
  public:
    RowWriter(T* out, Index rows, Index size)
        : out_(out),
          size_(size),
          streams_(!std::is_same_v<Set, Baseline> &&
                   rows * size * static_cast<Index>(sizeof(T)) >= streamed_bytes),
          buffer_(static_cast<std::size_t>(streams_ ? size : 0)) {}
    RowWriter(const RowWriter&) = delete;
    RowWriter& operator=(const RowWriter&) = delete;
    ~RowWriter() {
        if (streams_) streamed();
    }

    // Where to make the next row, which `put` then takes.
    T* next(Index row) { return streams_ ? buffer_.data() : out_ + row * size_; }
    void put(Index row) {
        if (streams_)
            stream(Set{}, buffer_.data(), size_ * static_cast<Index>(sizeof(T)), out_ + row * size_);
    }

  private:
    T* out_;
    Index size_;
    bool streams_;
    std::vector<T> buffer_;
};

}  // namespace voxelcore
