// Writing a row past the caches. A result much larger than the caches is not read again soon; an ordinary
// store would first read each line of it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
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

// Takes the rows of a result (rows, size) from one thread, and streams them where the whole is large.
template <class Set, class T>
class RowWriter {
  public:
    RowWriter(T* out, Index rows, Index size)
        : out_(out),
          size_(size),
          streams_(rows * size * static_cast<Index>(sizeof(T)) >= streamed_bytes),
          buffer_(static_cast<std::size_t>(streams_ ? size : 0)) {}
    RowWriter(const RowWriter&) = delete;
    RowWriter& operator=(const RowWriter&) = delete;
    ~RowWriter() {
#if VOXELCORE_X86
        if (streams_) _mm_sfence();  // other threads see what was streamed
#endif
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
