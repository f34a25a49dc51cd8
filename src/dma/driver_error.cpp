// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A driver's error in one line.
#include "moat/dma/driver_error.hpp"

#include "moat/core/text.hpp"

#include <sstream>

namespace moat::dma {

std::string summary(const DriverError& error) {
    std::ostringstream line;
    line << name(error.kind) << ": " << error.range;
    if (!error.mapping.range.empty())
        line << " of \"" << error.mapping.label << "\" " << error.mapping.range;
    else if (error.past)
        line << ", where \"" << error.past->mapping.label << "\" " << error.past->mapping.range
             << " was, " << error.past->unmaps_since << " unmaps ago";
    return line.str();
}

} // namespace moat::dma
