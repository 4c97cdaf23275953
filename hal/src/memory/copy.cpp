#include "memory/copy.hpp"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>

#include "memory/address_map.hpp"
#include "memory/pinned.hpp"
#include "core/object.hpp"
#include "core/plugin_record.hpp"

namespace xhal {
namespace {

constexpr uint64_t kBounceBytes = 16 << 20;
constexpr const char* kOp = "xhal_stream_copy";

enum class Place { here, host, pinned, foreign };

struct End {
  Place place;
  uint64_t address;  // as this device sees it
  std::optional<AddressRange> range;
};

End locate(DeviceRecord& record, uint64_t address) {
  auto range = address_map().find(address);
  if (!range) return {Place::host, address, range};
  if (range->device == record.device) return {Place::here, address, range};
  if (range->device != nullptr) return {Place::foreign, address, range};
  if (record.has(XHAL_CAP_PAGEABLE_COPY)) return {Place::host, address, range};
  const uint64_t seen = pinned_address(record, address);
  return seen == 0 ? End{Place::host, address, range} : End{Place::pinned, seen, range};
}

xhal_status check_bounds(const End& end, uint64_t size, const char* which) {
  if (!end.range) return XHAL_OK;
  const uint64_t left = end.range->size_bytes - (end.address - end.range->base);
  if (end.place == Place::pinned || size <= left) return XHAL_OK;
  return fail(XHAL_ERR_INVALID_ARGUMENT, kOp,
              "{}: the {} range {:#x} + {} leaves its allocation ({:#x} + {}) by {} bytes", kOp,
              which, end.address, size, end.range->base, end.range->size_bytes, size - left);
}

// Pinned memory that lives until the stream's work on it is done.
struct Bounce {
  void* memory = nullptr;
  explicit Bounce(uint64_t size) {
    if (xhal_host_alloc(size, &memory) != XHAL_OK) memory = nullptr;
  }
  ~Bounce() {
    if (memory != nullptr) xhal_host_free(memory);
  }
  uint64_t address() const { return reinterpret_cast<uint64_t>(memory); }
};

struct HostStep {
  std::shared_ptr<Bounce> bounce;
  void* to;
  const void* from;
  uint64_t size;
};

// Runs a memcpy (size may be 0: only keeps the bounce buffer until here) in stream order.
xhal_status host_step(StreamState& side, HostStep step) {
  auto* owned = new HostStep(std::move(step));
  const auto status = xhal_stream_host_call(
      side.handle,
      [](void* user, xhal_status state) {
        const std::unique_ptr<HostStep> s(static_cast<HostStep*>(user));
        if (state == XHAL_OK && s->size > 0) std::memcpy(s->to, s->from, s->size);
      },
      owned, 0);
  if (status != XHAL_OK) delete owned;
  return status;
}

xhal_status native(StreamState& side, uint64_t dst, uint64_t src, uint64_t size) {
  return __atomic_load_n(&head_of(side.handle)->dispatch, __ATOMIC_ACQUIRE)
      ->stream_copy(side.handle, dst, src, size);
}

// Unpinned host memory on a device that cannot take it: through pinned memory, piece by piece, in
// stream order.
xhal_status bounced(StreamState& side, const End& dst, const End& src, uint64_t size) {
  for (uint64_t done = 0; done < size; done += kBounceBytes) {
    const uint64_t piece = std::min(kBounceBytes, size - done);
    auto bounce = std::make_shared<Bounce>(piece);
    const uint64_t seen =
        bounce->memory == nullptr ? 0 : pinned_address(*side.device, bounce->address());
    if (seen == 0) {
      return fail(XHAL_ERR_UNSUPPORTED, kOp, "{}: {} takes neither unpinned nor pinned host memory",
                  kOp, side.device->id());
    }
    xhal_status s = XHAL_OK;
    if (src.place == Place::host) {
      s = host_step(
          side, {bounce, bounce->memory, reinterpret_cast<const void*>(src.address + done), piece});
      const uint64_t to = dst.place == Place::host ? 0 : dst.address + done;
      if (s == XHAL_OK && to == 0) {
        s = host_step(side,
                      {bounce, reinterpret_cast<void*>(dst.address + done), bounce->memory, piece});
      } else if (s == XHAL_OK) {
        s = native(side, to, seen, piece);
        if (s == XHAL_OK) s = host_step(side, {bounce, nullptr, nullptr, 0});
      }
    } else {
      s = native(side, seen, src.address + done, piece);
      if (s == XHAL_OK)
        s = host_step(side,
                      {bounce, reinterpret_cast<void*>(dst.address + done), bounce->memory, piece});
    }
    if (s != XHAL_OK) return s;
  }
  return XHAL_OK;
}

// A stream of libxhal's own on the other device, one per context.
xhal_status helper_stream(xhal_context* context, StreamState** helper) {
  static auto* mutex = new std::mutex;
  static auto* helpers = new std::map<xhal_context*, xhal_stream*>;
  const std::lock_guard lock(*mutex);
  auto& stream = (*helpers)[context];
  if (stream == nullptr || !is_live(stream, XHAL_KIND_STREAM) ||
      state_of(stream)->context->handle != context || state_of(stream)->timeline.load()->failed()) {
    if (const auto s = xhal_stream_create(context, nullptr, &stream); s != XHAL_OK) {
      stream = nullptr;
      return s;
    }
  }
  *helper = state_of(stream);
  return XHAL_OK;
}

xhal_status order(StreamState& first, StreamState& then) {
  xhal_event event{};
  if (const auto s = record_event(first, 0, &event); s != XHAL_OK) return s;
  return wait_event(then, event);
}

// One end is another device's memory. The helper stream copies between it and pinned memory, this
// stream the rest, and events put the two in order.
xhal_status bridged(StreamState& side, const End& dst, const End& src, uint64_t size) {
  const End& far = src.place == Place::foreign ? src : dst;
  if (src.place == Place::foreign && dst.place == Place::foreign) {
    return fail(XHAL_ERR_FOREIGN_HANDLE, kOp,
                "{}: neither range belongs to {}; use a stream of one of their devices", kOp,
                side.device->id());
  }
  if (side.capture.load(std::memory_order_relaxed) != nullptr) {
    return fail(XHAL_ERR_CAPTURE, kOp,
                "{}: a copy between devices of different plugins cannot be captured", kOp);
  }
  StreamState* helper = nullptr;
  auto* context = far.range->context != nullptr ? far.range->context
                                                : private_of(far.range->device)->device->context;
  if (const auto s = helper_stream(context, &helper); s != XHAL_OK) return s;
  for (uint64_t done = 0; done < size; done += kBounceBytes) {
    const uint64_t piece = std::min(kBounceBytes, size - done);
    auto bounce = std::make_shared<Bounce>(piece);
    if (bounce->memory == nullptr) return XHAL_ERR_OUT_OF_MEMORY;
    xhal_status s = XHAL_OK;
    if (src.place == Place::foreign) {
      s = order(side, *helper);
      if (s == XHAL_OK) s = copy(*helper, bounce->address(), src.address + done, piece);
      if (s == XHAL_OK) s = order(*helper, side);
      if (s == XHAL_OK) s = copy(side, dst.address + done, bounce->address(), piece);
    } else {
      s = copy(side, bounce->address(), src.address + done, piece);
      if (s == XHAL_OK) s = order(side, *helper);
      if (s == XHAL_OK) s = copy(*helper, dst.address + done, bounce->address(), piece);
      if (s == XHAL_OK) s = order(*helper, side);
    }
    if (s == XHAL_OK) s = host_step(side, {bounce, nullptr, nullptr, 0});
    if (s != XHAL_OK) return s;
  }
  return XHAL_OK;
}

}  // namespace

xhal_status copy(StreamState& side, uint64_t dst, uint64_t src, uint64_t size) {
  if (size == 0 || dst == src) return XHAL_OK;
  if (dst == 0 || src == 0) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, kOp, "{}: the {} address is 0", kOp,
                dst == 0 ? "destination" : "source");
  }
  auto& record = *side.device;
  const End to = locate(record, dst), from = locate(record, src);
  if (const auto s = check_bounds(to, size, "destination"); s != XHAL_OK) return s;
  if (const auto s = check_bounds(from, size, "source"); s != XHAL_OK) return s;
  if (dst < src + size && src < dst + size) {
    return fail(XHAL_ERR_OVERLAP, kOp, "{}: source {:#x} and destination {:#x} overlap in {} bytes",
                kOp, src, dst, size);
  }
  if (to.place == Place::foreign || from.place == Place::foreign) {
    // What the host can touch, a device that copies from the host can copy.
    const End& far = to.place == Place::foreign ? to : from;
    const bool direct = (far.range->flags & XHAL_MEMORY_HOST_VISIBLE) != 0 &&
                        record.has(XHAL_CAP_PAGEABLE_COPY) &&
                        (to.place != Place::foreign || from.place != Place::foreign);
    if (!direct) return bridged(side, to, from, size);
  }
  const bool unpinned = to.place == Place::host || from.place == Place::host;
  if (unpinned && !record.has(XHAL_CAP_PAGEABLE_COPY)) return bounced(side, to, from, size);
  return native(side, to.address, from.address, size);
}

}  // namespace xhal
