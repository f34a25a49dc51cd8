// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// moat_container and moat_device: moat.hpp's classes, and whom they call back. entries.cpp has the
// functions.
#pragma once

#include "moat/moat.hpp"

#include "boundary.hpp"
#include "machine/pci.hpp"

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <vector>

struct moat_device {
    moat_container& owner;
    moat::machine::Bdf address;
    moat::Device device;
};

struct moat_container {
  public:
    /// Null: the report goes to standard error.
    struct Callbacks {
        moat_fault_callback fault = nullptr;
        moat_driver_error_callback driver_error = nullptr;
        void* context = nullptr;
    };

    explicit moat_container(const Callbacks& callbacks) : callbacks_(callbacks) {}

    moat_container(const moat_container&) = delete;
    moat_container& operator=(const moat_container&) = delete;

    /// Once. Failures: Container::open's; MOAT_INVALID, where an option is wrong.
    moat::api::c::Outcome open(moat::ContainerConfig config);

    [[nodiscard]] moat::Container& container() { return *container_; }

    [[nodiscard]] std::expected<moat_device*, moat::api::c::Failure>
    attach(std::string_view address, moat::machine::Bdf parsed);
    moat::api::c::Outcome detach(moat_device& device);

    /// It lives until `free_coherent` or the end. Errors: Container's.
    [[nodiscard]] moat::Result<moat::CoherentBuffer*> allocate_coherent(std::size_t bytes,
                                                                        std::string_view label);
    /// Errors: not_found; Mapping::unmap's, after which it is gone as well.
    moat::Result<void> free_coherent(std::uint64_t iova);

  private:
    void call_back(const moat::Fault& fault) noexcept;
    void call_back(const moat::DriverError& error) noexcept;
    [[nodiscard]] moat_device* find(const moat::fault::Source& source);

    const Callbacks callbacks_;
    std::mutex mutex_; ///< of the two below
    std::vector<std::unique_ptr<moat_device>> devices_;
    std::map<std::uint64_t, moat::CoherentBuffer> coherent_; ///< by address
    std::optional<moat::Container> container_;
};
