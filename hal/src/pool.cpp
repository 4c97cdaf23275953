#include "pool.hpp"

#include <algorithm>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "address_map.hpp"
#include "copy.hpp"
#include "device.hpp"
#include "nulls.hpp"
#include "object.hpp"
#include "state.hpp"
#include "stream_side.hpp"
#include "tables.hpp"
#include "xhal/struct_check.hpp"

namespace xhal {
namespace {

// Small requests share slabs, large ones get their own, so that a long-lived small block does not
// pin a large slab.
constexpr uint64_t kAlignment = 512;
constexpr uint64_t kSmallBytes = 1 << 20;
constexpr uint64_t kSmallSlab = 2 << 20;
constexpr uint64_t kMiddleBytes = 10 << 20;
constexpr uint64_t kMiddleSlab = 20 << 20;
constexpr uint64_t kLargeRound = 2 << 20;

constexpr uint64_t round_up(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

struct Slab {
  uint64_t base, size;
  bool small;
};

struct Block;
struct BySize {
  bool operator()(const Block* a, const Block* b) const;
};
using Bin = std::set<Block*, BySize>;
using Used = std::unordered_map<uint64_t, Block*>;

// A piece of a slab; neighbours are linked in address order, so that free ones can be joined. It
// carries its own place in the bins and in the map of used blocks, so that an allocation from the
// cache allocates nothing.
struct Block {
  uint64_t address, size, requested;
  Slab* slab;
  Block *before, *after;
  uint64_t owner;  // the stream (or capture) in whose order it is free or used; 0 = nobody's
  bool used;       // also while it waits for events after its free
  std::string tag;
  Bin::node_type bin_node = {};
  Used::node_type used_node = {};
};

bool BySize::operator()(const Block* a, const Block* b) const {
  return a->size != b->size ? a->size < b->size : a->address < b->address;
}
using BinKey = std::pair<uint64_t, bool>;  // owner, small

struct Pending {
  Block* block;
  std::vector<xhal_event> events;
};

}  // namespace

// An object of libxhal's own, so it needs no table.
struct Pool {
  xhal_object_head head;
  struct Part;
  Part* part;
  static Pool* of(xhal_pool* handle) { return reinterpret_cast<Pool*>(handle); }
};

struct Pool::Part {
  std::mutex mutex;
  ContextSide* context;
  xhal_pool* handle;
  xhal_pool_info info;
  xhal_pool_stats stats{};
  std::map<BinKey, Bin> bins;
  // The block freed last in each bin, not yet joined with its neighbours: the next allocation is
  // often of the same size. For its neighbours it still counts as used.
  std::map<BinKey, Block*> warm;
  Used blocks;  // in use, by address
  std::list<Pending> pending;
  std::list<std::unique_ptr<Slab>> slabs;
  uint64_t capture = 0;
  uint32_t graphs = 0;

  Bin& bin(uint64_t owner, bool small) { return bins[{owner, small}]; }

  static uint64_t rounded(uint64_t size) {
    return round_up(std::max<uint64_t>(size, 1), kAlignment);
  }
  static bool is_small(uint64_t size) { return size <= kSmallBytes; }

  void put_back(Block* b) {
    auto& place = warm[{b->owner, b->slab->small}];
    if (place != nullptr) make_free(place);
    place = b;
  }
  void cool(BinKey key) {
    const auto it = warm.find(key);
    if (it == warm.end() || it->second == nullptr) return;
    make_free(std::exchange(it->second, nullptr));
  }
  void cool_all() {
    for (auto& [key, b] : warm) {
      if (b != nullptr) make_free(std::exchange(b, nullptr));
    }
  }

  void make_free(Block* b) {
    b->used = false;
    const auto joinable = [&](const Block* n) {
      return n != nullptr && !n->used && n->owner == b->owner;
    };
    if (joinable(b->before)) {
      Block* n = b->before;
      bin(n->owner, n->slab->small).erase(n);
      n->size += b->size;
      n->after = b->after;
      if (b->after != nullptr) b->after->before = n;
      delete b;
      b = n;
    }
    if (joinable(b->after)) {
      Block* n = b->after;
      bin(n->owner, n->slab->small).erase(n);
      b->size += n->size;
      b->after = n->after;
      if (n->after != nullptr) n->after->before = b;
      delete n;
    }
    insert_free(b);
  }

  void insert_free(Block* b) {
    auto& list = bin(b->owner, b->slab->small);
    if (b->bin_node.empty())
      list.insert(b);
    else
      list.insert(std::move(b->bin_node));
  }

