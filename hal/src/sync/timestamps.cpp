// SPDX-License-Identifier: Apache-2.0
#include "sync/timestamps.hpp"

#include <vector>

#include "core/locks.hpp"
#include "sync/cells.hpp"

namespace xhal {
namespace {

struct FreeRing {
  xhal_timestamp* slots;
  uint32_t last, size;
};
struct FreeRings {
  Mutex mutex{Rank::timestamps};
  std::vector<FreeRing> rings;
};
FreeRings& free_rings() {
  static auto* f = new FreeRings;
  return *f;
}
const AtLoad free_rings_at_load(free_rings);

}  // namespace

void TimestampRing::open(uint32_t size) noexcept {
  size_ = size;
  {
    auto& f = free_rings();
    const std::lock_guard lock(f.mutex);
    for (auto& ring : f.rings) {
      if (ring.size != size) continue;
      last_ = ring.last;
      slots_ = ring.slots;
      std::swap(ring, f.rings.back());
      f.rings.pop_back();
      return;
    }
  }
  constexpr uint32_t kPerCell = sizeof(xhal_timeline_cell) / sizeof(xhal_timestamp);
  slots_ = static_cast<xhal_timestamp*>(take_cells((uint64_t{size} + kPerCell - 1) / kPerCell));
}

void TimestampRing::close() noexcept {
  auto* slots = slots_.exchange(nullptr);
  if (slots == nullptr) return;
  auto& f = free_rings();
  const std::lock_guard lock(f.mutex);
  try {
    f.rings.push_back({slots, last_, size_});
  } catch (...) {  // then this ring is simply not used again
  }
}

xhal_timestamp* TimestampRing::take(uint32_t* number) noexcept {
  auto* slots = slots_.load(std::memory_order_acquire);
  if (slots == nullptr) return nullptr;
  uint32_t n;
  do {
    n = last_.fetch_add(1, std::memory_order_relaxed) + 1;
  } while (n == 0);
  auto& slot = slots[n % size_];
  std::atomic_ref(slot.pending).store(n, std::memory_order_relaxed);
  *number = n;
  return &slot;
}

xhal_status TimestampRing::read(uint32_t number, uint64_t* ns) const noexcept {
  auto* slots = slots_.load(std::memory_order_acquire);
  if (slots == nullptr) return XHAL_ERR_EXPIRED;
  auto& slot = slots[number % size_];
  const bool written = std::atomic_ref(slot.slot).load(std::memory_order_acquire) == number;
  *ns = std::atomic_ref(slot.device_ns).load(std::memory_order_acquire);
  // Not while the next owner's time is on its way: `pending` changes before its device writes.
  if (std::atomic_ref(slot.pending).load(std::memory_order_acquire) != number)
    return XHAL_ERR_EXPIRED;
  return written ? XHAL_OK : XHAL_NOT_READY;
}

void timestamps_after_fork() noexcept { free_rings().rings.clear(); }

}  // namespace xhal
