// SPDX-License-Identifier: Apache-2.0
#include "memory/copy.hpp"

#include "core/device_record.hpp"
#include "core/plugin_record.hpp"
#include "memory/address_check.hpp"
#include "memory/context_memory.hpp"
#include "memory/host_registration.hpp"
#include "memory/pinned.hpp"

namespace xhal {
namespace {

constexpr const char* kOp = "xhal_stream_copy";

const DeviceRecord& owner_of(const AddressRange& range) {
  return *private_of(range.device)->device;
}

End locate(StreamState& side, uint64_t address) {
  auto& record = *side.device;
  const auto range = address_map().find(address);
  // A plugin may have entered what was registered with it, but where it sees it is kept here.
  if (!range || (range->kind == XHAL_MEMORY_HOST && range->device == record.device)) {
    const auto registered = registered_memory(*side.context->memory, address);
    if (!registered) return {range ? Place::here : Place::host, address, address, range};
    const uint64_t seen = registered->detail + (address - registered->base);
    return {Place::pinned, address, seen, registered};
  }
  if (range->device == record.device) return {Place::here, address, address, range};
  // What another device's plugin has entered of host memory is host memory all the same.
  if (range->device != nullptr && range->kind != XHAL_MEMORY_HOST)
    return {Place::foreign, address, address, range};
  if (record.has(XHAL_CAP_PAGEABLE_COPY) || !is_pinned(*range))
    return {Place::host, address, address, range};
  uint64_t seen = 0;  // without registration it is bounced
  if (pinned_address(*side.context, *range, address, &seen) != XHAL_OK || seen == 0)
    return {Place::host, address, address, range};
  return {Place::pinned, address, seen, range};
}

// Inside the allocation, and the context's own to use.
xhal_status check_end(const StreamState& side, const End& end, uint64_t size, const char* which) {
  const uint64_t address = end.given;
  if (address + (size - 1) < address) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, kOp, "{}: {} range {:#x} + {} wraps around", kOp, which,
                address, size);
  }
  if (!end.range)
    return addresses_are_checked() ? check_host_memory(address, size, kOp, which) : XHAL_OK;
  const auto& range = *end.range;
  if (const uint64_t left = range.left_at(address); size > left) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, kOp,
                "{}: {} range {:#x} + {} leaves its allocation ({:#x} + {}) by {} bytes", kOp,
                which, address, size, range.base, range.size_bytes, size - left);
  }
  if (addresses_are_checked()) {
    if (const auto s = check_block(range, address, size, kOp, which); s != XHAL_OK) return s;
  }
  return check_owner(*side.context, range, kOp, which);
}

// A device of the same plugin, or memory the host can touch and this device copies from there.
bool reaches(StreamState& side, const AddressRange& range) {
  if ((range.flags & XHAL_MEMORY_HOST_VISIBLE) != 0 && side.device->has(XHAL_CAP_PAGEABLE_COPY))
    return true;
  return peer_copies(*side.context, *private_of(range.device)->device);
}

}  // namespace

xhal_status check_owner(const ContextState& context, const AddressRange& range, const char* op,
                        const char* which) {
  if (range.context == context.handle || range.context == nullptr) return XHAL_OK;
  if (range.kind == XHAL_MEMORY_HOST) return XHAL_OK;
  if ((range.flags & XHAL_MEMORY_ANY_CONTEXT) != 0) return XHAL_OK;
  const auto& owner = owner_of(range);
  if (context.is_default && range.context == owner.context) return XHAL_OK;
  return fail(XHAL_ERR_PERMISSION, op,
              "{}: {} {:#x} + {} is memory of context {} of {}, the stream is of context {} of "
              "{}.\n  Allocate memory that contexts share with the flag XHAL_MEMORY_ANY_CONTEXT.",
              op, which, range.base, range.size_bytes, private_of(range.context)->number,
              owner.id(), private_of(context.handle)->number, context.device->id());
}

xhal_status native_copy(StreamState& side, uint64_t dst, uint64_t src, uint64_t size) {
  return load_slot(dispatch_of(side.handle)->stream_copy)(side.handle, dst, src, size);
}

xhal_status order(StreamState& first, StreamState& then) {
  xhal_event event{};
  if (const auto s = record_event(first, 0, &event); s != XHAL_OK) return s;
  return wait_event(then, event);
}

xhal_status copy(StreamState& side, uint64_t dst, uint64_t src, uint64_t size) {
  if (size == 0) return XHAL_OK;
  if (side.device->lost) return set_error(*side.device->lost_error);
  if (dst == 0 || src == 0) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, kOp, "{}: the {} address is 0", kOp,
                dst == 0 ? "destination" : "source");
  }
  End to = locate(side, dst), from = locate(side, src);
  if (const auto s = check_end(side, to, size, "the destination"); s != XHAL_OK) return s;
  if (const auto s = check_end(side, from, size, "the source"); s != XHAL_OK) return s;
  if (dst == src) return XHAL_OK;
  if (dst < src + size && src < dst + size) {
    return fail(XHAL_ERR_OVERLAP, kOp, "{}: source {:#x} and destination {:#x} overlap in {} bytes",
                kOp, src, dst, size);
  }
  if (to.place == Place::foreign && from.place == Place::foreign) {
    return fail(XHAL_ERR_FOREIGN_HANDLE, kOp,
                "{}: neither range belongs to {}; use a stream of one of their devices", kOp,
                side.device->id());
  }
  for (auto* end : {&to, &from}) {
    if (end->place == Place::foreign && reaches(side, *end->range)) end->place = Place::here;
  }
  if (to.place == Place::foreign || from.place == Place::foreign)
    return bridge(side, to, from, size);
  const bool unreachable = to.place == Place::host || from.place == Place::host;
  if (unreachable && !side.device->has(XHAL_CAP_PAGEABLE_COPY)) return bounce(side, to, from, size);
  return native_copy(side, to.address, from.address, size);
}

xhal_status fill(StreamState& side, uint64_t dst, uint64_t size, uint64_t pattern,
                 uint32_t pattern_bytes) {
  constexpr const char* op = "xhal_stream_fill";
  auto& record = *side.device;
  if (record.lost) return set_error(*record.lost_error);
  const auto range = address_map().find(dst);
  if (!range || range->device != record.device) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: {:#x} + {} is not memory of {} but {}", op, dst,
                size, record.id(),
                !range                     ? "nothing that xHAL knows"
                : range->device == nullptr ? "pinned host memory"
                                           : "of " + owner_of(*range).id());
  }
  if (size > range->left_at(dst)) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, op,
                "{}: the range {:#x} + {} leaves its allocation ({:#x} + {}) by {} bytes", op, dst,
                size, range->base, range->size_bytes, size - range->left_at(dst));
  }
  if (const auto s = check_owner(*side.context, *range, op, "the range"); s != XHAL_OK) return s;
  if (addresses_are_checked()) {
    if (const auto s = check_block(*range, dst, size, op, "the range"); s != XHAL_OK) return s;
  }
  return load_slot(dispatch_of(side.handle)->stream_fill)(side.handle, dst, size, pattern,
                                                          pattern_bytes);
}

}  // namespace xhal
