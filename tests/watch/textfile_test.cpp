// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The counters for Prometheus: their text, and how the file is replaced.
#include "watch/textfile.hpp"

#include <cstdlib>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>

namespace moat::watch {

namespace {

using fault::DmaEvent;

constexpr auto ignore_findings = [](const Finding&) {};

[[nodiscard]] Follower follower_of_an_overrun() {
    Follower follower;
    const IovaRange range(Iova(0x10000), ByteCount(512));
    follower.add({.kind = DmaEvent::Kind::device, .device = "0000:00:04.0", .driver = "e\"du"},
                 ignore_findings);
    follower.add({.time_ns = 1, .device = "0000:00:04.0", .range = range}, ignore_findings);
    follower.add({.kind = DmaEvent::Kind::fault,
                  .time_ns = 2,
                  .record = exact_record(fault::Source::pci(0, 4, 0), fault::Access::write,
                                         {Iova(0x10200), ByteCount(1)}, {})},
                 ignore_findings);
    follower.add({.kind = DmaEvent::Kind::lost, .time_ns = 3, .count = 5}, ignore_findings);
    return follower;
}

/// Removed with its files at the end.
class Folder {
  public:
    Folder() {
        std::string path = std::filesystem::temp_directory_path() / "moat-textfile-XXXXXX";
        path_ = ::mkdtemp(path.data());
    }

    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;

    ~Folder() { std::filesystem::remove_all(path_); }

    [[nodiscard]] std::filesystem::path operator/(std::string_view name) const {
        return path_ / name;
    }

    [[nodiscard]] auto files() const {
        return std::distance(std::filesystem::directory_iterator(path_), {});
    }

  private:
    std::filesystem::path path_;
};

[[nodiscard]] std::string content(const std::filesystem::path& file) {
    std::ifstream in(file);
    return {std::istreambuf_iterator<char>(in), {}};
}

} // namespace

TEST(Textfile, counts_by_device_driver_and_class) {
    const std::string text = textfile(follower_of_an_overrun());
    const std::string device = R"({device="0000:00:04.0",driver="e\"du")";
    for (const std::string& line :
         {"moat_dma_live_mappings" + device + "} 1\n", "moat_dma_live_bytes" + device + "} 512\n",
          "moat_dma_maps_total" + device + "} 1\n",
          "moat_dma_faults_total" + device + ",class=\"dma-buffer-overflow\"} 1\n",
          std::string("moat_trace_events_lost_total 5\n"),
          std::string("# TYPE moat_dma_faults_total counter\n")})
        EXPECT_NE(text.find(line), text.npos) << line << "in\n" << text;
}

TEST(Textfile, replaces_a_file_and_leaves_nothing_beside_it) {
    const Folder folder;
    const auto file = folder / "moat.prom";
    ASSERT_TRUE(replace_file(file, "long text of before\n"));
    ASSERT_TRUE(replace_file(file, "text\n"));
    EXPECT_EQ(content(file), "text\n");
    EXPECT_EQ(folder.files(), 1);
}

TEST(Textfile, keeps_the_old_text_if_it_cannot_write) {
    const Folder folder;
    const auto file = folder / "moat.prom";
    ASSERT_TRUE(replace_file(file, "old\n"));
    std::filesystem::create_directory(folder / "moat.prom.new");
    const auto replaced = replace_file(file, "new\n");
    ASSERT_FALSE(replaced);
    EXPECT_EQ(replaced.error().code(), ErrorCode::io);
    EXPECT_EQ(content(file), "old\n");
}

} // namespace moat::watch
