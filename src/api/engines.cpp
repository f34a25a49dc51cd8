// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "engines.hpp"

template class moat::dma::Space<moat::api::SoftDomain, moat::RealSync>;
template class moat::dma::Space<moat::machine::Domain, moat::RealSync>;
