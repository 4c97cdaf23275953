// pool.hpp: the caching allocator, as the rest of libxhal needs it.
#pragma once

#include "xhal/pool.h"

namespace xhal {

// A stream is being destroyed: its work has run, so its free blocks are anybody's.
void pool_stream_gone(xhal_pool* pool, xhal_stream* stream) noexcept;
// Blocks allocated between begin and end belong to the capture, and to its graph until that is
// gone.
void pool_begin_capture(xhal_pool* pool, uint64_t key) noexcept;
void pool_end_capture(xhal_pool* pool, uint64_t key, bool has_graph) noexcept;
void pool_graph_gone(xhal_pool* pool, uint64_t key) noexcept;
// The block in use that an address lies in, and the size that was asked for. Takes the pool's lock;
// for layer `validate`.
bool find_block(xhal_pool* pool, uint64_t address, uint64_t* base, uint64_t* size_bytes);
// The context ends: gives every slab back, whatever is still out.
void abandon_pool(xhal_pool* pool) noexcept;

}  // namespace xhal
