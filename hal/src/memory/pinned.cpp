// SPDX-License-Identifier: Apache-2.0
#include "memory/pinned.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <condition_variable>
#include <cstring>
#include <utility>
#include <vector>

#include "core/device_record.hpp"
#include "core/error.hpp"
#include "core/locks.hpp"
#include "core/state.hpp"
#include "core/tables.hpp"
#include "memory/pinned_slabs.hpp"

namespace xhal {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kSmallUnit = 64;
constexpr uint64_t kSmallSlabBytes = 1 << 20;
constexpr uint64_t kPageSlabBytes = 4 << 20;
constexpr uint64_t kLargestShared = 512 << 10;  // larger blocks have a slab of their own
constexpr uint32_t kProperties =
    XHAL_MEMORY_HOST_VISIBLE | XHAL_MEMORY_COHERENT | XHAL_MEMORY_CACHED;

struct Sharing {
  const uint64_t unit, slab_bytes;
  FreeRuns runs;
  PinnedSlab* spare = nullptr;  // wholly free, kept
};

// `mutex` is process-wide and comes before the address map's in the lock order.
struct Pinned {
  Mutex mutex{Rank::pinned};           // of what follows
  std::condition_variable registered;  // a registration is no longer being made or undone
  std::map<uint64_t, PinnedSlab*> slabs;
  Sharing small{kSmallUnit, kSmallSlabBytes, {}, nullptr};
  Sharing pages{kPage, kPageSlabBytes, {}, nullptr};
  std::vector<PinnedSlab*> unused;  // their memory is gone; a late reader may still look at them
};
Pinned& pinned() {
  static auto* p = new Pinned;
  return *p;
}
const AtLoad pinned_at_load(pinned);

// The memory is shared so that a device process can map it. In the child of a fork it is private,
// what the child writes stays there, and what it allocates comes from slabs of its own. No copy is
// made, for there may be gigabytes of it: in pages that the child has not written, it may see what
// the parent writes later.
void in_forked_child() {
  auto& p = pinned();
  for (const auto& [base, slab] : p.slabs) {
    if (slab->fd < 0) continue;
    void* const memory = reinterpret_cast<void*>(base);
    // Where that fails the child must not see it at all: writing there would be the parent's.
    if (mmap(memory, slab->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, slab->fd, 0) ==
        MAP_FAILED)
      (void)munmap(memory, slab->size);
    close(slab->fd);
    slab->fd = -1;
  }
  for (auto* sharing : {&p.small, &p.pages}) {
    sharing->runs = {};
    sharing->spare = nullptr;
  }
  new (&p.registered) std::condition_variable;
}
const AtLoad forks([] { run_in_forked_child(in_forked_child); });

Sharing* sharing_of(Pinned& p, uint64_t unit) {
  if (unit == 0) return nullptr;
  return unit == kSmallUnit ? &p.small : &p.pages;
}

uint64_t round_to(uint64_t size, uint64_t unit) { return (size + unit - 1) / unit * unit; }

uint64_t number_of(const ContextState& context) { return private_of(context.handle)->number; }

// A memfd, so that a device process can map it; the name shows in /proc/PID/maps.
struct SlabMemory {
  explicit SlabMemory(uint64_t bytes) : size(bytes), fd(memfd_create("xhal-pinned", MFD_CLOEXEC)) {
    if (fd >= 0 && ftruncate(fd, static_cast<off_t>(size)) == 0)
      address = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  }
  ~SlabMemory() {
    if (fd < 0) return;
    if (address != MAP_FAILED) munmap(address, size);
    close(fd);
  }
  SlabMemory(const SlabMemory&) = delete;
  SlabMemory& operator=(const SlabMemory&) = delete;
  int release() noexcept { return std::exchange(fd, -1); }

