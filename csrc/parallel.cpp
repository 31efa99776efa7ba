#include "parallel.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

#include "processors.hpp"

namespace voxelcore {
namespace {

std::optional<int> number_in(const char* variable) {
    const char* value = std::getenv(variable);  // NOLINT(concurrency-mt-unsafe): nothing here sets it
    if (value == nullptr) return std::nullopt;
    int number = 0;
    const auto [rest, error] = std::from_chars(value, value + std::strlen(value), number);
    // OpenMP allows a list, one number a level of nesting; the first is the outermost.
    if (error != std::errc{} || number < 1 || (*rest != '\0' && *rest != ',')) return std::nullopt;
    return number;
}

std::atomic<int>& default_threads_slot() {
    static std::atomic<int> slot{[] {
        for (const char* variable : {"VOXELCORE_THREADS", "OMP_NUM_THREADS"})
            if (const auto number = number_in(variable)) return std::min(*number, most_threads);
        return std::min(usable_processors(), most_threads);
    }()};
    return slot;
}

// Long beside the cost of a check, which takes Python's lock, and short beside the second that a user waits.
constexpr std::chrono::milliseconds between_checks{100};
std::atomic<void (*)()> interruption{nullptr};

// Threads at work in calls that share the default number, their callers among them.
std::atomic<int> sharing{0};

// The threads that a call may start beside its own.
class Helpers {
  public:
    Helpers(Threads threads, Index pieces) : shared_(threads.shared) {
        const int most = std::max(static_cast<int>(std::min<Index>(threads.count, pieces)) - 1, 0);
        if (!shared_) {
            count_ = most;
            return;
        }
        // A child of fork has none of its parent's threads.
        static const int registered = pthread_atfork(nullptr, nullptr, [] { sharing.store(0); });
        static_cast<void>(registered);
        int busy = sharing.load();
        do count_ = std::clamp(threads.count - busy - 1, 0, most);
        while (!sharing.compare_exchange_weak(busy, busy + 1 + count_));
    }
    ~Helpers() {
        if (shared_) sharing.fetch_sub(1 + count_);
    }
    Helpers(const Helpers&) = delete;
    Helpers& operator=(const Helpers&) = delete;

    [[nodiscard]] int count() const { return count_; }

  private:
    bool shared_;
    int count_ = 0;
};

}  // namespace

int default_threads() { return default_threads_slot().load(); }

void set_default_threads(int threads) { default_threads_slot().store(threads); }

void set_interruption(void (*check)()) { interruption.store(check); }

void parallel_for(Index count, Index grain, Threads threads, const std::function<void(Index, Index)>& body) {
    const Index pieces = (count + grain - 1) / grain;
    std::atomic<Index> next{0};
    std::exception_ptr first_error;
    std::mutex error_mutex;
    const Helpers helpers(threads, pieces);

    const auto work = [&](bool checks) {
        auto next_check = std::chrono::steady_clock::now() + between_checks;
        for (Index piece = next.fetch_add(1); piece < pieces; piece = next.fetch_add(1)) {
            try {
                body(piece * grain, std::min(count, (piece + 1) * grain));
                if (checks && std::chrono::steady_clock::now() >= next_check) {
                    interruption.load()();
                    next_check = std::chrono::steady_clock::now() + between_checks;
                }
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
    others.reserve(static_cast<std::size_t>(helpers.count()));
    for (int i = 0; i < helpers.count(); ++i) {
        try {
            others.emplace_back(work, false);
        } catch (const std::system_error&) {
            break;  // a container may cap the number of processes: go on with those that started
        }
    }
    work(interruption.load() != nullptr);
    others.clear();  // joins
    if (first_error) std::rethrow_exception(first_error);
}

}  // namespace voxelcore
