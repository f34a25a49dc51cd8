// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "watch/follower.hpp"

#include <gtest/gtest.h>
