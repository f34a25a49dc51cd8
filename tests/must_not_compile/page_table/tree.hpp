// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The tree that the cases of this folder misuse.
#pragma once

#include "moat/page_table/edit.hpp"
#include "moat/page_table/formats/x86_64.hpp"
#include "moat/page_table/reader.hpp"
#include "moat/page_table/table_memory.hpp"
#include "moat/sync/serial.hpp"

using X86 = moat::formats::X86_64<4>;
using Pool = moat::TablePool<moat::SerialSync>;
using X86Tree = moat::Tree<X86, moat::SerialSync, Pool>;
template <unsigned L>
using Table = moat::Table<X86Tree, L>;
template <unsigned L>
using Entry = moat::Entry<X86Tree, L>;
template <unsigned L>
using Leaf = moat::Leaf<X86Tree, L>;
