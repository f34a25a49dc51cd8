// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat_container and moat_device: who owns what, whom a callback may call, and which labels are
// kept. What is mapped where is the backend's; entries.cpp has the functions.
#pragma once

#include "moat/dma/reporter.hpp"

#include "backend.hpp"
#include "boundary.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace moat::c_api {

/// Held by one thread at a time, which may come again from inside.
class Turn {
  public:
    /// Return: false where another thread has it.
    [[nodiscard]] bool take();
    void leave();

    [[nodiscard]] bool is_taken() const { return owner_.load(std::memory_order_acquire) != 0; }

  private:
    std::atomic<std::uintptr_t> owner_{0};
    unsigned depth_ = 0; ///< the owner's
};

} // namespace moat::c_api

struct moat_device {
    moat_container& container;
    moat::machine::Bdf address;
    moat::c_api::Turn turn;
    std::unique_ptr<moat::c_api::Device> device;
};

/// Thread-safe but for `close`.
struct moat_container {
  public:
    /// Null: the report goes to standard error.
    struct Callbacks {
        moat_fault_callback fault = nullptr;
        moat_driver_error_callback driver_error = nullptr;
        void* context = nullptr;
    };

    moat_container(const Callbacks& callbacks, moat::dma::ReportForm form);
    moat_container(const moat_container&) = delete;
    moat_container& operator=(const moat_container&) = delete;

    /// Failures: Backend's.
    moat::c_api::Outcome open(const moat_config& config, const moat::dma::Options& options);

    /// After it nothing but the end comes. Failures: busy.
    moat::c_api::Outcome close();

    [[nodiscard]] moat::c_api::Backend& backend() { return *backend_; }

    /// Failures: busy, while it is being closed.
    [[nodiscard]] moat::c_api::Outcome usable() const;

    [[nodiscard]] std::expected<moat_device*, moat::c_api::Failure>
    attach(moat::machine::Bdf address);
    moat::c_api::Outcome detach(moat_device& device);

    /// The same words, for as long as the container lives, with a zero behind them.
    [[nodiscard]] std::string_view keep_label(const char* label);

  private:
    void tell(const moat::fault::Diagnosis& diagnosis) noexcept;
    void tell(const moat::dma::DriverError& error) noexcept;
    [[nodiscard]] moat_device* find(const moat::fault::Source& source);
    [[nodiscard]] moat_report report_of();

    const Callbacks callbacks_;
    moat::dma::Reporter to_stderr_;
    const moat::dma::Listener stderr_listener_;
    std::mutex labels_mutex_;
    std::set<std::string, std::less<>> labels_;
    std::mutex devices_mutex_;
    std::vector<std::unique_ptr<moat_device>> devices_;
    std::atomic<unsigned> in_callbacks_{0};
    std::atomic<bool> closing_{false};
    std::unique_ptr<moat::c_api::Backend> backend_;
};
