// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A driver's error in one line.
#include "moat/dma/driver_error.hpp"

#include "moat/core/text.hpp"

#include <sstream>

namespace moat::dma {

namespace {

/// "4096 bytes of a 4000-byte heap block"
void name_memory(std::ostream& line, const DriverError& error) {
    line << error.memory.size() << " bytes";
    if (error.block.start != 0)
        line << " of a " << error.block.size.value() << "-byte heap block";
}

} // namespace

std::string summary(const DriverError& error) {
    std::ostringstream line;
    line << name(error.kind) << ": ";
    if (error.kind == DriverErrorKind::not_addressable) {
        line << '"' << error.mapping.label << "\" maps ";
        name_memory(line, error);
        return line.str();
    }
    line << error.range;
    if (!error.mapping.range.empty())
        line << " of \"" << error.mapping.label << "\" " << error.mapping.range;
    else if (error.past)
        line << ", where \"" << error.past->mapping.label << "\" " << error.past->mapping.range
             << " was, " << error.past->unmaps_since << " unmaps ago";
    if (error.other)
        line << ", whose memory \"" << error.other->label << "\" " << error.other->range
             << " also maps";
    if (error.kind == DriverErrorKind::freed) {
        line << ", ";
        name_memory(line, error);
        line << ": device access is revoked";
    }
    if (error.mapping.sampled_of != 0)
        line << " (sampled: one in " << error.mapping.sampled_of << ")";
    return line.str();
}

} // namespace moat::dma
