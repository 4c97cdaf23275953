// SPDX-License-Identifier: Apache-2.0
#include "capture.h"

#include <c10/util/Exception.h>

#include <algorithm>

namespace xhal_torch {
namespace {

struct Captures {
  std::mutex mutex;
  std::shared_ptr<Capture> under_way[kMaxDevices];
};
Captures& captures() {
  static auto* const all = new Captures;
  return *all;
}

struct Pools {
  std::mutex mutex;
  std::vector<std::weak_ptr<GraphPool>> live;
  std::vector<std::pair<DeviceIndex, xhal_pool*>> given_up;  // perhaps still used by queued work
  unsigned long long last_id = 0;
};
Pools& pools() {
  static auto* const all = new Pools;
  return *all;
}

std::vector<std::shared_ptr<GraphPool>> live_pools(DeviceIndex index) {
  std::vector<std::shared_ptr<GraphPool>> found;
  const std::lock_guard lock(pools().mutex);
  std::erase_if(pools().live, [](const auto& pool) { return pool.expired(); });
  for (const auto& weak : pools().live) {
    if (auto pool = weak.lock(); pool && pool->index() == index) found.push_back(std::move(pool));
  }
  return found;
}

// Takes the pools that were given up out of the list, so that one thread at a time has them.
class GivenUp {
 public:
  explicit GivenUp(DeviceIndex index) : index_(index) {
    const std::lock_guard lock(pools().mutex);
    std::erase_if(pools().given_up, [&](const auto& entry) {
      if (entry.first != index) return false;
      pools_.push_back(entry.second);
      return true;
    });
  }
  ~GivenUp() {
    const std::lock_guard lock(pools().mutex);
    for (xhal_pool* pool : pools_) pools().given_up.emplace_back(index_, pool);
  }
  GivenUp(const GivenUp&) = delete;
  GivenUp& operator=(const GivenUp&) = delete;
  std::vector<xhal_pool*>& operator*() { return pools_; }

 private:
  DeviceIndex index_;
  std::vector<xhal_pool*> pools_;
};

// Whether nothing of the pool is left. Destroying a pool waits for the work that uses its memory,
// giving back what is idle does not.
bool is_empty(xhal_pool* pool) {
  xhal_pool_stats stats{};
  stats.struct_size = sizeof stats;
  return xhal_pool_trim(pool, 0) == XHAL_OK && xhal_pool_query(pool, &stats) == XHAL_OK &&
         stats.reserved_bytes == 0;
}

}  // namespace

GraphPool::GraphPool(DeviceIndex index, PoolId id) : index_(index), id_(id) {
  check(xhal_pool_create(device(index).context, nullptr, &handle_), "making a graph's pool");
}

GraphPool::~GraphPool() {
  if (is_shut_down()) return;
  {
    const std::lock_guard lock(pools().mutex);
    pools().given_up.emplace_back(index_, handle_);
  }
  reap_graph_pools(index_);
}

std::shared_ptr<GraphPool> graph_pool(DeviceIndex index, PoolId id) {
  Pools& all = pools();
  {
    const std::lock_guard lock(all.mutex);
    if (id == PoolId{}) id = {++all.last_id, 0};
    for (const auto& weak : all.live) {
      const auto pool = weak.lock();
      if (!pool || pool->id() != id) continue;
      TORCH_CHECK(pool->index() == index, "the memory pool (", id.first, ", ", id.second,
                  ") belongs to a graph of xhal:", static_cast<int>(pool->index()),
                  "; this graph is captured on xhal:", static_cast<int>(index));
      return pool;
    }
  }
  auto made = std::make_shared<GraphPool>(index, id);
  const std::lock_guard lock(all.mutex);
  all.live.push_back(made);
  return made;
}

void for_each_pool(DeviceIndex index, const std::function<void(xhal_pool*)>& visit) {
  visit(device(index).pool);
  for (const auto& pool : live_pools(index)) visit(pool->handle());
  GivenUp given_up(index);
  for (xhal_pool* pool : *given_up) visit(pool);
}

void reap_graph_pools(DeviceIndex index) {
  GivenUp given_up(index);
  std::erase_if(*given_up, [](xhal_pool* pool) {
    return is_empty(pool) && xhal_pool_destroy(pool) == XHAL_OK;
  });
}

Philox Capture::take_random(const XhalGenerator& generator, int64_t outputs) {
  TORCH_CHECK(&generator == &generator_,
              "a graph draws from the device's own generator only, so that a replay knows where to "
              "go on; leave generator= out, or draw before the capture");
  const std::lock_guard lock(mutex_);
  if (offsets_.empty()) offsets_.push_back(0);
  const auto use = static_cast<int64_t>(offsets_.size()) - 1;
  TORCH_CHECK(use < kMostRandomUses, "more than ", kMostRandomUses,
              " random operators in one graph; capture it in parts");
  offsets_.push_back(offsets_.back() + XhalGenerator::rounded(outputs));
  Philox slots{};
  slots.seed_address = slots_;
  slots.offset_address = slots_ + static_cast<uint64_t>(1 + use) * sizeof(int64_t);
  return slots;
}

std::vector<uint64_t> Capture::random_offsets() const {
  const std::lock_guard lock(mutex_);
  return offsets_;
}

void Capture::free_at_end(c10::DataPtr block) {
  const std::lock_guard lock(mutex_);
  at_end_.push_back(std::move(block));
}

void Capture::keep(c10::DataPtr block) {
  const std::lock_guard lock(mutex_);
  kept_.push_back(std::move(block));
}

void Capture::end() {
  std::vector<c10::DataPtr> blocks;  // freed without the lock
  const std::lock_guard lock(mutex_);
  blocks.swap(at_end_);
}

void Capture::refuse_wait(const char* doing) {
  const std::string text = std::string(doing) +
                           ": the stream is being captured; nothing runs until the graph is "
                           "launched, so the host cannot wait for it";
  {
    const std::lock_guard lock(mutex_);
    if (refused_.empty()) refused_ = text;
  }
  TORCH_CHECK(false, text,
              ". Do this before the capture or after the replay; a copy to or from pinned memory "
              "with non_blocking=True can be captured");
}

std::string Capture::refused() const {
  const std::lock_guard lock(mutex_);
  return refused_;
}

void capture_begins(DeviceIndex index, std::shared_ptr<Capture> capture) {
  const std::lock_guard lock(captures().mutex);
  TORCH_CHECK(!captures().under_way[index],
              "another graph is being captured on xhal:", static_cast<int>(index),
              "; one capture a device at a time");
  captures().under_way[index] = std::move(capture);
  device(index).captures.store(true, std::memory_order_release);
}

void capture_is_over(DeviceIndex index) {
  std::shared_ptr<Capture> ended;  // let go of without the lock
  const std::lock_guard lock(captures().mutex);
  device(index).captures.store(false, std::memory_order_release);
  ended.swap(captures().under_way[index]);
}

std::shared_ptr<Capture> detail::find_capture(DeviceIndex index, xhal_stream* stream) {
  uint32_t capturing = 0;
  if (xhal_stream_capturing(stream, &capturing) != XHAL_OK || !capturing) return nullptr;
  const std::lock_guard lock(captures().mutex);
  return captures().under_way[index];
}

}  // namespace xhal_torch
