// cells.hpp: 64-byte cells in memfd slabs that other processes can map. Never unmapped,
// never given back.
#pragma once

#include <cstdint>

namespace xhal {

// A zeroed, 64-byte aligned piece of `count` cells; nullptr without memory.
void* take_cells(uint64_t count) noexcept;
// Where a pointer from take_cells (or into it) lies. False when it is none.
bool find_cells(const void* cell, int32_t* fd, uint64_t* offset, uint64_t* size_bytes) noexcept;
// In the child of a fork: the parent goes on using its slabs, so new cells come from new ones.
void cells_after_fork() noexcept;
// Maps another process's slab (once per slab) and gives the cell at `offset`; nullptr when the fd
// is not such a slab.
void* map_foreign_cell(int32_t fd, uint64_t offset) noexcept;

}  // namespace xhal
