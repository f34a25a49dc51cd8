// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What a follower saw as pictures (docs/picture.md), one for each group of devices, for --html and
// --trace of `moat watch` and `moat replay`.
#pragma once

#include "moat/fault/report.hpp"

#include "watch/follower.hpp"
#include "watch/mapping_observer.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace moat::tools {

class TrafficPicture final : public watch::MappingObserver {
  public:
    /// What `symbolise` refers to outlives this.
    explicit TrafficPicture(fault::Symbolise symbolise) : symbolise_(symbolise) {}

    /// The pictures of groups that mapped something: those with faults first.
    [[nodiscard]] std::vector<nlohmann::ordered_json> take() const;

    void began(const watch::GroupMappings& group, const watch::LiveMapping& mapping) override;
    void ended(const watch::GroupMappings& group, const watch::LiveMapping& mapping,
               const fault::Event& unmapped) override;
    void refined(const watch::GroupMappings& group, const watch::LiveMapping& allocation) override;
    void faulted(const watch::GroupMappings& group, const watch::Finding& finding) override;

  private:
    struct Row {
        IovaRange range = {};
        std::uint64_t mapped_ns = 0;
        std::optional<std::uint64_t> unmapped_ns = {};
        std::string label = {};
        std::string device = {};
        std::string mapped_by = {};
    };

    struct Mark {
        fault::Record record = {};
        std::optional<std::size_t> row = {};
        std::string device = {};
        std::string report = {};
    };

    struct Group {
        std::deque<Row> rows = {};
        std::size_t dropped = 0;                          ///< rows before the first one kept
        std::map<std::uint64_t, std::size_t> newest = {}; ///< by start, counting dropped rows
        std::vector<Mark> marks = {};
    };

    /// Of each group, the newest are kept.
    static constexpr std::size_t most_rows = 50'000;
    static constexpr std::size_t most_marks = 1'000;

    [[nodiscard]] static std::optional<std::size_t> row_of(const Group& group,
                                                           const fault::Mapping& mapping);
    [[nodiscard]] std::string frames_of(fault::StackView stack) const;
    [[nodiscard]] nlohmann::ordered_json picture_of(const Group& group) const;

    fault::Symbolise symbolise_;
    std::map<const watch::GroupMappings*, Group> groups_;
    std::uint64_t first_ns_ = 0;
    std::uint64_t last_ns_ = 0;
};

} // namespace moat::tools
