// SPDX-License-Identifier: Apache-2.0
// outlets.hpp: descriptors that libxhal gives to callers and writes to later.
//
// The caller's end becomes readable when something is written, and the caller may close it at any
// time: a later write neither raises SIGPIPE nor keeps anything open for ever.
#pragma once

#include <cstddef>

namespace xhal {

struct Outlet {
  int theirs = -1;  // the caller's, to be closed by it
  int ours = -1;
};

// False without a descriptor. Messages arrive whole.
bool open_outlet(Outlet* outlet) noexcept;
// Whether the message was taken or is lost for want of room; false: the reader is gone.
bool write_outlet(int ours, const void* message, size_t bytes) noexcept;
// Whether the caller has closed its end.
bool reader_gone(int ours) noexcept;

}  // namespace xhal
