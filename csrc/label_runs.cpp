#include "label_runs.hpp"

#include <cstring>

namespace voxelcore {

LabelRuns label_runs(const std::uint8_t* labels, Index count, std::uint8_t label) {
    LabelRuns runs;
    Index held = 0;
    for (Index i = 0; i < count;) {
        const auto* found = static_cast<const std::uint8_t*>(
            std::memchr(labels + i, label, static_cast<std::size_t>(count - i)));
        if (found == nullptr) break;
        const Index start = found - labels;
        i = start;
        while (i < count && labels[i] == label) ++i;
        held += i - start;
        runs.start.push_back(start);
        runs.cumulative.push_back(held);
    }
    return runs;
}

}  // namespace voxelcore