  const uint64_t size;
  int fd;
  void* address = MAP_FAILED;
};

// Makes a slab and enters it. Its first unit stays the slab's own, unless it is one block.
xhal_status make_slab(uint64_t size, uint64_t unit, PinnedSlab** made, const char* op) {
  SlabMemory memory(size);
  if (memory.address == MAP_FAILED) {
    const int error = errno;
    return fail(XHAL_ERR_OUT_OF_MEMORY, op, "{}: no {} bytes of pinned host memory: {}{}", op, size,
                std::strerror(error),
                error == EMFILE || error == ENFILE ? ".\n  Raise `ulimit -n`." : "");
  }
  auto& p = pinned();
  FreeRuns::Room room;
  const std::lock_guard lock(p.mutex);
  // What needs memory comes first: without it nothing has changed.
  if (p.unused.empty()) {
    p.unused.reserve(p.slabs.size() + 1);  // for all that there are and this one
    p.unused.push_back(new PinnedSlab);
  }
  auto* const slab = p.unused.back();
  const auto base = reinterpret_cast<uint64_t>(memory.address);
  const auto entry = p.slabs.emplace(base, slab).first;
  if (unit != 0) {
    AddressRange own{base, unit, XHAL_MEMORY_HOST, kProperties};
    own.detail = reinterpret_cast<uint64_t>(slab);
    try {
      address_map().add(own);
    } catch (...) {
      p.slabs.erase(entry);
      throw;
    }
    sharing_of(p, unit)->runs.give(base + unit, size - unit, room);
  }
  p.unused.pop_back();
  slab->base = base;
  slab->size = size;
  slab->fd = memory.release();
  slab->unit = unit;
  *made = slab;
  return XHAL_OK;
}

Registration* registration_of(const PinnedSlab& slab, uint64_t context) {
  auto* r = slab.registrations.load(std::memory_order_acquire);
  while (r != nullptr && r->context.load(std::memory_order_acquire) != context)
    r = r->next.load(std::memory_order_acquire);
  return r;
}

struct Undo {
  Registration* registration;
  uint64_t base;
};

// Takes the slab's registrations out of use; false when another thread is at work on one. With
// the lock held.
bool begin_undo(PinnedSlab& slab, std::vector<Undo>& list) noexcept {
  size_t made = 0;
  for (auto* r = slab.registrations.load(); r != nullptr; r = r->next.load()) {
    if (r->context.load() != 0 && r->address.load() == Registration::kBusy) return false;
    ++made;
  }
  if (made > list.capacity()) return false;  // a copy from it has just registered it once more
  for (auto* r = slab.registrations.load(); r != nullptr; r = r->next.load()) {
    if (r->context.load() == 0) continue;
    if (r->address.load() == Registration::kRefused) {
      r->context.store(0);
      continue;
    }
    r->address.store(Registration::kBusy);
    list.push_back({r, slab.base});
  }
  return true;
}

// Tells the plugins, without a lock, and then whoever waits for it.
void finish_undo(const std::vector<Undo>& list) {
  if (list.empty()) return;
  for (const auto& u : list) {
    if (is_forked()) break;  // the plugin is the parent's
    auto& context = *u.registration->owner;
    context.device->raw.host_unregister(context.handle, reinterpret_cast<void*>(u.base));
  }
  auto& p = pinned();
  const std::lock_guard lock(p.mutex);
  for (const auto& u : list) u.registration->context.store(0);
  p.registered.notify_all();
}

// A block's memory is free; the slab that is thereby wholly free is returned, unless it is kept.
// With the lock held.
PinnedSlab* release_block(Pinned& p, PinnedSlab& slab, uint64_t address, uint64_t size,
                          FreeRuns::Room& room, std::vector<Undo>& list) noexcept {
  if (slab.fd < 0) return nullptr;
  auto* sharing = sharing_of(p, slab.unit);
  if (sharing == nullptr) {
    // Somebody still registers it: a copy from memory that is being freed. Then it stays.
    return begin_undo(slab, list) ? &slab : nullptr;
  }
  const auto [run, run_size] = sharing->runs.give(address, size, room);
  if (run_size != slab.size - slab.unit) return nullptr;
  const bool has_spare = sharing->spare != nullptr && sharing->spare != &slab;
  if (!has_spare || !begin_undo(slab, list)) {
    sharing->spare = &slab;
    return nullptr;
  }
  sharing->runs.erase(run, run_size);
  return &slab;
}

// A block is no address any more: its memory is the slab's again, or the system's.
void give_back(PinnedSlab& slab, const AddressRange& block, FreeRuns::Room& room,
               std::vector<Undo> undo) noexcept {
  auto& p = pinned();
  PinnedSlab* gone = nullptr;
  {
    const std::lock_guard lock(p.mutex);
    gone = release_block(p, slab, block.base, block.size_bytes, room, undo);
  }
  if (gone == nullptr) return;
  finish_undo(undo);
  if (gone->unit != 0) (void)address_map().remove(gone->base);
  const int fd = gone->fd;
  void* memory = reinterpret_cast<void*>(gone->base);
  const uint64_t size = gone->size;
  {
    const std::lock_guard lock(p.mutex);
    p.slabs.erase(gone->base);
    p.unused.push_back(gone);  // there is room
  }
  munmap(memory, size);
  close(fd);
}

}  // namespace

xhal_status alloc_pinned(uint64_t size_bytes, void** address, const char* op) {
  auto& p = pinned();
  PinnedSlab* slab = nullptr;
  FreeRuns::Room room;
  AddressRange block{0, 0, XHAL_MEMORY_HOST, kProperties};
  block.requested_bytes = size_bytes;
  if (size_bytes > kLargestShared) {
    block.size_bytes = round_to(size_bytes, kPage);
    if (const auto s = make_slab(block.size_bytes, 0, &slab, op); s != XHAL_OK) return s;
    block.base = slab->base;
  } else {
    auto& sharing = size_bytes < kPage ? p.small : p.pages;
    block.size_bytes = round_to(size_bytes, sharing.unit);
    for (;;) {
      {
        const std::lock_guard lock(p.mutex);
        block.base = sharing.runs.take(block.size_bytes);
        if (block.base != 0) {
          slab = std::prev(p.slabs.upper_bound(block.base))->second;
          if (sharing.spare == slab) sharing.spare = nullptr;
          break;
        }
      }
      if (const auto s = make_slab(sharing.slab_bytes, sharing.unit, &slab, op); s != XHAL_OK)
        return s;
    }
  }
  block.detail = reinterpret_cast<uint64_t>(slab);
  try {
    address_map().add(block);
  } catch (...) {
    give_back(*slab, block, room, {});
    throw;
  }
  *address = reinterpret_cast<void*>(block.base);
  return XHAL_OK;
}

