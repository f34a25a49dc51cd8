// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The background thread of a process: runs due timers and deferred RCU calls. It starts with the
// first of either. Only sync/real.hpp uses this file.
#pragma once

#include "moat/sync/detail/epoch.hpp"
#include "moat/sync/detail/standard_mutex.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <thread>
#include <utility>

namespace moat {

[[nodiscard]] inline std::uint64_t steady_nanoseconds() {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                          std::chrono::steady_clock::now().time_since_epoch())
                                          .count());
}

class BackgroundTimer;

/// Never destroyed: static objects may arm timers and defer calls after its thread ends at the
/// process's exit. Calls that are pending then do not run.
class Background {
  public:
    static Background& instance() {
        static Background* const background = new Background;
        static const StopAtExit stop{*background};
        return *background;
    }

    Background(const Background&) = delete;
    Background& operator=(const Background&) = delete;

    void reclaim_soon() {
        {
            const ExclusiveLock lock(mutex_);
            reclaim_ = true;
        }
        wake_.notify_all();
    }

  private:
    friend class BackgroundTimer;

    struct StopAtExit {
        Background& background;

        ~StopAtExit() { background.stop(); }
    };

    Background() : thread_([this] { run(); }) {}

    void stop();
    void run();
    [[nodiscard]] BackgroundTimer* earliest() const MOAT_REQUIRES(mutex_);
    bool run_due_timer() MOAT_REQUIRES(mutex_);
    bool run_deferred() MOAT_REQUIRES(mutex_);

    [[nodiscard]] bool is_this_thread() const {
        return std::this_thread::get_id() == thread_.get_id();
    }

    StandardMutex mutex_;
    StandardCondition wake_;
    StandardCondition callback_done_;
    BackgroundTimer* armed_ MOAT_GUARDED_BY(mutex_) = nullptr;
    BackgroundTimer* running_ MOAT_GUARDED_BY(mutex_) = nullptr;
    bool reclaim_ MOAT_GUARDED_BY(mutex_) = false;
    bool stopping_ MOAT_GUARDED_BY(mutex_) = false;
    std::thread thread_;
};

/// A one-shot timer whose callback runs on the background thread and should be short.
class BackgroundTimer {
  public:
    BackgroundTimer(void (*callback)(void*), void* context)
        : callback_(callback), context_(context) {}

    ~BackgroundTimer() { cancel(); }

    BackgroundTimer(const BackgroundTimer&) = delete;
    BackgroundTimer& operator=(const BackgroundTimer&) = delete;

    void arm(std::uint64_t nanoseconds) {
        constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();
        Background& background = Background::instance();
        background_.store(&background, std::memory_order_release);
        {
            const ExclusiveLock lock(background.mutex_);
            if (cancelling_ != 0)
                return; // the callback armed itself again while cancel() waits for its end
            unlink(background);
            const std::uint64_t now = steady_nanoseconds();
            deadline_ = nanoseconds < never - now ? now + nanoseconds : never;
            is_armed_ = true;
            next_ = std::exchange(background.armed_, this);
        }
        background.wake_.notify_all();
    }

    void cancel() {
        Background* const used = background_.load(std::memory_order_acquire);
        if (used == nullptr)
            return; // never armed: needs no thread
        Background& background = *used;
        const ExclusiveLock lock(background.mutex_);
        unlink(background);
        if (background.is_this_thread())
            return;
        ++cancelling_;
        while (background.running_ == this)
            background.callback_done_.wait(background.mutex_);
        --cancelling_;
    }

  private:
    friend class Background;

    void unlink(Background& background) MOAT_REQUIRES(background.mutex_) {
        if (!std::exchange(is_armed_, false))
            return;
        BackgroundTimer** link = &background.armed_;
        while (*link != this)
            link = &(*link)->next_;
        *link = next_;
    }

    void (*callback_)(void*);
    void* context_;
    std::atomic<Background*> background_{nullptr};
    // The background's mutex guards all members below.
    BackgroundTimer* next_ = nullptr;
    std::uint64_t deadline_ = 0;
    unsigned cancelling_ = 0;
    bool is_armed_ = false;
};

inline BackgroundTimer* Background::earliest() const {
    BackgroundTimer* first = armed_;
    for (BackgroundTimer* each = armed_; each != nullptr; each = each->next_)
        if (each->deadline_ < first->deadline_)
            first = each;
    return first;
}

/// Unlocks while the callback runs, which may destroy the timer.
inline bool Background::run_due_timer() {
    BackgroundTimer* const due = earliest();
    if (due == nullptr || due->deadline_ > steady_nanoseconds())
        return false;
    due->unlink(*this);
    running_ = due;
    mutex_.unlock();
    due->callback_(due->context_);
    mutex_.lock();
    running_ = nullptr;
    callback_done_.notify_all();
    return true;
}

/// Unlocks while the calls run.
inline bool Background::run_deferred() {
    if (!std::exchange(reclaim_, false))
        return false;
    mutex_.unlock();
    epoch::run_deferred();
    mutex_.lock();
    return true;
}

inline void Background::run() {
    mutex_.lock();
    while (!stopping_) {
        const bool timer_ran = run_due_timer();
        const bool calls_ran = run_deferred();
        if (timer_ran || calls_ran)
            continue; // the state may have changed while unlocked
        if (const BackgroundTimer* const next = earliest()) {
            const std::uint64_t now = steady_nanoseconds();
            if (next->deadline_ > now)
                wake_.wait_for(mutex_, next->deadline_ - now);
        } else {
            wake_.wait(mutex_);
        }
    }
    mutex_.unlock();
}

inline void Background::stop() {
    {
        const ExclusiveLock lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_all();
    if (is_this_thread()) // a callback called exit()
        thread_.detach();
    else
        thread_.join();
}

} // namespace moat
