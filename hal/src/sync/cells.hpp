// SPDX-License-Identifier: Apache-2.0
// cells.hpp: 64-byte cells in memfd slabs that a device in another process can map. Never unmapped;
// a cell that was given back is used again, and its next owner continues from the value it has.
//
// Only devices get these slabs (host.h, shared_memory). What other programs see is a page of its
// own for each exported timeline (exported_view.hpp).
#pragma once

#include <cstdint>

#include "xhal/host.h"

namespace xhal {

// A cell for one timeline; nullptr without memory. Its `value` is that of its last owner.
xhal_timeline_cell* take_cell() noexcept;
// Nothing of any device writes to it any more.
void give_cell(xhal_timeline_cell* cell) noexcept;
// A zeroed, 64-byte aligned piece of `count` cells, for timestamps; nullptr without memory.
void* take_cells(uint64_t count) noexcept;
// Where a cell (or what lies inside one) is in shared memory. False when it is in none.
bool find_cells(const void* cell, int32_t* fd, uint64_t* offset, uint64_t* size_bytes) noexcept;
// A cell that stands at 0 for ever: that of timelines which have given theirs back.
xhal_timeline_cell* no_cell() noexcept;
// In the child of a fork, all locks held: its cells become private copies, so that nothing it does
// reaches its parent, and new cells come from new slabs.
void cells_after_fork() noexcept;

}  // namespace xhal
