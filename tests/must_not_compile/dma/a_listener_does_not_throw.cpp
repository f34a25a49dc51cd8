// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A listener runs on a device's thread and inside free(), so its type is noexcept.
#include "moat/dma/driver_error.hpp"

using moat::dma::DriverError;

moat::dma::Listener test() {
    moat::dma::Listener listener;
#ifdef MOAT_CONTROL
    listener.driver_error = [](void*, const DriverError&) noexcept {};
#else
    listener.driver_error = [](void*, const DriverError&) {};
#endif
    return listener;
}
