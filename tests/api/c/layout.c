// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Compiled as C11 with pedantic errors; moat.h is its first include.
#include "layout.h"

#include "moat/moat.h"

struct layout layout_in_c(void) {
    const moat_error error = MOAT_ERROR_INIT;
    return (struct layout){error.size,
                           sizeof(moat_mapping),
                           sizeof(moat_fault),
                           sizeof(moat_driver_error),
                           sizeof(moat_config),
                           sizeof(moat_limits),
                           offsetof(moat_fault, report),
                           offsetof(moat_config, context)};
}
