// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The layout of moat.h's structs in C11; arguments_test.cpp compares it.
#ifndef LAYOUT_H
#define LAYOUT_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct layout {
    size_t error, mapping, fault, driver_error, config, limits;
    size_t report_in_fault, context_in_config;

#ifdef __cplusplus
    friend bool operator==(const layout&, const layout&) = default;
#endif
};

struct layout layout_in_c(void);

#ifdef __cplusplus
}
#endif

#endif
