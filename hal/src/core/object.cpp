// SPDX-License-Identifier: Apache-2.0
#include "core/object.hpp"

#include <sys/mman.h>

#include <atomic>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "core/device_record.hpp"
#include "core/error.hpp"
#include "core/locks.hpp"
#include "core/log.hpp"
#include "core/state.hpp"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

namespace xhal {
namespace {

constexpr size_t kChunkBytes = 1 << 20;
constexpr uint32_t kSmallestClass = 7;  // 128 bytes with the private part

// Objects own memory of the heap; the leak checker does not look into mapped memory by itself.
void search_for_leaks([[maybe_unused]] void* begin, [[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __lsan_register_root_region(begin, bytes);
#endif
}

// Free memory by (kind, size class): a stale handle can then only ever meet an object of
// its own kind.
struct ObjectMemory {
  Mutex mutex{Rank::objects};
  std::map<std::pair<uint32_t, uint32_t>, std::vector<void*>> free;
  char* chunk = nullptr;
  size_t left = 0;
  std::map<uint32_t, uint64_t> numbers;
  std::atomic<bool> quarantine{false};
  std::vector<const void*> kept;

  void* take(uint32_t kind, uint32_t size_class) {
    auto& list = free[{kind, size_class}];
    if (!list.empty()) {
      void* p = list.back();
      list.pop_back();
      return p;
    }
    const size_t size = size_t{1} << size_class;
    if (size > left) {
      const size_t bytes = std::max(kChunkBytes, size);
      void* fresh =
          mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (fresh == MAP_FAILED) return nullptr;
      search_for_leaks(fresh, bytes);
      chunk = static_cast<char*>(fresh);
      left = bytes;
    }
    void* p = chunk;
    chunk += size;
    left -= size;
    return p;
  }
};

ObjectMemory& memory() {
  static auto* m = new ObjectMemory;  // never destroyed: handles may be used after main
  return *m;
}
const AtLoad memory_at_load(memory);

}  // namespace

bool objects_quarantined() noexcept { return memory().quarantine.load(std::memory_order_relaxed); }
void quarantine_objects(bool on) { memory().quarantine.store(on, std::memory_order_relaxed); }

xhal_status object_alloc(const xhal_dispatch* table, DeviceRecord* device, uint32_t plugin,
                         uint32_t kind, uint64_t size_bytes, void** object) noexcept {
  try {
    auto& m = memory();
    const std::lock_guard lock(m.mutex);
    const uint64_t total = size_bytes + sizeof(ObjectPrivate);
    const uint32_t size_class = std::max<uint32_t>(kSmallestClass, std::bit_width(total - 1));
    void* raw = m.take(kind, size_class);
    if (raw == nullptr)
      return fail(XHAL_ERR_OUT_OF_MEMORY, "object_alloc", "no host memory for a {}",
                  kind_name(kind));
    std::memset(raw, 0, total);
    auto* priv = static_cast<ObjectPrivate*>(raw);
    priv->device = device;
    priv->number = ++m.numbers[kind];
    priv->size_class = size_class;
    priv->kind = kind;
    auto* head = reinterpret_cast<xhal_object_head*>(priv + 1);
    head->dispatch = table;
    head->plugin = plugin;
    head->kind = kind;
    if (device != nullptr && plugin != 0) device->objects.fetch_add(1, std::memory_order_relaxed);
    *object = head;
    return XHAL_OK;
  } catch (...) {
    return XHAL_ERR_OUT_OF_MEMORY;
  }
}

void object_free(void* object) noexcept {
  if (object == nullptr) return;
  auto& m = memory();
  auto* priv = private_of(object);
  std::atomic_ref(head_of(object)->kind).store(XHAL_KIND_DEAD, std::memory_order_relaxed);
  if (priv->device != nullptr && head_of(object)->plugin != 0)
    priv->device->objects.fetch_sub(1, std::memory_order_relaxed);
  if (m.quarantine.load(std::memory_order_relaxed)) return;
  const std::lock_guard lock(m.mutex);
  try {
    m.free[{priv->kind, priv->size_class}].push_back(priv);
  } catch (...) {  // then this piece is simply not used again
  }
}

constexpr uint32_t kDestroyWanted = 1u << 31;

// A plugin that refuses to destroy an object still has it: the next destroy asks it again.
static xhal_status destroy_now(ObjectPrivate* part) noexcept {
  void* const object = part + 1;
  const uint32_t kind = part->kind;
  const xhal_status status = part->destroy(object);
  if (status < 0 && is_live(object, kind))
    std::atomic_ref(part->pins).fetch_and(~kDestroyWanted, std::memory_order_acq_rel);
  return status;
}

static ObjectPrivate* pinned_part(void* object) {
  auto* part = private_of(object);
  return part->kind == XHAL_KIND_KERNEL ? private_of(part->state) : part;
}

void pin(void* object) noexcept {
  std::atomic_ref(pinned_part(object)->pins).fetch_add(1, std::memory_order_relaxed);
}

void unpin(void* object) noexcept {
  auto* part = pinned_part(object);
  const auto before = std::atomic_ref(part->pins).fetch_sub(1, std::memory_order_acq_rel);
  if (before != (kDestroyWanted | 1)) return;
  const uint32_t kind = part->kind;  // the destroy ends the object
  const xhal_status status = destroy_now(part);
  if (status < 0)
    log(XHAL_LOG_WARN, "destroy of a {}: {}", kind_name(kind), xhal_status_text(status));
}

xhal_status destroy_unpinned(void* object, xhal_status (*destroy)(void* object)) noexcept {
  auto* part = private_of(object);
  part->destroy = destroy;
  const auto before =
      std::atomic_ref(part->pins).fetch_or(kDestroyWanted, std::memory_order_acq_rel);
  return before == 0 ? destroy_now(part) : XHAL_OK;
}

void keep_for_ever(const void* part) noexcept {
  auto& m = memory();
  const std::lock_guard lock(m.mutex);
  try {
    m.kept.push_back(part);
  } catch (...) {  // it is kept all the same, only no longer known
  }
}

const char* kind_name(uint32_t kind) {
  switch (kind) {
    case XHAL_KIND_DEVICE:
      return "device";
    case XHAL_KIND_CONTEXT:
      return "context";
    case XHAL_KIND_STREAM:
      return "stream";
    case XHAL_KIND_TIMELINE:
      return "timeline";
    case XHAL_KIND_OP:
      return "operator";
    case XHAL_KIND_MODULE:
      return "module";
    case XHAL_KIND_KERNEL:
      return "kernel";
    case XHAL_KIND_GRAPH:
      return "graph";
    case XHAL_KIND_COMM:
      return "communicator";
    case XHAL_KIND_POOL:
      return "pool";
    case XHAL_KIND_DEAD:
      return "destroyed object";
    default:
      return "something that is not an xHAL object";
  }
}

xhal_status bad_handle(const void* object, uint32_t expected_kind, const char* operation) noexcept {
  if (object == nullptr) {
    return fail(XHAL_ERR_INVALID_HANDLE, operation, "{}: the {} handle is NULL", operation,
                kind_name(expected_kind));
  }
  const uint32_t kind = head_of(object)->kind;
  if (kind == XHAL_KIND_DEAD && !is_running()) return fail_state(operation);
  if (kind == XHAL_KIND_DEAD) {
    return fail(XHAL_ERR_INVALID_HANDLE, operation,
                "{}: this {} has been destroyed ({}).\n  Run with XHAL_LAYERS=validate to find "
                "every such use.",
                operation, kind_name(expected_kind), object);
  }
  return fail(XHAL_ERR_INVALID_HANDLE, operation, "{}: expected a {}, got {} ({})", operation,
              kind_name(expected_kind), kind_name(kind), object);
}

}  // namespace xhal
