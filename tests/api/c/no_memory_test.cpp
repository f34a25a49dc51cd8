// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// operator new fails once, at each of its calls: no exception leaves libmoat.so, the failing call
// reports the error and changes nothing, and later calls work.
#include "fixture.hpp"

#include <cstdlib>
#include <new>

namespace {

/// Counts down during the tested calls; 0: none fails.
std::size_t until_failure = 0;

[[nodiscard]] bool fails_now() {
    return until_failure != 0 && --until_failure == 0;
}

} // namespace

void* operator new(std::size_t size) {
    void* const memory = fails_now() ? nullptr : std::malloc(size != 0 ? size : 1);
    if (memory == nullptr)
        throw std::bad_alloc();
    return memory;
}

void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return fails_now() ? nullptr : std::malloc(size != 0 ? size : 1);
}

// Not inlined: g++ would compare `free` with the `new` of the caller.
[[gnu::noinline]] void operator delete(void* memory) noexcept {
    std::free(memory);
}

[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
    std::free(memory);
}

namespace moat::tests {
namespace {

class Quiet {
  public:
    Quiet() {
        (void)moat_config_init(&config, sizeof config);
        config.on_fault = [](void* self, const moat_fault* fault) {
            auto& quiet = *static_cast<Quiet*>(self);
            ++quiet.faults;
            quiet.without_words += fault->summary[0] == '\0';
            (void)moat_report_text(fault->report, quiet.text.data(), quiet.text.size(), nullptr,
                                   nullptr);
        };
        config.on_driver_error = [](void* self, const moat_driver_error*) {
            ++static_cast<Quiet*>(self)->errors;
        };
        config.context = this;
        config.options = "level=exact:stacks=1";
    }

    moat_config config{};
    unsigned faults = 0;
    unsigned errors = 0;
    unsigned without_words = 0;
    bool failed = false; ///< in operator new
    std::array<char, 256> text{};
};

/// A whole program, until a call fails. Return: the code of that failure.
moat_code live(Quiet& quiet, unsigned char* memory) {
    moat_error error = MOAT_ERROR_INIT;
    moat_container* container = nullptr;
    moat_device* device = nullptr;
    moat_code code = moat_container_open(&quiet.config, &container, &error);
    if (code == MOAT_OK)
        code = moat_device_attach(container, "00:03.0", &device, &error);
    std::uint64_t iova = 0;
    if (code == MOAT_OK)
        code = moat_map(container, memory, 64, MOAT_BIDIRECTIONAL, "a label of some length", &iova,
                        &error);
    if (code == MOAT_OK) {
        const std::array<unsigned char, 65> from{};
        code = moat_device_write(device, iova, from.data(), from.size(), nullptr, &error);
        code = code == MOAT_REFUSED ? MOAT_OK : code;
        const moat_code unmapped = moat_unmap(container, iova, 64, MOAT_BIDIRECTIONAL, &error);
        code = code == MOAT_OK ? unmapped : code;
    }
    if (code == MOAT_OK)
        code = moat_device_detach(device, &error);
    const moat_code closed = moat_container_close(container, nullptr);
    quiet.failed = until_failure == 0;
    until_failure = 0;
    EXPECT_EQ(closed, MOAT_OK) << "an end needs no memory";
    return code;
}

TEST(NoMemory, anywhere_is_an_error_and_no_exception) {
    alignas(64) static std::array<unsigned char, 64> memory;
    Quiet warm; // allocated once per process
    ASSERT_EQ(live(warm, memory.data()), MOAT_OK);
    ASSERT_EQ(warm.faults, 1U);
    unsigned refusals = 0;
    std::size_t at = 1;
    unsigned without_words = 0;
    for (bool failed = true; failed; ++at) {
        Quiet quiet;
        until_failure = at;
        const moat_code code = live(quiet, memory.data());
        EXPECT_TRUE(code == MOAT_OK || code == MOAT_NO_MEMORY) << "at " << at << ": " << code;
        refusals += code == MOAT_NO_MEMORY;
        without_words += quiet.without_words;
        failed = quiet.failed;
        EXPECT_EQ(quiet.errors, 0U) << "nothing is left mapped, at " << at;
        ASSERT_LT(at, 5000U);
    }
    EXPECT_GE(refusals, 20U);
    EXPECT_GE(without_words, 1U) << "a fault is told though there is no memory for its words";
}

} // namespace
} // namespace moat::tests
