#include "memory/pool.hpp"

#include <algorithm>

#include "memory/address_map.hpp"
#include "memory/copy.hpp"
#include "memory/pool_state.hpp"
#include "sync/stream_state.hpp"

namespace xhal {
namespace {

constexpr uint64_t rounded(uint64_t size) {
  return round_up(std::max<uint64_t>(size, 1), kAlignment);
}
constexpr bool is_small(uint64_t size) { return size <= kSmallBytes; }

}  // namespace

void Pool::Part::poll_pending() {
  for (auto it = pending.begin(); it != pending.end();) {
    // A failed event is over, too: its work will not run.
    const bool waiting = std::any_of(it->events.begin(), it->events.end(), [](const xhal_event& e) {
      return e.timeline != nullptr && Timeline::of(e.timeline)->poll(e.value) == XHAL_NOT_READY;
    });
    if (waiting) {
      ++it;
      continue;
    }
    stats.pending_bytes -= it->block->size;
    free_blocks.make_free(it->block);
    it = pending.erase(it);
  }
}

xhal_status Pool::Part::new_slab(uint64_t size, bool small, uint64_t owner, Block** block) {
  const uint64_t bytes = small                 ? kSmallSlab
                         : size < kMiddleBytes ? kMiddleSlab
                                               : round_up(size, kLargeRound);
  if (info.limit_bytes != 0 && stats.reserved_bytes + bytes > info.limit_bytes)
    return XHAL_ERR_OUT_OF_MEMORY;
  uint64_t base = 0;
  if (info.kind == XHAL_MEMORY_HOST) {
    void* p = nullptr;
    if (const auto s = xhal_host_alloc(bytes, &p); s != XHAL_OK) return s;
    base = reinterpret_cast<uint64_t>(p);
  } else {
    xhal_memory_info memory{};
    memory.struct_size = sizeof memory;
    memory.kind = info.kind;
    memory.flags = info.flags;
    memory.size_bytes = bytes;
    memory.alignment_bytes = kAlignment;
    if (const auto s = xhal_memory_alloc(context->handle, &memory, &base); s != XHAL_OK) return s;
  }
  address_map().set_pool(base, handle);
  slabs.push_back(std::make_unique<Slab>(Slab{base, bytes, small}));
  *block = new Block{base, bytes, 0, slabs.back().get(), nullptr, nullptr, owner, false, {}};
  stats.slab_count = slabs.size();
  ++stats.slab_allocation_count;
  stats.reserved_bytes += bytes;
  stats.reserved_peak_bytes = std::max(stats.reserved_peak_bytes, stats.reserved_bytes);
  return XHAL_OK;
}

Block* Pool::Part::steal(xhal_stream* stream, uint64_t size, bool small) {
  free_blocks.cool_all();
  for (auto& [key, ignored] : free_blocks.bins()) {
    if (key.second != small || key.first == 0 || is_capture(key.first)) continue;
    auto* other = reinterpret_cast<xhal_stream*>(key.first);
    Block* b = free_blocks.take(key.first, size, small);
    if (b == nullptr) continue;
    xhal_event event{};
    auto ordered = record_event(*state_of(other), 0, &event);
    if (ordered == XHAL_OK) {
      ordered = stream != nullptr ? wait_event(*state_of(stream), event)
                                  : xhal_event_wait(&event, XHAL_FOREVER);
    }
    if (ordered == XHAL_OK || state_of(other)->timeline.load()->failed()) return b;
    free_blocks.insert_free(b);
  }
  return nullptr;
}

void Pool::Part::give_back(Slab* slab) {
  if (info.kind == XHAL_MEMORY_HOST)
    xhal_host_free(reinterpret_cast<void*>(slab->base));
  else
    xhal_memory_free(context->handle, slab->base);
  stats.reserved_bytes -= slab->size;
  slabs.remove_if([&](const auto& s) { return s.get() == slab; });
  stats.slab_count = slabs.size();
}

void Pool::Part::trim(uint64_t keep) {
  poll_pending();
  free_blocks.cool_all();
  for (auto& [key, list] : free_blocks.bins()) {
    if (is_capture(key.first)) continue;
    // A stream may still be using what is free in its order, so only what nobody owns, or whose
    // stream is idle, goes.
    if (key.first != 0) {
      auto& side = *state_of(reinterpret_cast<xhal_stream*>(key.first));
      xhal_event event{};
      if (record_event(side, 0, &event) == XHAL_OK && xhal_event_query(&event) == XHAL_NOT_READY)
        continue;
    }
    for (auto it = list.begin(); it != list.end() && stats.reserved_bytes > keep;) {
      Block* b = *it;
      if (b->size != b->slab->size) {
        ++it;
        continue;
      }
      it = list.erase(it);
      give_back(b->slab);
      delete b;
    }
  }
}

std::string Pool::Part::holders() const {
  std::map<std::string, std::pair<uint64_t, uint64_t>> by_tag;
  for (const auto& [address, b] : blocks) {
    auto& entry = by_tag[b->tag.empty() ? "(untagged)" : b->tag];
    entry.first += b->size;
    ++entry.second;
  }
  std::vector<std::pair<std::string, std::pair<uint64_t, uint64_t>>> sorted(by_tag.begin(),
                                                                            by_tag.end());
  std::sort(sorted.begin(), sorted.end(),
            [](auto& a, auto& b) { return a.second.first > b.second.first; });
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(sorted.size(), 5); ++i) {
    text += fmt::format("\n    {:>9.1f} MiB in {} blocks: {}",
                        static_cast<double>(sorted[i].second.first) / 1048576.0,
                        sorted[i].second.second, sorted[i].first);
  }
  return text.empty() ? "\n    nobody: the device itself is full" : text;
}

