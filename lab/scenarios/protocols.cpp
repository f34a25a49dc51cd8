// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Small models of protocols as scenarios: each has a right variant and wrong ones.
#include "lab/scenarios/protocols/publish_table.hpp"
#include "lab/scenarios/protocols/remote_free.hpp"
#include "lab/scenarios/protocols/unmap_page.hpp"
#include "lab/scenarios/protocols/walk_retry.hpp"
#include "lab/scenarios/scenario.hpp"

#include <algorithm>

namespace moat::scenarios {

namespace {

/// A scenario whose only parameter is the variant.
template <const auto& Names, class Variant, explore::Program (*Make)(Variant)>
[[nodiscard]] Scenario of_variants(const char* name, const char* summary) {
    Parameter variant = {.name = "variant",
                         .preset = "right",
                         .help = "the correct protocol, or a wrong one",
                         .values = {Names.begin(), Names.end()}};
    return {.name = name,
            .summary = summary,
            .parameters = {std::move(variant)},
            .program =
                [](const Configuration& text) {
                    const auto found = std::ranges::find(Names, text.at("variant"));
                    return Make(static_cast<Variant>(found - Names.begin()));
                },
            .scope =
                [](const Configuration& text) {
                    return "variant " + text.at("variant") + ", once by each thread";
                }};
}

} // namespace

std::vector<Scenario> protocol_scenarios() {
    return {
        of_variants<publish_table::variant_names, publish_table::Variant, &publish_table::program>(
            "publish-table", "link, walk, unlink and free a lower table"),
        of_variants<unmap_page::variant_names, unmap_page::Variant, &unmap_page::program>(
            "unmap-page", "unmap and free a page while a device uses it through its IOTLB"),
        of_variants<walk_retry::variant_names, walk_retry::Variant, &walk_retry::program>(
            "walk-retry", "a walker that must retry an entry"),
        of_variants<remote_free::variant_names, remote_free::Variant, &remote_free::program>(
            "remote-free", "return ranges that other threads freed to their owner")};
}

} // namespace moat::scenarios
