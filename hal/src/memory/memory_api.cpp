// memory.cpp: allocation with quota, pinned host memory, and what an address is.
#include <fmt/core.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <map>

#include "memory/address_map.hpp"
#include "memory/context_memory.hpp"
#include "memory/pinned.hpp"
#include "core/argument_check.hpp"
#include "core/object.hpp"
#include "core/state.hpp"
#include "core/tables.hpp"
#include "xhal/struct_check.hpp"

namespace xhal {
namespace {

struct Pinned {
  int fd;
  uint64_t size;
  std::map<DeviceRecord*, uint64_t> registered;  // 0 = refused
};
struct PinnedList {
  std::mutex mutex;
  std::map<uint64_t, Pinned> blocks;
};
PinnedList& pinned() {
  static auto* p = new PinnedList;
  return *p;
}

constexpr uint64_t kAbsurdBytes = uint64_t{1} << 47;  // more than an address space has

}  // namespace

uint64_t pinned_address(DeviceRecord& record, uint64_t host_address) {
  auto& p = pinned();
  const std::lock_guard lock(p.mutex);
  auto it = p.blocks.upper_bound(host_address);
  if (it == p.blocks.begin()) return 0;
  --it;
  if (host_address - it->first >= it->second.size) return 0;
  auto known = it->second.registered.find(&record);
  if (known == it->second.registered.end()) {
    uint64_t address = 0;
    if (record.table.host_register(record.context, reinterpret_cast<void*>(it->first),
                                   it->second.size, &address) != XHAL_OK) {
      address = 0;
    }
    known = it->second.registered.emplace(&record, address).first;
  }
  return known->second == 0 ? 0 : known->second + (host_address - it->first);
}

bool find_pinned(const void* address, int32_t* fd, uint64_t* offset,
                 uint64_t* size_bytes) noexcept {
  auto& p = pinned();
  const std::lock_guard lock(p.mutex);
  const auto at = reinterpret_cast<uint64_t>(address);
  auto it = p.blocks.upper_bound(at);
  if (it == p.blocks.begin()) return false;
  --it;
  if (at - it->first >= it->second.size) return false;
  *fd = it->second.fd;
  *offset = at - it->first;
  *size_bytes = it->second.size;
  return true;
}

void forget_registrations(DeviceRecord& record) {
  auto& p = pinned();
  const std::lock_guard lock(p.mutex);
  for (auto& [base, block] : p.blocks) {
    const auto known = block.registered.find(&record);
    if (known == block.registered.end()) continue;
    if (known->second != 0)
      record.raw.host_unregister(record.context, reinterpret_cast<void*>(base));
    block.registered.erase(known);
  }
}

void adopt_context_memory(ContextState&) {}
xhal_status end_context_memory(ContextState& context, bool) {
  if (context.is_default) forget_registrations(*context.device);
  address_map().remove_context(context.handle);
  return XHAL_OK;
}

}  // namespace xhal

using xhal::fail;
using xhal::is_live;

extern "C" {

xhal_status xhal_memory_alloc(xhal_context* context, const xhal_memory_info* info,
                              uint64_t* address) {
  constexpr const char* op = "xhal_memory_alloc";
  if (!is_live(context, XHAL_KIND_CONTEXT)) return xhal::bad_handle(context, XHAL_KIND_CONTEXT, op);
  return xhal::exported(op, [&]() -> xhal_status {
    xhal_memory_info local{};
    if (const auto s = xhal::required(op, {{"info", info}, {"address", address}}); s != XHAL_OK)
      return s;
    if (const auto s = xhal::structs::read(info, local); s != XHAL_OK) {
      return fail(s, op, "{}: bad info structure of {} bytes: {}", op, info->struct_size,
                  xhal_status_text(s));
    }
    if (local.size_bytes == 0) {
      return fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: size 0; allocate at least one byte", op);
    }
    if ((local.alignment_bytes & (local.alignment_bytes - 1)) != 0) {
      return fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: alignment {} is not a power of two", op,
                  local.alignment_bytes);
    }
    if (local.kind != XHAL_MEMORY_DEVICE && local.kind != XHAL_MEMORY_SHARED) {
      return fail(XHAL_ERR_INVALID_ARGUMENT, op,
                  "{}: kind {} is neither XHAL_MEMORY_DEVICE nor _SHARED; pinned host "
                  "memory comes from xhal_host_alloc",
                  op, local.kind);
    }
    auto& record = *xhal::private_of(context)->device;
    if (local.size_bytes >= xhal::kAbsurdBytes || local.alignment_bytes >= xhal::kAbsurdBytes) {
      return fail(XHAL_ERR_OUT_OF_MEMORY, op,
                  "{}: {} bytes (aligned to {}) on {} are more than any device has", op,
                  local.size_bytes, local.alignment_bytes, record.id());
    }
    auto* side = xhal::state_of(context);
    if (side->quota_bytes != 0 &&
        side->used_bytes.fetch_add(local.size_bytes) + local.size_bytes > side->quota_bytes) {
      const uint64_t used = side->used_bytes.fetch_sub(local.size_bytes) - local.size_bytes;
      return fail(XHAL_ERR_LIMIT, op,
                  "{}: {} bytes on {} would exceed the context's quota of {}; {} are in use", op,
                  local.size_bytes, record.id(), side->quota_bytes, used);
    }
    const xhal_status status = xhal::dispatch_of(context)->memory_alloc(context, &local, address);
    if (status != XHAL_OK) {
      if (side->quota_bytes != 0) side->used_bytes -= local.size_bytes;
      return xhal::annotate(status, context, op);
    }
    return XHAL_OK;
  });
}