xhal_status Pool::Part::out_of_memory(uint64_t size, xhal_status cause) {
  ++stats.out_of_memory_count;
  const std::string why = cause == XHAL_OK ? "the pool's limit is reached" : last_error().text;
  const auto mib = [](uint64_t bytes) { return static_cast<double>(bytes) / 1048576.0; };
  return fail(XHAL_ERR_OUT_OF_MEMORY, "xhal_pool_alloc",
              "{}: out of memory for {} bytes ({:.1f} MiB): {}\n"
              "  The pool holds {:.1f} MiB in slabs, {:.1f} MiB of it in use, {:.1f} MiB waiting "
              "for events; the largest "
              "free block is {:.1f} MiB. Held by:{}\n"
              "  Use a smaller batch, or free what is listed.",
              context->device->id(), size, mib(size), why, mib(stats.reserved_bytes),
              mib(stats.used_bytes), mib(stats.pending_bytes), mib(free_blocks.largest()),
              holders());
}

xhal_status Pool::Part::alloc(xhal_stream* stream, uint64_t requested, xhal_string tag,
                              uint64_t* address) {
  const uint64_t size = rounded(requested);
  const bool small = is_small(size);
  const bool capturing =
      capture != 0 && stream != nullptr && state_of(stream)->capture.load() != nullptr;
  const uint64_t owner = capturing ? capture : reinterpret_cast<uint64_t>(stream);
  if (!pending.empty()) poll_pending();
  Block* b = free_blocks.take(owner, size, small);
  if (b == nullptr && owner != 0) b = free_blocks.take(0, size, small);
  if (b == nullptr) {
    xhal_status status = new_slab(size, small, owner, &b);
    if (status != XHAL_OK) {
      ++stats.retry_count;
      b = steal(stream, size, small);
      if (b == nullptr) {
        trim(0);
        status = new_slab(size, small, owner, &b);
        if (status != XHAL_OK) {
          const bool limited =
              info.limit_bytes != 0 && stats.reserved_bytes + size > info.limit_bytes;
          return out_of_memory(requested, limited ? XHAL_OK : status);
        }
      }
    }
  }
  free_blocks.split(b, size);
  b->used = true;
  b->owner = owner;
  b->requested = requested;
  b->tag.assign(tag.data == nullptr ? "" : tag.data, tag.size);
  if (b->used_node.empty())
    blocks.emplace(b->address, b);
  else
    blocks.insert(std::move(b->used_node));
  stats.used_bytes += b->size;
  stats.used_peak_bytes = std::max(stats.used_peak_bytes, stats.used_bytes);
  stats.requested_bytes += requested;
  ++stats.allocation_count;
  *address = b->address;
  return XHAL_OK;
}