  Block* take(uint64_t owner, uint64_t size, bool small) {
    if (const auto w = warm.find({owner, small}); w != warm.end() && w->second != nullptr) {
      if (w->second->size == size) return std::exchange(w->second, nullptr);
      make_free(std::exchange(w->second, nullptr));
    }
    const auto found = bins.find({owner, small});
    if (found == bins.end()) return nullptr;
    Block key{0, size, 0, nullptr, nullptr, nullptr, 0, false, {}};
    const auto it = found->second.lower_bound(&key);
    if (it == found->second.end()) return nullptr;
    Block* b = *it;
    b->bin_node = found->second.extract(it);
    return b;
  }

  // Cuts what is not needed off; the rest stays free for the same owner.
  void split(Block* b, uint64_t size) {
    const uint64_t rest = b->size - size;
    if (rest < (b->slab->small ? kAlignment : kSmallBytes)) return;
    auto* r = new Block{b->address + size, rest, 0, b->slab, b, b->after, b->owner, false, {}};
    if (b->after != nullptr) b->after->before = r;
    b->after = r;
    b->size = size;
    bin(r->owner, r->slab->small).insert(r);
  }

  void poll_pending() {
    for (auto it = pending.begin(); it != pending.end();) {
      // A failed event is over, too: its work will not run.
      const bool waiting =
          std::any_of(it->events.begin(), it->events.end(), [](const xhal_event& e) {
            return e.timeline != nullptr &&
                   Timeline::of(e.timeline)->poll(e.value) == XHAL_NOT_READY;
          });
      if (waiting) {
        ++it;
        continue;
      }
      stats.pending_bytes -= it->block->size;
      make_free(it->block);
      it = pending.erase(it);
    }
  }