xhal_status xhal_memory_free(xhal_context* context, uint64_t address) {
  constexpr const char* op = "xhal_memory_free";
  if (!is_live(context, XHAL_KIND_CONTEXT)) return xhal::bad_handle(context, XHAL_KIND_CONTEXT, op);
  return xhal::exported(op, [&]() -> xhal_status {
    auto& record = *xhal::private_of(context)->device;
    const auto range = xhal::address_map().find(address);
    if (!range || range->base != address || range->context != context) {
      if (!xhal::is_running()) return XHAL_OK;
      return fail(XHAL_ERR_INVALID_ARGUMENT, op,
                  "{}: {:#x} is not the start of an allocation of this context on {}{}", op,
                  address, record.id(),
                  range ? fmt::format("; it lies {} bytes into one at {:#x}", address - range->base,
                                      range->base)
                        : "");
    }
    auto* side = xhal::state_of(context);
    if (false) {
      // The stream-free way: the context is idle for this memory by contract, so a blocking fill is
      // in order.
      xhal_stream* stream = nullptr;
      if (xhal_stream_create(context, nullptr, &stream) == XHAL_OK) {
        xhal_stream_fill(stream, address, range->size_bytes, 0, 1);
        xhal_stream_destroy(stream);
      }
    }
    const xhal_status status = xhal::dispatch_of(context)->memory_free(context, address);
    if (status == XHAL_OK && side->quota_bytes != 0) side->used_bytes -= range->size_bytes;
    return status >= 0 ? status : xhal::annotate(status, context, op);
  });
}

xhal_status xhal_host_alloc(uint64_t size_bytes, void** address) {
  constexpr const char* op = "xhal_host_alloc";
  return xhal::exported(op, [&]() -> xhal_status {
    if (const auto s = xhal::required(op, {{"address", address}}); s != XHAL_OK) return s;
    if (size_bytes == 0) return fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: size 0", op);
    if (!xhal::is_running()) return xhal::fail_state(op);
    if (size_bytes >= xhal::kAbsurdBytes) {
      return fail(XHAL_ERR_OUT_OF_MEMORY, op, "{}: {} bytes are more than a machine has", op,
                  size_bytes);
    }
    // A memfd, so that a device process can map it; the name shows in /proc/PID/maps.
    const int fd = memfd_create("xhal-pinned", MFD_CLOEXEC);
    const uint64_t size = (size_bytes + 4095) & ~uint64_t{4095};
    void* p = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) == 0) {
      p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (p == MAP_FAILED) {
      const int error = errno;
      if (fd >= 0) close(fd);
      return fail(XHAL_ERR_OUT_OF_MEMORY, op, "{}: no {} bytes of host memory: {}", op, size_bytes,
                  std::strerror(error));
    }
    const auto base = reinterpret_cast<uint64_t>(p);
    xhal::address_map().add({base, size, XHAL_MEMORY_HOST,
                             XHAL_MEMORY_HOST_VISIBLE | XHAL_MEMORY_COHERENT | XHAL_MEMORY_CACHED,
                             nullptr, nullptr, nullptr});
    const std::lock_guard lock(xhal::pinned().mutex);
    xhal::pinned().blocks.emplace(base, xhal::Pinned{fd, size, {}});
    *address = p;
    return XHAL_OK;
  });
}

xhal_status xhal_host_free(void* address) {
  constexpr const char* op = "xhal_host_free";
  return xhal::exported(op, [&]() -> xhal_status {
    if (address == nullptr) return XHAL_OK;
    auto& p = xhal::pinned();
    const auto base = reinterpret_cast<uint64_t>(address);
    xhal::Pinned block;
    {
      const std::lock_guard lock(p.mutex);
      const auto it = p.blocks.find(base);
      if (it == p.blocks.end()) {
        return fail(XHAL_ERR_INVALID_ARGUMENT, op,
                    "{}: {} did not come from xhal_host_alloc, or was freed", op, address);
      }
      block = std::move(it->second);
      p.blocks.erase(it);
    }
    for (auto& [record, device_address] : block.registered) {
      if (device_address != 0 && record->phase != xhal::DeviceRecord::Phase::closed)
        record->table.host_unregister(record->context, address);
    }
    xhal::address_map().remove(base);
    munmap(address, block.size);
    close(block.fd);
    return XHAL_OK;
  });
}

xhal_status xhal_pointer_query(uint64_t address, xhal_pointer_info* info) {
  constexpr const char* op = "xhal_pointer_query";
  if (const auto s = xhal::required(op, {{"info", info}}); s != XHAL_OK) return s;
  *info = {};
  if (const auto range = xhal::address_map().find(address)) {
    info->kind = range->kind;
    info->flags = range->flags;
    info->base = range->base;
    info->size_bytes = range->size_bytes;
    info->device = range->device;
    info->context = range->context;
    info->pool = range->pool;
  }
  return XHAL_OK;
}

}  // extern "C"
