// SPDX-License-Identifier: Apache-2.0
// copy.hpp: a copy between any two addresses: native, through staging memory, or across plugins.
#pragma once

#include <optional>

#include "memory/address_map.hpp"
#include "sync/capture.hpp"

namespace xhal {

enum class Place {
  here,    // memory of the stream's device, or of a peer it reaches
  host,    // ordinary host memory, and pinned memory that the device need not or cannot know
  pinned,  // host memory that the device knows by `address`
  foreign  // another device's
};

struct End {
  Place place;
  uint64_t given;    // as the program gave it
  uint64_t address;  // as the stream's device sees it
  std::optional<AddressRange> range;
};

xhal_status copy(StreamState& side, uint64_t dst, uint64_t src, uint64_t size_bytes);
xhal_status fill(StreamState& side, uint64_t dst, uint64_t size_bytes, uint64_t pattern,
                 uint32_t pattern_bytes);

// XHAL_OK when streams of `context` may use the range; `which` says what it is in the error
// text: "the source".
xhal_status check_owner(const ContextState& context, const AddressRange& range, const char* op,
                        const char* which);

// bounce.cpp: one end is host memory that the device does not reach.
xhal_status bounce(StreamState& side, const End& dst, const End& src, uint64_t size_bytes);
// bridge.cpp: one end is memory of a device that this one does not reach.
xhal_status bridge(StreamState& side, const End& dst, const End& src, uint64_t size_bytes);

// The steps that copies are made of.
struct Piece;
// The plugin's copy.
xhal_status native_copy(StreamState& side, uint64_t dst, uint64_t src, uint64_t size_bytes);
// A memcpy in stream order; holds `piece` until it has run. With size 0 it only does that.
xhal_status host_copy(StreamState& side, Piece* piece, void* to, const void* from,
                      uint64_t size_bytes);
// What `then` gets from now on runs after what `first` has got.
xhal_status order(StreamState& first, StreamState& then);

}  // namespace xhal
