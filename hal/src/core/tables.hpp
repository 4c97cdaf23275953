// SPDX-License-Identifier: Apache-2.0
// tables.hpp: filling a dispatch table's holes and switching a whole table to a state.
#pragma once

#include "core/device_record.hpp"

namespace xhal {

template <class Handle>
inline constexpr uint32_t kKindOf = 0;
template <>
inline constexpr uint32_t kKindOf<xhal_device> = XHAL_KIND_DEVICE;
template <>
inline constexpr uint32_t kKindOf<xhal_context> = XHAL_KIND_CONTEXT;
template <>
inline constexpr uint32_t kKindOf<xhal_stream> = XHAL_KIND_STREAM;
template <>
inline constexpr uint32_t kKindOf<xhal_timeline> = XHAL_KIND_TIMELINE;
template <>
inline constexpr uint32_t kKindOf<xhal_op> = XHAL_KIND_OP;
template <>
inline constexpr uint32_t kKindOf<xhal_module> = XHAL_KIND_MODULE;
template <>
inline constexpr uint32_t kKindOf<xhal_kernel> = XHAL_KIND_KERNEL;
template <>
inline constexpr uint32_t kKindOf<xhal_graph> = XHAL_KIND_GRAPH;
template <>
inline constexpr uint32_t kKindOf<xhal_pool> = XHAL_KIND_POOL;

// Copies what both sides know of a plugin's table and puts "unsupported" into every hole.
void fill_table(xhal_dispatch& table, const xhal_dispatch& from, DeviceRecord* record);

// Replaces every slot but the destroying ones by relaxed stores: callers may be in the
// middle of reading.
void switch_to_lost(xhal_dispatch& table);
// Replaces every slot: destroying ones do nothing and succeed, the others return the
// process state's error.
void switch_to_stopped(xhal_dispatch& table);

// The name a stream was given (sync/stream_state.cpp).
const std::string& stream_name(const void* stream_state) noexcept;

// Completes a failure a plugin reported: its name, the device, and a text where it gave none.
xhal_status annotate(xhal_status status, const void* object, const char* operation) noexcept;
// A plugin has answered DEVICE_LOST for `object`: its device is lost from here on, though it has
// not said so through the host yet, for the program that reads the answer may free what a copy was
// given. Not when a stream that has failed only repeats why (device/open_devices.cpp).
void taken_at_its_word(const void* object) noexcept;
// Returns when all of a loss that another thread has begun can be seen: its error is written.
void wait_until_lost(const DeviceRecord& record) noexcept;
// The last error is that of a submission that did not come to be: a capture of the stream cannot be
// whole any more (sync/capture.cpp). Nothing for what is no captured stream.
void submission_refused(const void* object) noexcept;
// The end of a submission: a failure is completed, and told to the capture.
inline xhal_status submitted(xhal_status status, const void* object,
                             const char* operation) noexcept {
  if (__builtin_expect(status >= 0, 1)) return status;
  (void)annotate(status, object, operation);
  submission_refused(object);
  return status;
}
xhal_status foreign_handle(const void* first, const void* second, const char* operation) noexcept;

}  // namespace xhal
