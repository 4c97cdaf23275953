// SPDX-License-Identifier: Apache-2.0
// transfer_api.cpp: the exported functions xhal_stream_copy and xhal_stream_fill.
#include "core/error.hpp"
#include "core/object.hpp"
#include "core/state.hpp"
#include "core/tables.hpp"
#include "memory/copy.hpp"

using xhal::fail;
using xhal::submitted;

#define CHECK_STREAM(stream, op)                                     \
  if (__builtin_expect(!xhal::is_live(stream, XHAL_KIND_STREAM), 0)) \
    return xhal::bad_handle(stream, XHAL_KIND_STREAM, op);

extern "C" {

xhal_status xhal_stream_copy(xhal_stream* stream, uint64_t dst, uint64_t src, uint64_t size_bytes) {
  constexpr const char* op = "xhal_stream_copy";
  CHECK_STREAM(stream, op)
  return xhal::exported(op, [&] {
    if (xhal::is_forked()) return xhal::fail_state(op);
    return submitted(xhal::copy(*xhal::state_of(stream), dst, src, size_bytes), stream, op);
  });
}

xhal_status xhal_stream_fill(xhal_stream* stream, uint64_t dst, uint64_t size_bytes,
                             uint64_t pattern, uint32_t pattern_bytes) {
  constexpr const char* op = "xhal_stream_fill";
  CHECK_STREAM(stream, op)
  if (pattern_bytes == 0 || pattern_bytes > 8 || (pattern_bytes & (pattern_bytes - 1)) != 0) {
    return submitted(fail(XHAL_ERR_INVALID_ARGUMENT, op,
                          "{}: a pattern has 1, 2, 4 or 8 bytes, not {}", op, pattern_bytes),
                     stream, op);
  }
  if (dst % pattern_bytes != 0 || size_bytes % pattern_bytes != 0) {
    return submitted(fail(XHAL_ERR_INVALID_ARGUMENT, op,
                          "{}: {:#x} + {} is not a multiple of the {} pattern bytes", op, dst,
                          size_bytes, pattern_bytes),
                     stream, op);
  }
  if (size_bytes == 0) return XHAL_OK;
  return xhal::exported(op, [&] {
    if (xhal::is_forked()) return xhal::fail_state(op);
    return submitted(xhal::fill(*xhal::state_of(stream), dst, size_bytes, pattern, pattern_bytes),
                     stream, op);
  });
}

}  // extern "C"
