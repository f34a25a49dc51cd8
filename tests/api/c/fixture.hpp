// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A container of moat.h with a device, and the arguments of its callbacks. The tests use nothing
// but the header, and link libmoat.so alone.
#pragma once

#include "moat/moat.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <gtest/gtest.h>
#include <string>
#include <utility>
#include <vector>

namespace moat::tests {

/// A copy of a moat_fault that outlives its callback.
struct HeardFault {
    moat_fault fault = {};
    std::string label;
    std::string summary;
    std::string source;
    std::string text;
    std::string json;
};

struct HeardError {
    std::int32_t kind = -1;
    std::uint64_t iova = 0;
    std::uint64_t bytes = 0;
    std::string label;
    std::string past_label;
    std::string summary;
    std::string json;
};

template <class Write>
[[nodiscard]] std::string whole_report(const moat_report* report, Write write) {
    std::size_t needed = 0;
    EXPECT_EQ(write(report, nullptr, 0, &needed, nullptr), MOAT_OK);
    std::string text(needed, '?');
    EXPECT_EQ(write(report, text.data(), text.size(), nullptr, nullptr), MOAT_OK);
    EXPECT_EQ(text.back(), '\0');
    text.pop_back();
    EXPECT_EQ(text.find('\0'), std::string::npos);
    return text;
}

class CApi : public testing::Test {
  public:
    CApi() {
        EXPECT_EQ(moat_config_init(&config, sizeof config), MOAT_OK);
        config.on_fault = [](void* self, const moat_fault* fault) {
            static_cast<CApi*>(self)->hear(*fault);
        };
        config.on_driver_error = [](void* self, const moat_driver_error* heard) {
            static_cast<CApi*>(self)->hear(*heard);
        };
        config.context = this;
    }

    ~CApi() override { EXPECT_EQ(moat_container_close(container, &error), MOAT_OK) << error.text; }

    void open(const char* options = nullptr) {
        config.options = options;
        ASSERT_EQ(moat_container_open(&config, &container, &error), MOAT_OK) << error.text;
        ASSERT_EQ(moat_device_attach(container, "0000:00:03.0", &device, &error), MOAT_OK)
            << error.text;
    }

    void close() { EXPECT_EQ(moat_container_close(std::exchange(container, nullptr), nullptr), 0); }

    std::uint64_t map(void* what, std::size_t bytes, std::int32_t direction = MOAT_BIDIRECTIONAL,
                      const char* label = "ring") {
        std::uint64_t iova = 0;
        EXPECT_EQ(moat_map(container, what, bytes, direction, label, &iova, &error), MOAT_OK)
            << error.text;
        return iova;
    }

    moat_code unmap(std::uint64_t iova, std::size_t bytes,
                    std::int32_t direction = MOAT_BIDIRECTIONAL) {
        return moat_unmap(container, iova, bytes, direction, &error);
    }

    moat_code sync_for_cpu(std::uint64_t iova, std::size_t bytes) {
        return moat_sync_for_cpu(container, iova, 0, bytes, &error);
    }

    moat_code write(std::uint64_t iova, std::size_t bytes, std::size_t* done = nullptr) {
        const std::vector<unsigned char> from(bytes, 0xee);
        return moat_device_write(device, iova, from.data(), bytes, done, &error);
    }

    moat_error error = MOAT_ERROR_INIT;
    moat_config config{};
    moat_container* container = nullptr;
    moat_device* device = nullptr;
    std::vector<HeardFault> faults;
    std::vector<HeardError> errors;
    /// Called inside the callback, if set.
    void (*within_fault)(CApi& test, const moat_fault& fault) = nullptr;
    void (*within_error)(CApi& test, const moat_driver_error& heard) = nullptr;
    alignas(4096) std::array<unsigned char, 4 * 4096> memory{};

  private:
    void hear(const moat_fault& fault) {
        faults.push_back({.fault = fault,
                          .label = fault.mapping != nullptr ? fault.mapping->label
                                   : fault.past != nullptr  ? fault.past->label
                                                            : "",
                          .summary = fault.summary,
                          .source = fault.source,
                          .text = whole_report(fault.report, moat_report_text),
                          .json = whole_report(fault.report, moat_report_json)});
        if (within_fault != nullptr)
            within_fault(*this, fault);
    }

    void hear(const moat_driver_error& heard) {
        errors.push_back({.kind = heard.kind,
                          .iova = heard.iova,
                          .bytes = heard.bytes,
                          .label = heard.mapping != nullptr ? heard.mapping->label : "",
                          .past_label = heard.past != nullptr ? heard.past->label : "",
                          .summary = heard.summary,
                          .json = whole_report(heard.report, moat_report_json)});
        // A stack follows if a memory checker watches the mapping.
        EXPECT_TRUE(whole_report(heard.report, moat_report_text)
                        .starts_with("moat: " + errors.back().summary + "\n"));
        if (within_error != nullptr)
            within_error(*this, heard);
    }
};

} // namespace moat::tests