xhal_status free_pinned(void* address, const char* op) {
  const auto base = reinterpret_cast<uint64_t>(address);
  const auto block = address_map().find(base);
  const bool ours = block && is_pinned(*block) && block->base == base && block->requested_bytes > 0;
  if (ours && block->pool != nullptr) {
    return fail(XHAL_ERR_BUSY, op, "{}: {} is a slab of a pool; it is freed with the pool", op,
                address);
  }
  // What needs memory comes first: a failed call has changed nothing.
  FreeRuns::Room room;
  std::vector<Undo> undo;
  if (ours) {
    uint64_t made = 0;
    auto* r = reinterpret_cast<PinnedSlab*>(block->detail)->registrations.load();
    for (; r != nullptr; r = r->next.load()) ++made;
    undo.reserve(made);
  }
  if (!ours || !address_map().remove(base)) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, op,
                "{}: {} did not come from xhal_host_alloc, or was freed", op, address);
  }
  give_back(*reinterpret_cast<PinnedSlab*>(block->detail), *block, room, std::move(undo));
  return XHAL_OK;
}

xhal_status pinned_address(ContextState& context, const AddressRange& block, uint64_t address,
                           uint64_t* where) {
  auto& slab = *reinterpret_cast<PinnedSlab*>(block.detail);
  const uint64_t number = number_of(context);
  auto* known = registration_of(slab, number);
  xhal_status status = XHAL_OK;
  uint64_t seen =
      known == nullptr ? Registration::kBusy : known->address.load(std::memory_order_acquire);
  if (seen == Registration::kBusy) {
    auto& p = pinned();
    std::unique_lock<std::mutex> lock(p.mutex);
    known = registration_of(slab, number);
    if (known != nullptr) {  // another thread is at it
      p.registered.wait(lock, [&] {
        return known->context.load() != number || known->address.load() != Registration::kBusy;
      });
      // Undone: the memory is being freed while it is copied from; then nothing is known of it.
      seen = known->context.load() == number ? known->address.load() : Registration::kRefused;
    } else {
      known = registration_of(slab, 0);
      if (known == nullptr) {
        known = new Registration;
        known->next.store(slab.registrations.load());
        slab.registrations.store(known);
      }
      known->owner = &context;
      known->address.store(Registration::kBusy);
      known->context.store(number);
      lock.unlock();
      uint64_t there = 0;
      const auto* table = dispatch_of(context.handle);
      status = load_slot(table->host_register)(context.handle, reinterpret_cast<void*>(slab.base),
                                               slab.size, &there);
      seen = status == XHAL_OK && there != 0 ? there : Registration::kRefused;
      const bool for_good = status == XHAL_OK || status == XHAL_ERR_UNSUPPORTED;
      if (!for_good) status = annotate(status, context.handle, "xhal_host_register");
      lock.lock();
      known->address.store(seen);
      if (!for_good) known->context.store(0);
      p.registered.notify_all();
      if (!for_good) return status;
    }
  }
  *where = seen == Registration::kRefused ? 0 : seen + (address - slab.base);
  return XHAL_OK;
}

bool find_pinned(const void* address, int32_t* fd, uint64_t* offset,
                 uint64_t* size_bytes) noexcept {
  auto& p = pinned();
  const std::lock_guard lock(p.mutex);
  const auto at = reinterpret_cast<uint64_t>(address);
  auto it = p.slabs.upper_bound(at);
  if (it == p.slabs.begin()) return false;
  const auto& slab = *std::prev(it)->second;
  if (slab.fd < 0 || at - slab.base >= slab.size) return false;
  *fd = slab.fd;
  *offset = at - slab.base;
  *size_bytes = slab.size;
  return true;
}

void forget_registrations(ContextState& context) {
  auto& p = pinned();
  const uint64_t number = number_of(context);
  std::vector<Undo> undo;
  {
    std::unique_lock<std::mutex> lock(p.mutex);
    const auto busy = [&] {
      for (const auto& [base, slab] : p.slabs) {
        const auto* r = registration_of(*slab, number);
        if (r != nullptr && r->address.load() == Registration::kBusy) return true;
      }
      return false;
    };
    p.registered.wait(lock, [&] { return !busy(); });
    for (const auto& [base, slab] : p.slabs) {
      auto* r = registration_of(*slab, number);
      if (r == nullptr) continue;
      if (r->address.load() == Registration::kRefused) {
        r->context.store(0);
        continue;
      }
      r->address.store(Registration::kBusy);
      undo.push_back({r, slab->base});
    }
  }
  finish_undo(undo);
}

}  // namespace xhal
