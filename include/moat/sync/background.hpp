// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The one background thread of a process: it runs due timers and deferred RCU calls.
// It starts with the first timer armed or call deferred. Only sync/real.hpp uses this file.
#pragma once

#include "moat/sync/epoch.hpp"
#include "moat/sync/standard_mutex.hpp"

#include <chrono>
#include <cstdint>
#include <thread>
#include <utility>

namespace moat {

[[nodiscard]] inline std::uint64_t steady_nanoseconds() {
    return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                          std::chrono::steady_clock::now().time_since_epoch())
                                          .count());
}

class BackgroundTimer;

class Background {
  public:
    static Background& instance() {
        static Background background;
        return background;
    }

    ~Background() {
        {
            const ExclusiveLock lock(mutex_);
            stopping_ = true;
        }
        wake_.notify_all();
        thread_.join();
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

    Background() : thread_([this] { run(); }) {}

    void run();
    [[nodiscard]] BackgroundTimer* earliest() const MOAT_REQUIRES(mutex_);

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
        Background& background = Background::instance();
        {
            const ExclusiveLock lock(background.mutex_);
            unlink(background);
            deadline_ = steady_nanoseconds() + nanoseconds;
            is_armed_ = true;
            next_ = std::exchange(background.armed_, this);
        }
        background.wake_.notify_all();
    }

    void cancel() {
        Background& background = Background::instance();
        const ExclusiveLock lock(background.mutex_);
        unlink(background);
        if (std::this_thread::get_id() == background.thread_.get_id())
            return;
        while (background.running_ == this)
            background.callback_done_.wait(background.mutex_);
        unlink(background);
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
    BackgroundTimer* next_ = nullptr;
    std::uint64_t deadline_ = 0;
    bool is_armed_ = false;
};

inline BackgroundTimer* Background::earliest() const {
    BackgroundTimer* first = armed_;
    for (BackgroundTimer* each = armed_; each != nullptr; each = each->next_)
        if (each->deadline_ < first->deadline_)
            first = each;
    return first;
}

inline void Background::run() {
    mutex_.lock();
    while (!stopping_) {
        if (std::exchange(reclaim_, false)) {
            mutex_.unlock();
            epoch::run_deferred();
            mutex_.lock();
            continue;
        }
        BackgroundTimer* due = earliest();
        if (due == nullptr) {
            wake_.wait(mutex_);
            continue;
        }
        const std::uint64_t now = steady_nanoseconds();
        if (due->deadline_ > now) {
            wake_.wait_for(mutex_, due->deadline_ - now);
            continue;
        }
        due->unlink(*this);
        running_ = due;
        mutex_.unlock();
        due->callback_(due->context_);
        mutex_.lock();
        running_ = nullptr;
        callback_done_.notify_all();
    }
    mutex_.unlock();
    epoch::run_deferred();
}

} // namespace moat