xhal_status Pool::Part::free(uint64_t address, const xhal_event* events, uint32_t count) {
  const auto it = blocks.find(address);
  if (it == blocks.end()) {
    return fail(XHAL_ERR_INVALID_ARGUMENT, "xhal_pool_free",
                "xhal_pool_free: {:#x} is not a block of this pool that is in use (freed twice?)",
                address);
  }
  Block* b = it->second;
  b->used_node = blocks.extract(it);
  stats.used_bytes -= b->size;
  stats.requested_bytes -= b->requested;
  ++stats.free_count;
  std::vector<xhal_event> waiting;
  for (uint32_t i = 0; i < count; ++i) {
    if (xhal_event_query(&events[i]) == XHAL_NOT_READY) waiting.push_back(events[i]);
  }
  if (waiting.empty()) {
    free_blocks.put_back(b);
  } else {
    stats.pending_bytes += b->size;
    pending.push_back({b, std::move(waiting)});
  }
  return XHAL_OK;
}

void Pool::Part::rename(uint64_t from, uint64_t to) {
  free_blocks.rename(from, to);
  for (auto& [address, b] : blocks) {
    if (b->owner == from) b->owner = to;
  }
  for (auto& p : pending) {
    if (p.block->owner == from) p.block->owner = to;
  }
}

void Pool::Part::release_all() {
  free_blocks.cool_all();  // while the slabs are there
  while (!slabs.empty()) give_back(slabs.front().get());
  free_blocks.clear();
  for (auto& [address, b] : blocks) delete b;
  for (auto& p : pending) delete p.block;
  blocks.clear();
  pending.clear();
}

void pool_stream_gone(xhal_pool* pool, xhal_stream* stream) noexcept {
  auto& p = *Pool::of(pool)->part;
  const std::lock_guard lock(p.mutex);
  p.rename(reinterpret_cast<uint64_t>(stream), 0);
}

void pool_begin_capture(xhal_pool* pool, uint64_t key) noexcept {
  auto& p = *Pool::of(pool)->part;
  const std::lock_guard lock(p.mutex);
  p.capture = key;
  p.capture_keys.insert(key);
}

void pool_end_capture(xhal_pool* pool, uint64_t key, bool has_graph) noexcept {
  auto& p = *Pool::of(pool)->part;
  {
    const std::lock_guard lock(p.mutex);
    p.capture = 0;
    if (has_graph) ++p.graphs;
  }
  if (has_graph) return;
  const std::lock_guard lock(p.mutex);
  p.capture_keys.erase(key);
  p.rename(key, 0);
}

void pool_graph_gone(xhal_pool* pool, uint64_t key) noexcept {
  auto& p = *Pool::of(pool)->part;
  const std::lock_guard lock(p.mutex);
  --p.graphs;
  p.capture_keys.erase(key);
  p.rename(key, 0);
}

Pool::Part* end_pool(xhal_pool* pool) noexcept {
  auto* part = Pool::of(pool)->part;
  auto& p = *part;
  {
    const std::lock_guard lock(p.mutex);
    p.release_all();
  }
  {
    const std::lock_guard lock(ContextState::mutex());
    p.context->pools.erase(pool);
  }
  object_free(pool);
  return part;
}

void abandon_pool(xhal_pool* pool) noexcept { keep_for_ever(end_pool(pool)); }

}  // namespace xhal