  xhal_status new_slab(uint64_t size, bool small, uint64_t owner, Block** block) {
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

  // Takes a free block of another stream and makes `stream` wait for that one's present work.
  Block* steal(xhal_stream* stream, uint64_t size, bool small) {
    cool_all();
    for (auto& [key, ignored] : bins) {
      if (key.second != small || key.first == 0 || is_capture(key.first)) continue;
      auto* other = reinterpret_cast<xhal_stream*>(key.first);
      Block* b = take(key.first, size, small);
      if (b == nullptr) continue;
      xhal_event event{};
      auto ordered = record_event(*side_of(other), 0, &event);
      if (ordered == XHAL_OK) {
        ordered = stream != nullptr ? wait_event(*side_of(stream), event)
                                    : xhal_event_wait(&event, XHAL_FOREVER);
      }
      if (ordered == XHAL_OK || side_of(other)->timeline->failed()) return b;
      insert_free(b);
    }
    return nullptr;
  }

  std::set<uint64_t> capture_keys;
  bool is_capture(uint64_t owner) const { return capture_keys.contains(owner); }

  void give_back(Slab* slab) {
    if (info.kind == XHAL_MEMORY_HOST)
      xhal_host_free(reinterpret_cast<void*>(slab->base));
    else
      xhal_memory_free(context->handle, slab->base);
    stats.reserved_bytes -= slab->size;
    slabs.remove_if([&](const auto& s) { return s.get() == slab; });
    stats.slab_count = slabs.size();
  }

  void trim(uint64_t keep) {
    poll_pending();
    cool_all();
    for (auto& [key, list] : bins) {
      if (is_capture(key.first)) continue;
      // A stream may still be using what is free in its order, so only what nobody owns, or whose
      // stream is idle, goes.
      if (key.first != 0) {
        auto& side = *side_of(reinterpret_cast<xhal_stream*>(key.first));
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

  uint64_t largest_free() const {
    uint64_t largest = 0;
    for (const auto& [key, list] : bins) {
      if (!list.empty()) largest = std::max(largest, (*list.rbegin())->size);
    }
    return largest;
  }

  // Who holds the memory, for a person who has to find out.
  std::string holders() const {
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

  xhal_status out_of_memory(uint64_t size, xhal_status cause) {
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
                mib(stats.used_bytes), mib(stats.pending_bytes), mib(largest_free()), holders());
  }

  xhal_status alloc(xhal_stream* stream, uint64_t requested, xhal_string tag, uint64_t* address) {
    const uint64_t size = rounded(requested);
    const bool small = is_small(size);
    const bool capturing =
        capture != 0 && stream != nullptr && side_of(stream)->capture.load() != nullptr;
    const uint64_t owner = capturing ? capture : reinterpret_cast<uint64_t>(stream);
    if (!pending.empty()) poll_pending();
    Block* b = take(owner, size, small);
    if (b == nullptr && owner != 0) b = take(0, size, small);
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
    split(b, size);
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

  xhal_status free(uint64_t address, const xhal_event* events, uint32_t count) {
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
      put_back(b);
    } else {
      stats.pending_bytes += b->size;
      pending.push_back({b, std::move(waiting)});
    }
    return XHAL_OK;
  }

  // Gives the free blocks of one owner to another.
  void rename(uint64_t from, uint64_t to) {
    cool({from, true});
    cool({from, false});
    cool({to, true});
    cool({to, false});
    for (const bool small : {true, false}) {
      const auto it = bins.find({from, small});
      if (it == bins.end()) continue;
      Bin moved;
      moved.swap(it->second);
      bins.erase(it);
      for (auto* b : moved) b->owner = to;
      bin(to, small).merge(moved);
    }
    for (auto& [address, b] : blocks) {
      if (b->owner == from) b->owner = to;
    }
    for (auto& p : pending) {
      if (p.block->owner == from) p.block->owner = to;
    }
  }

  void release_all() {
    cool_all();
    while (!slabs.empty()) give_back(slabs.front().get());
    for (auto& [key, list] : bins) {
      for (auto* b : list) delete b;
    }
    for (auto& [address, b] : blocks) delete b;
    for (auto& p : pending) delete p.block;
    bins.clear();
    blocks.clear();
    pending.clear();
  }
};

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

// Gives its memory and its handle back; what is left is the caller's.
static Pool::Part* end_pool(xhal_pool* pool) noexcept {
  auto* part = Pool::of(pool)->part;
  auto& p = *part;
  {
    const std::lock_guard lock(p.mutex);
    p.release_all();
  }
  {
    const std::lock_guard lock(p.context->mutex);
    p.context->pools.erase(pool);
  }
  object_free(pool);
  return part;
}

void abandon_pool(xhal_pool* pool) noexcept { keep_for_ever(end_pool(pool)); }

}  // namespace xhal

using xhal::fail;
using xhal::is_live;
using xhal::Pool;

#define CHECK_POOL(pool, op)                                 \
  if (__builtin_expect(!is_live(pool, XHAL_KIND_POOL), 0)) { \
    return xhal::process_state() == xhal::State::stopped     \
               ? xhal::fail_state(op)                        \
               : xhal::bad_handle(pool, XHAL_KIND_POOL, op); \
  }                                                          \
  if (__builtin_expect(!xhal::is_running(), 0)) return xhal::fail_state(op);

extern "C" {

xhal_status xhal_pool_create(xhal_context* context, const xhal_pool_info* info, xhal_pool** pool) {
  constexpr const char* op = "xhal_pool_create";
  if (!is_live(context, XHAL_KIND_CONTEXT)) return xhal::bad_handle(context, XHAL_KIND_CONTEXT, op);
  if (const auto s = xhal::required(op, {{"pool", pool}}); s != XHAL_OK) return s;
  if (!xhal::is_running()) return xhal::fail_state(op);
  return xhal::exported(op, [&]() -> xhal_status {
    xhal_pool_info local{};
    if (const auto s = xhal::structs::read(info, local); s != XHAL_OK) {
      return fail(s, op, "{}: bad info structure of {} bytes: {}", op, info->struct_size,
                  xhal_status_text(s));
    }
    if (local.kind == 0) local.kind = XHAL_MEMORY_DEVICE;
    if (local.kind > XHAL_MEMORY_SHARED ||
        (local.flags & ~static_cast<uint32_t>(XHAL_MEMORY_EXPORTABLE)) != 0) {
      return fail(XHAL_ERR_INVALID_ARGUMENT, op, "{}: kind {} or flags {:#x} are unknown", op,
                  local.kind, local.flags);
    }
    auto* side = xhal::side_of(context);
    void* memory = nullptr;
    if (const auto s = xhal::object_alloc(xhal::libxhal_table(), side->device, 0, XHAL_KIND_POOL,
                                          sizeof(Pool), &memory);
        s != XHAL_OK) {
      return s;
    }
    auto* p = static_cast<Pool*>(memory);
    p->part = new Pool::Part;
    p->part->context = side;
    p->part->handle = reinterpret_cast<xhal_pool*>(p);
    p->part->info = local;
    *pool = p->part->handle;
    const std::lock_guard lock(side->mutex);
    side->pools.insert(*pool);
    return XHAL_OK;
  });
}

xhal_status xhal_pool_destroy(xhal_pool* pool) {
  constexpr const char* op = "xhal_pool_destroy";
  if (xhal::process_state() != xhal::State::running) return XHAL_OK;
  CHECK_POOL(pool, op)
  return xhal::exported(op, [&]() -> xhal_status {
    auto& p = *Pool::of(pool)->part;
    std::vector<xhal_event> events;
    {
      const std::lock_guard lock(p.mutex);
      if (!p.blocks.empty() || p.graphs != 0) {
        return fail(XHAL_ERR_BUSY, op, "{}: {} blocks ({} bytes) and {} graphs are still in use:{}",
                    op, p.blocks.size(), p.stats.used_bytes, p.graphs, p.holders());
      }
      for (const auto& w : p.pending) events.insert(events.end(), w.events.begin(), w.events.end());
    }
    for (const auto& e : events) (void)xhal_event_wait(&e, XHAL_FOREVER);  // failed is over, too
    delete xhal::end_pool(pool);
    return XHAL_OK;
  });
}

xhal_status xhal_pool_alloc(xhal_pool* pool, xhal_stream* stream, uint64_t size_bytes,
                            xhal_string tag, uint64_t* address) {
  constexpr const char* op = "xhal_pool_alloc";
  CHECK_POOL(pool, op)
  if (stream != nullptr && !is_live(stream, XHAL_KIND_STREAM))
    return xhal::bad_handle(stream, XHAL_KIND_STREAM, op);
  if (const auto s = xhal::required(op, {{"address", address}}); s != XHAL_OK) return s;
  if (xhal::is_missing(tag)) return xhal::refuse_null(op, "tag");
  auto& p = *Pool::of(pool)->part;
  if (stream != nullptr && p.info.kind == XHAL_MEMORY_DEVICE &&
      xhal::side_of(stream)->device != p.context->device) {
    return xhal::foreign_handle(pool, stream, op);
  }
  if (size_bytes == 0) {
    *address = 0;
    return XHAL_OK;
  }
  return xhal::exported(op, [&] {
    const std::lock_guard lock(p.mutex);
    if (size_bytes >= uint64_t{1} << 47)
      return p.out_of_memory(size_bytes, fail(XHAL_ERR_OUT_OF_MEMORY, op, "absurd size"));
    return p.alloc(stream, size_bytes, tag, address);
  });
}

xhal_status xhal_pool_free(xhal_pool* pool, uint64_t address, const xhal_event* events,
                           uint32_t event_count) {
  constexpr const char* op = "xhal_pool_free";
  CHECK_POOL(pool, op)
  if (xhal::is_missing(events, event_count)) return xhal::refuse_null(op, "events");
  if (address == 0) return XHAL_OK;
  return xhal::exported(op, [&] {
    auto& p = *Pool::of(pool)->part;
    const std::lock_guard lock(p.mutex);
    return p.free(address, events, event_count);
  });
}

xhal_status xhal_pool_trim(xhal_pool* pool, uint64_t keep_bytes) {
  constexpr const char* op = "xhal_pool_trim";
  CHECK_POOL(pool, op)
  return xhal::exported(op, [&] {
    auto& p = *Pool::of(pool)->part;
    const std::lock_guard lock(p.mutex);
    p.trim(keep_bytes);
    return XHAL_OK;
  });
}

xhal_status xhal_pool_query(xhal_pool* pool, xhal_pool_stats* stats) {
  constexpr const char* op = "xhal_pool_query";
  CHECK_POOL(pool, op)
  if (const auto s = xhal::required(op, {{"stats", stats}}); s != XHAL_OK) return s;
  if (!xhal::structs::is_size<xhal_pool_stats>(stats->struct_size)) {
    return fail(XHAL_ERR_STRUCT_SIZE, op, "{}: no xhal_pool_stats has {} bytes", op,
                stats->struct_size);
  }
  return xhal::exported(op, [&] {
    auto& p = *Pool::of(pool)->part;
    const std::lock_guard lock(p.mutex);
    p.poll_pending();
    p.cool_all();
    p.stats.largest_free_bytes = p.largest_free();
    xhal::structs::write(p.stats, stats);
    return XHAL_OK;
  });
}

xhal_status xhal_pool_reset_peaks(xhal_pool* pool) {
  constexpr const char* op = "xhal_pool_reset_peaks";
  CHECK_POOL(pool, op)
  auto& p = *Pool::of(pool)->part;
  const std::lock_guard lock(p.mutex);
  p.stats.used_peak_bytes = p.stats.used_bytes;
  p.stats.reserved_peak_bytes = p.stats.reserved_bytes;
  return XHAL_OK;
}

}  // extern "C"
