// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The engines that libmoat ships, instantiated once, in engines.cpp: the DMA API over tables in
// this process, and over Linux's.
#pragma once

#include "moat/dma/space.hpp"
#include "moat/iommu/soft_iommu.hpp"
#include "moat/page_table/formats/vtd_second_stage.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/real.hpp"

#include "machine/vfio_host/kernel_domain.hpp"

namespace moat::api {

using SoftDomain =
    iommu::SoftDomain<Tree<formats::VtdSecondStage<4>, RealSync, TablePool<RealSync>>>;
using SoftSpace = dma::Space<SoftDomain, RealSync>;
using KernelSpace = dma::Space<machine::vfio_host::KernelDomain, RealSync>;

} // namespace moat::api

extern template class moat::dma::Space<moat::api::SoftDomain, moat::RealSync>;
extern template class moat::dma::Space<moat::machine::vfio_host::KernelDomain, moat::RealSync>;
