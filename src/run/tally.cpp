// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "run/tally.hpp"

#include <array>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <type_traits>
#include <unistd.h>

namespace moat::run {

namespace {

using TallyPage = std::array<char, 4096>;

static_assert(sizeof(Tally) <= sizeof(TallyPage) && std::is_trivially_copyable_v<Tally>);

[[nodiscard]] std::string path_in(const std::string& folder) {
    return folder + '/' + std::string(tally_file);
}

} // namespace

Tally& Tally::operator+=(const Tally& other) {
    findings += other.findings;
    maps += other.maps;
    live += other.live;
    register_accesses += other.register_accesses;
    device_reads += other.device_reads;
    device_writes += other.device_writes;
    interrupts += other.interrupts;
    misdeeds += other.misdeeds;
    opens += other.opens;
    untaken += other.untaken;
    return *this;
}

OwnTally::OwnTally(const std::string& folder) {
    if (folder.empty())
        return;
    const platform::FileDescriptor file(
        ::open(path_in(folder).c_str(), O_RDWR | O_APPEND | O_CLOEXEC));
    const TallyPage zeros = {};
    if (file.get() < 0 ||
        ::write(file.get(), zeros.data(), zeros.size()) != static_cast<ssize_t>(zeros.size()))
        return;
    // Behind what this process appended, whatever others did meanwhile.
    const auto end = static_cast<std::uint64_t>(::lseek(file.get(), 0, SEEK_CUR));
    if (auto page = platform::Mapping::create(file.get(), ByteCount(sizeof zeros),
                                              {.offset = end - sizeof zeros}))
        page_.emplace(*std::move(page));
}

Tally& OwnTally::get() {
    return page_ ? *reinterpret_cast<Tally*>(page_->bytes().data()) : alone_;
}

Tally total_tally(const std::string& folder) {
    Tally total;
    std::ifstream file(path_in(folder), std::ios::binary);
    for (TallyPage page{}; file.read(page.data(), page.size());) {
        Tally one;
        std::memcpy(&one, page.data(), sizeof one);
        total += one;
    }
    return total;
}

} // namespace moat::run
