#include "parallel.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace voxelcore {
namespace {

std::atomic<int>& default_threads_slot() {
    static std::atomic<int> slot{
        std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, most_threads)};
    return slot;
}

}  // namespace

int default_threads() { return default_threads_slot().load(); }

void set_default_threads(int threads) { default_threads_slot().store(threads); }

void parallel_for(Index count, Index grain, int threads, const std::function<void(Index, Index)>& body) {
    const Index pieces = (count + grain - 1) / grain;
    std::atomic<Index> next{0};
    std::exception_ptr first_error;
    std::mutex error_mutex;

    const auto work = [&] {
        for (Index piece = next.fetch_add(1); piece < pieces; piece = next.fetch_add(1)) {
            try {
                body(piece * grain, std::min(count, (piece + 1) * grain));
            } catch (...) {
                next.store(pieces);
                const std::scoped_lock lock(error_mutex);
                if (!first_error) first_error = std::current_exception();
            }
        }
    };

    // Declared last: if starting one fails for good, those that run are joined before what they refer to
    // goes.
    std::vector<std::jthread> others;
    const Index wanted = std::min<Index>(threads, pieces) - 1;
    if (wanted > 0) others.reserve(static_cast<std::size_t>(wanted));
    for (Index i = 0; i < wanted; ++i) {
        try {
            others.emplace_back(work);
        } catch (const std::system_error&) {
            break;  // a container may cap the number of processes: go on with those that started
        }
    }
    work();
    others.clear();  // joins
    if (first_error) std::rethrow_exception(first_error);
}

}  // namespace voxelcore
