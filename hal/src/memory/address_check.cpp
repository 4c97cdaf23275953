// SPDX-License-Identifier: Apache-2.0
#include "memory/address_check.hpp"

#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "core/error.hpp"
#include "memory/pool.hpp"

namespace xhal {
namespace {

constexpr uint64_t kPage = 4096;

std::atomic<bool>& on() {
  static std::atomic<bool> checked{false};
  return checked;
}

// Asks the kernel, which tells instead of faulting. True also when it may not be asked (seccomp).
bool is_readable(uint64_t address) {
  char byte;
  const iovec here{&byte, 1}, there{reinterpret_cast<void*>(address), 1};
  return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == 1 || errno != EFAULT;
}

// Whether every page of the range is mapped.
bool is_mapped(uint64_t address, uint64_t size) {
  std::array<unsigned char, 4096> resident;
  const uint64_t end = address + size;
  for (uint64_t page = address / kPage * kPage; page < end; page += resident.size() * kPage) {
    const uint64_t part = std::min(end - page, resident.size() * kPage);
    if (mincore(reinterpret_cast<void*>(page), part, resident.data()) != 0 && errno == ENOMEM)
      return false;
  }
  return true;
}

}  // namespace

void check_addresses(bool checked) noexcept { on().store(checked, std::memory_order_relaxed); }
bool addresses_are_checked() noexcept { return on().load(std::memory_order_relaxed); }

xhal_status check_block(const AddressRange& range, uint64_t address, uint64_t size, const char* op,
                        const char* what) {
  if (range.pool == nullptr) return XHAL_OK;
  uint64_t base = 0, block = 0;
  if (!find_block(range.pool, address, &base, &block)) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, op,
                "{}: {} {:#x} + {} lies in no block that its pool has handed out: it was freed, "
                "or never allocated",
                op, what, address, size);
  }
  if (address - base <= block && size <= block - (address - base)) return XHAL_OK;
  return fail(XHAL_ERR_INVALID_ARGUMENT, op,
              "{}: {} {:#x} + {} leaves its pool's block ({:#x} + {})", op, what, address, size,
              base, block);
}

xhal_status check_host_memory(uint64_t address, uint64_t size, const char* op, const char* what) {
  if (is_readable(address) && is_readable(address + (size - 1)) && is_mapped(address, size))
    return XHAL_OK;
  return fail(XHAL_ERR_INVALID_ARGUMENT, op,
              "{}: {} {:#x} + {} is neither memory of a device nor host memory of this process "
              "(freed?)",
              op, what, address, size);
}

}  // namespace xhal
