// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The recordings of this process: the containers whose options name one file share it.
#pragma once

#include "moat/core/result.hpp"

#include "dma/space_recorder.hpp"

#include <memory>
#include <string>

namespace moat::api {

/// The recorder of `file`, which the first call creates. It stays until the process ends, so that a
/// later container continues the recording. Any thread. Errors: SpaceRecorder::create's.
[[nodiscard]] Result<std::shared_ptr<dma::SpaceRecorder>> recorder_of(const std::string& file);

/// "container 1", and so on: what a recording calls the devices of a container.
[[nodiscard]] std::string next_container_name();

} // namespace moat::api
