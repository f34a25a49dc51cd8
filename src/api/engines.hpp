// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The engines that libmoat ships, instantiated once, in engines.cpp: the DMA API over tables in
// this process, and over a machine's. Tests that link moat::api include this: it saves 5 s a file.
#pragma once

#include "moat/dma/space.hpp"
#include "moat/iommu/soft_iommu.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/real.hpp"

#include "machine/domain.hpp"

namespace moat::api {

using SoftDomain =
    iommu::SoftDomain<Tree<formats::VtdSecondStage<4>, RealSync, TablePool<RealSync>>>;
using SoftSpace = dma::Space<SoftDomain, RealSync>;
using MachineSpace = dma::Space<machine::Domain, RealSync>;

} // namespace moat::api

extern template class moat::dma::Space<moat::api::SoftDomain, moat::RealSync>;
extern template class moat::dma::Space<moat::machine::Domain, moat::RealSync>;
