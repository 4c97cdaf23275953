// SPDX-License-Identifier: Apache-2.0
// protocol.hpp: what the test plugin "remote" and its card say to each other over
// a SOCK_SEQPACKET socket.
//
// The card is a process of its own; its memory is a memfd that only the card maps. It raises
// timelines itself, in the shared memory that libxhal keeps their cells in.
#pragma once

#include <cstdint>

namespace remote {

inline constexpr uint64_t kMemoryBytes = 64 << 20;

// call: the card acknowledges and waits for a byte on its resume pipe before it goes on.
enum class Verb : uint32_t { copy_in, copy_out, copy, fill, signal, call, fail, hang, map };

// Addresses are offsets into the card's memory; host ranges are offsets into a memory file the card
// was sent before.
struct Command {
  Verb verb;
  uint32_t file;  // number of the memory file, for map, copy_in, copy_out and signal
  uint64_t dst, src, size;
  uint64_t pattern;
  uint32_t pattern_bytes;
  uint32_t reserved;
  uint64_t cell;      // offset of the timeline cell in its file
  uint64_t value;     // to raise it to
  uint64_t timeline;  // the client's handle (for call: its callback), echoed in the acknowledgement
};

// From the card: a signal has been given, a call is due, or an operation failed.
struct Acknowledgement {
  uint64_t timeline;
  uint64_t value;
  Verb verb;  // signal, call or fail
  uint32_t reserved;
};

}  // namespace remote
