// SPDX-License-Identifier: Apache-2.0
// runtime_memory.cpp: the faults of memory, and those in what the cpu plugin tells libxhal.
#include <sched.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runtime_faults.hpp"

namespace xhal::faults {
namespace {

Fault chosen() {
  static const Fault fault = [] {
    const char* wanted = std::getenv("XHAL_TEST_FAULT");
    if (wanted == nullptr || *wanted == 0) return Fault::none;
#define RUNTIME_FAULT(name, tests, told) \
  if (std::strcmp(wanted, #name) == 0) return Fault::name;
#include "runtime_faults.inc"
#undef RUNTIME_FAULT
    std::fprintf(stderr, "XHAL_TEST_FAULT=%s names no fault\n", wanted);
    std::abort();
  }();
  return fault;
}

// ---- what libxhal is told

xhal_status told_error(const xhal_error* error) {
  xhal_error changed = *error;
  if (planted(Fault::refusal_without_text)) return error->status;
  if (planted(Fault::operand_from_zero) && changed.operand > 0) --changed.operand;
  return plugin().host->error_set(&changed);
}

xhal_status told_range(xhal_device* device, xhal_context* context, uint64_t base, uint64_t size,
                       uint32_t kind, uint32_t flags) {
  if (planted(Fault::no_range_add)) return XHAL_OK;
  return plugin().host->range_add(device, context, base, size, kind, flags);
}

xhal_status told_no_range(uint64_t base) {
  if (planted(Fault::no_range_remove)) return XHAL_OK;
  return plugin().host->range_remove(base);
}

void told_failure(xhal_timeline* timeline, const xhal_error* error) {
  auto& p = plugin();
  xhal_error changed = *error;
  if (planted(Fault::wrong_dependency)) changed.status = XHAL_ERR_DEVICE;
  {
    const std::lock_guard lock(p.mutex);
    if (planted(Fault::signals_not_failed) && p.own.count(timeline) == 0) return;
    if (const auto other = p.instead.find(timeline); other != p.instead.end())
      timeline = other->second;
  }
  p.host->timeline_fail(timeline, &changed);
}

// ---- memory

// An allocator of its own, for the faults that the cpu plugin's does not lend itself to.
uint64_t take_block(uint64_t size) {
  static const auto slab =
      reinterpret_cast<uint64_t>(mmap(nullptr, uint64_t{1} << 32, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  static volatile uint64_t next = slab;
  const uint64_t block = next;
  if (planted(Fault::memory_is_not_locked)) sched_yield();
  next = block + (size + 4095) / 4096 * 4096;
  return block;
}

xhal_status alloc_own(xhal_context* context, uint64_t size, uint64_t* address) {
  auto& p = plugin();
  const auto take = [&] {
    auto& old = p.cached[size];
    if (old.empty()) return take_block(size);
    const uint64_t block = old.back();
    old.pop_back();
    return block;
  };
  if (planted(Fault::memory_is_not_locked)) {
    *address = take_block(size);
  } else {
    const std::lock_guard lock(p.mutex);
    *address = take();
  }
  return p.host->range_add(p.device, context, *address, size, XHAL_MEMORY_DEVICE,
                           XHAL_MEMORY_HOST_VISIBLE | XHAL_MEMORY_COHERENT);
}

bool allocates_itself() {
  return planted(Fault::memory_is_not_locked) || planted(Fault::scrub_ignored) ||
         planted(Fault::context_frees_all);
}

xhal_status memory_alloc(xhal_context* context, const xhal_memory_info* info, uint64_t* address) {
  auto& p = plugin();
  xhal_status status = allocates_itself() ? alloc_own(context, info->size_bytes, address)
                                          : p.behind->memory_alloc(context, info, address);
  if (planted(Fault::out_of_memory_is_a_limit) && status == XHAL_ERR_OUT_OF_MEMORY)
    return refuse(XHAL_ERR_LIMIT, "no memory is left");
  if (status != XHAL_OK) return status;
  if (planted(Fault::mappings_leak)) {
    mmap(nullptr, info->size_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  }
  const std::lock_guard lock(p.mutex);
  p.live[*address] = {context, info->size_bytes};
  return XHAL_OK;
}

xhal_status memory_free(xhal_context* context, uint64_t address) {
  auto& p = plugin();
  Allocation freed{};
  {
    const std::lock_guard lock(p.mutex);
    freed = p.live[address];
    p.live.erase(address);
    if (allocates_itself()) p.cached[freed.size].push_back(address);
  }
  if (allocates_itself() || planted(Fault::memory_leaks)) return p.host->range_remove(address);
  return p.behind->memory_free(context, address);
}

xhal_status context_scrub(xhal_context* context, uint64_t address, uint64_t size) {
  if (planted(Fault::scrub_ignored)) return XHAL_OK;
  return plugin().behind->context_scrub(context, address, size);
}

xhal_status context_destroy(xhal_context* context) {
  auto& p = plugin();
  std::vector<uint64_t> left;  // sizes
  {
    const std::lock_guard lock(p.mutex);
    for (auto it = p.live.begin(); it != p.live.end();) {
      if (it->second.context != context && !planted(Fault::context_frees_all)) {
        ++it;
        continue;
      }
      left.push_back(it->second.size);
      if (allocates_itself()) p.cached[it->second.size].push_back(it->first);
      it = p.live.erase(it);
    }
  }
  const auto status = p.behind->context_destroy(context);
  for (const uint64_t size : left) {
    if (!planted(Fault::context_keeps_memory)) break;
    xhal_memory_info info{};
    info.struct_size = sizeof info;
    info.kind = XHAL_MEMORY_DEVICE;
    info.size_bytes = size;
    uint64_t kept = 0;
    p.behind->memory_alloc(p.context, &info, &kept);
  }
  return status;
}

}  // namespace

bool planted(Fault fault) { return chosen() == fault; }

Plugin& plugin() {
  static auto* p = new Plugin;
  return *p;
}

xhal_status refuse(xhal_status status, const char* text) {
  xhal_error error{};
  error.struct_size = sizeof error;
  error.status = status;
  error.text = {text, std::strlen(text)};
  return plugin().host->error_set(&error);
}

void plant_services(xhal_host_services& services) {
  services.error_set = told_error;
  services.range_add = told_range;
  services.range_remove = told_no_range;
  services.timeline_fail = told_failure;
}

void plant_memory(xhal_dispatch& slots) {
  slots.memory_alloc = memory_alloc;
  slots.memory_free = memory_free;
  slots.context_scrub = context_scrub;
  slots.context_destroy = context_destroy;
}

}  // namespace xhal::faults
