#include "sync/timestamps.hpp"

#include <mutex>
#include <new>
#include <vector>

#include "sync/cells.hpp"

namespace xhal {
namespace {

struct FreeRing {
  xhal_timestamp* slots;
  uint32_t last;
};
struct FreeRings {
  std::mutex mutex;
  std::vector<FreeRing> rings;
};
FreeRings& free_rings() {
  static auto* f = new FreeRings;
  return *f;
}

}  // namespace

void TimestampRing::open() noexcept {
  auto& f = free_rings();
  const std::lock_guard lock(f.mutex);
  if (!f.rings.empty()) {
    last_ = f.rings.back().last;
    slots_ = f.rings.back().slots;
    f.rings.pop_back();
    return;
  }
  slots_ = static_cast<xhal_timestamp*>(
      take_cells(kTimestampRing * sizeof(xhal_timestamp) / sizeof(xhal_timeline_cell)));
}

void TimestampRing::close() noexcept {
  auto* slots = slots_.exchange(nullptr);
  if (slots == nullptr) return;
  auto& f = free_rings();
  const std::lock_guard lock(f.mutex);
  try {
    f.rings.push_back({slots, last_});
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
  auto& slot = slots[n % kTimestampRing];
  std::atomic_ref(slot.pending).store(n, std::memory_order_relaxed);
  *number = n;
  return &slot;
}

bool TimestampRing::read(uint32_t number, uint64_t* ns) const noexcept {
  auto* slots = slots_.load(std::memory_order_acquire);
  if (slots == nullptr) return false;
  auto& slot = slots[number % kTimestampRing];
  if (std::atomic_ref(slot.slot).load(std::memory_order_acquire) != number) return false;
  *ns = std::atomic_ref(slot.device_ns).load(std::memory_order_acquire);
  // Not while the next owner's time is on its way: `pending` changes before its device writes.
  return std::atomic_ref(slot.pending).load(std::memory_order_acquire) == number;
}

void timestamps_after_fork() noexcept { new (&free_rings()) FreeRings; }

}  // namespace xhal
