#pragma once

#include <sys/mman.h>

#include <cstdlib>
#include <memory>
#include <new>

#include "shape.hpp"

namespace voxelcore {

// Floats that are not initialised, as many as a volume has voxels. On Linux they are asked for in pages of 2
// MiB: to be given 80 MB in pages of 4 KiB takes as long as to compute them.
class LargeBuffer {
  public:
    explicit LargeBuffer(Index count) {
        constexpr std::size_t page = std::size_t{2} << 20;
        const std::size_t bytes = (static_cast<std::size_t>(count) * sizeof(float) + page - 1) / page * page;
        memory_.reset(static_cast<float*>(std::aligned_alloc(page, bytes)));
        if (!memory_) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
        madvise(memory_.get(), bytes, MADV_HUGEPAGE);  // a wish; without it all is the same, slower
#endif
    }
    [[nodiscard]] float* data() const { return memory_.get(); }

  private:
    struct Free {
        void operator()(float* memory) const { std::free(memory); }
    };
    std::unique_ptr<float, Free> memory_;
};

}  // namespace voxelcore
