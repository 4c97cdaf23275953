// SPDX-License-Identifier: Apache-2.0
// xhal/xhal.hpp: xHAL for C++20 frameworks: handles that end themselves, errors as exceptions,
// newer functions by name; copies, blocks of pools, events and captures in a line each.
//
// Header only. A framework compiled with these headers needs the symbols of minor kFloor at load
// time and takes what is newer through proc(), so that on an older library a call answers
// XHAL_ERR_UNSUPPORTED instead of failing the import.
#pragma once

#if __cplusplus <= 201703L
#error "xhal/xhal.hpp needs C++20 (-std=c++20); programs in C or older C++ use xhal/xhal.h"
#endif

#include <cstdint>
#include <memory>
#include <ranges>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "xhal/xhal.h"

namespace xhal {

inline constexpr uint32_t kFloor = 1;

// The error record of a failed call, copied out of the thread.
struct ErrorInfo {
  xhal_status status = XHAL_OK;
  uint32_t scope = XHAL_SCOPE_CALL;
  uint32_t operand = 0;
  std::string plugin, device, operation, text;
  std::string stream{};  // its name, where it has one
};

inline ErrorInfo last_error_info() {
  xhal_error e{};
  e.struct_size = sizeof e;
  ErrorInfo info;
  if (xhal_last_error(&e) != XHAL_OK) return info;
  const auto copy = [](xhal_string s) {
    return std::string(s.data == nullptr ? "" : s.data, s.size);
  };
  info = {e.status,       e.scope,           e.operand,    copy(e.plugin),
          copy(e.device), copy(e.operation), copy(e.text), copy(e.stream_name)};
  return info;
}

struct Error : std::runtime_error {
  explicit Error(ErrorInfo i) : std::runtime_error(i.text), info(std::move(i)) {}
  ErrorInfo info;
};

// Throws the thread's error record when `status` is an error; passes answers (XHAL_NOT_READY) on.
inline xhal_status check(xhal_status status) {
  if (status >= 0) [[likely]]
    return status;
  auto info = last_error_info();
  if (info.status != status)
    info = {status, XHAL_SCOPE_CALL, 0, {}, {}, {}, xhal_status_text(status), {}};
  throw Error(std::move(info));
}

constexpr xhal_string str(std::string_view text) { return {text.data(), text.size()}; }

// A function newer than kFloor: `proc<decltype(xhal_new)>("xhal_new")`. nullptr where the
// library lacks it.
template <class Function>
Function* proc(const char* name) {
  void (*f)(void) = nullptr;
  return xhal_get_proc(name, &f) == XHAL_OK ? reinterpret_cast<Function*>(f) : nullptr;
}

// Throws UNSUPPORTED where the library or the plugin is older than 0.2.
inline xhal_stream_properties query(xhal_stream* stream) {
  auto* const stream_query = proc<decltype(xhal_stream_query)>("xhal_stream_query");
  if (stream_query == nullptr) check(XHAL_ERR_UNSUPPORTED);
  xhal_stream_properties properties{};
  properties.struct_size = sizeof properties;
  check(stream_query(stream, &properties));
  return properties;
}

template <auto kDestroy>
struct Destroy {
  void operator()(auto* handle) const noexcept { (void)kDestroy(handle); }
};

// Handles that end with their owner. get() is the C handle.
using Stream = std::unique_ptr<xhal_stream, Destroy<xhal_stream_destroy>>;
using Pool = std::unique_ptr<xhal_pool, Destroy<xhal_pool_destroy>>;
using Op = std::unique_ptr<xhal_op, Destroy<xhal_op_destroy>>;
using Module = std::unique_ptr<xhal_module, Destroy<xhal_module_destroy>>;
using Graph = std::unique_ptr<xhal_graph, Destroy<xhal_graph_destroy>>;
using Timeline = std::unique_ptr<xhal_timeline, Destroy<xhal_timeline_destroy>>;

// One xhal_init, given back at the end.
class Session {
 public:
  Session() {
    xhal_init_info info{};
    info.struct_size = sizeof info;
    info.version_major = XHAL_VERSION_MAJOR;
    info.version_minor = XHAL_VERSION_MINOR;
    check(xhal_init(&info));
  }
  ~Session() { (void)xhal_shutdown(); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
};

inline std::vector<xhal_device_info> devices(uint32_t flags = 0) {
  uint32_t count = 0;
  check(xhal_enumerate(flags, nullptr, 0, &count));
  std::vector<xhal_device_info> list(count);
  check(xhal_enumerate(flags, list.data(), count, &count));
  list.resize(count);
  return list;
}

// An open device and its default context.
class Device {
 public:
  explicit Device(uint32_t index, uint32_t flags = 0, uint64_t quota_bytes = 0) {
    xhal_device_open_info info{};
    info.struct_size = sizeof info;
    info.index = index;
    info.flags = flags;
    info.quota_bytes = quota_bytes;
    check(xhal_device_open(&info, &device_, &context_));
  }
  ~Device() {
    if (device_ != nullptr) (void)xhal_device_close(device_);
  }
  Device(Device&& other) noexcept
      : device_(std::exchange(other.device_, nullptr)),
        context_(std::exchange(other.context_, nullptr)) {}
  Device& operator=(Device&&) = delete;

  xhal_device* get() const { return device_; }
  xhal_context* context() const { return context_; }
  xhal_device_info info() const {
    xhal_device_info i{};
    check(xhal_device_query(device_, &i));
    return i;
  }
  // A library older than 0.2 knows no names: there the stream has only its number.
  Stream stream(int32_t priority = 0, std::string_view name = {}) const {
    xhal_stream_info info{};
    info.struct_size = sizeof info;
    info.priority = priority;
    if (xhal_version() >= (XHAL_VERSION_MAJOR << 16 | 2)) info.name = str(name);
    xhal_stream* s = nullptr;
    check(xhal_stream_create(context_, &info, &s));
    return Stream(s);
  }
  Pool pool(uint64_t limit_bytes = 0) const {
    xhal_pool_info info{};
    info.struct_size = sizeof info;
    info.limit_bytes = limit_bytes;
    xhal_pool* p = nullptr;
    check(xhal_pool_create(context_, &info, &p));
    return Pool(p);
  }

 private:
  xhal_device* device_ = nullptr;
  xhal_context* context_ = nullptr;
};

// A contiguous descriptor (strides 0 = row-major).
inline xhal_tensor_desc tensor(uint8_t code, uint8_t bits, const std::vector<int64_t>& sizes,
                               const std::vector<int64_t>& strides = {}) {
  xhal_tensor_desc t{};
  t.code = code;
  t.bits = bits;
  t.lanes = 1;
  t.ndim = static_cast<uint32_t>(sizes.size());
  int64_t step = 1;
  for (size_t d = sizes.size(); d-- > 0;) {
    t.sizes[d] = sizes[d];
    t.strides[d] = strides.empty() ? step : strides[d];
    step *= sizes[d];
  }
  return t;
}

// Prepares an operator; each group is the list of its tensors (empty = absent), inputs
// first, then outputs.
inline Op prepare(xhal_context* context, uint32_t id,
                  const std::vector<std::vector<xhal_tensor_desc>>& groups,
                  const std::vector<xhal_attribute>& attributes = {}, uint32_t flags = 0) {
  std::vector<uint32_t> sizes;
  std::vector<xhal_tensor_desc> operands;
  for (const auto& group : groups) {
    sizes.push_back(static_cast<uint32_t>(group.size()));
    operands.insert(operands.end(), group.begin(), group.end());
  }
  xhal_op_info info{};
  info.struct_size = sizeof info;
  info.id = id;
  info.flags = flags;
  info.attributes = attributes.data();
  info.attribute_count = static_cast<uint32_t>(attributes.size());
  info.group_sizes = sizes.data();
  info.group_count = static_cast<uint32_t>(sizes.size());
  info.operands = operands.data();
  info.operand_count = static_cast<uint32_t>(operands.size());
  xhal_op* op = nullptr;
  check(xhal_op_prepare(context, &info, &op));
  return Op(op);
}

inline xhal_scalar scalar(double value) {
  xhal_scalar s{};
  s.kind = XHAL_SCALAR_FLOAT;
  s.code = XHAL_CODE_FLOAT;
  s.bits = 64;
  s.value.f = value;
  return s;
}
inline xhal_scalar scalar(int64_t value) {
  xhal_scalar s{};
  s.kind = XHAL_SCALAR_INT;
  s.code = XHAL_CODE_INT;
  s.bits = 64;
  s.value.i = value;
  return s;
}
inline xhal_attribute attribute(uint32_t index, int64_t value) {
  xhal_attribute a{};
  a.index = index;
  a.kind = XHAL_ATTR_INT;
  a.value.i = value;
  a.count = 1;
  return a;
}
inline xhal_attribute attribute(uint32_t index, double value) {
  xhal_attribute a{};
  a.index = index;
  a.kind = XHAL_ATTR_FLOAT;
  a.value.f = value;
  a.count = 1;
  return a;
}
// `values` is borrowed until prepare has returned.
inline xhal_attribute attribute(uint32_t index, const std::vector<int64_t>& values) {
  xhal_attribute a{};
  a.index = index;
  a.kind = XHAL_ATTR_INTS;
  a.value.ints = values.data();
  a.count = values.size();
  return a;
}

// ---- work: copies, blocks, events, captures -----------------------------------------------------

// A device address or host pointer as copies take it.
inline uint64_t address_of(const void* host) { return reinterpret_cast<uint64_t>(host); }

// Waits for everything submitted so far; false when that takes longer. Throws its failure.
inline bool synchronize(xhal_stream* stream, uint64_t timeout_ns = XHAL_FOREVER) {
  const auto status = xhal_stream_synchronize(stream, timeout_ns);
  return status != XHAL_ERR_TIMEOUT && check(status) == XHAL_OK;
}

// Submits a copy between device and host addresses in any combination. What is host memory stays
// valid until the copy has run.
inline void submit_copy(xhal_stream* stream, uint64_t to, uint64_t from, uint64_t bytes) {
  check(xhal_stream_copy(stream, to, from, bytes));
}

// Copies a vector, span or array to the device and waits, so that it may be changed at once.
template <std::ranges::contiguous_range Range>
void upload(xhal_stream* stream, uint64_t to, const Range& from) {
  submit_copy(stream, to, address_of(std::ranges::data(from)),
              std::ranges::size(from) * sizeof(std::ranges::range_value_t<Range>));
  synchronize(stream);
}

// Copies `count` values from the device and waits for them.
template <class T>
std::vector<T> download(xhal_stream* stream, uint64_t from, size_t count) {
  std::vector<T> to(count);
  submit_copy(stream, address_of(to.data()), from, count * sizeof(T));
  synchronize(stream);
  return to;
}

// A point in a stream. One that was never recorded counts as reached.
class Event {
 public:
  Event() = default;
  explicit Event(xhal_stream* stream, uint32_t flags = 0) {
    check(xhal_event_record(stream, flags, &event_));
  }
  // Throws the failure of what it stands for.
  bool reached() const { return check(xhal_event_query(&event_)) == XHAL_OK; }
  // False when it takes longer.
  bool wait(uint64_t timeout_ns = XHAL_FOREVER) const {
    const auto status = xhal_event_wait(&event_, timeout_ns);
    return status != XHAL_ERR_TIMEOUT && check(status) == XHAL_OK;
  }
  // Later work of `stream`, which may be of another device, waits for it.
  void precede(xhal_stream* stream) const { check(xhal_stream_wait_event(stream, &event_)); }
  // Both timed (XHAL_EVENT_TIMED) and reached.
  int64_t nanoseconds_since(const Event& start) const {
    int64_t elapsed = 0;
    check(xhal_event_elapsed(&start.event_, &event_, &elapsed));
    return elapsed;
  }
  const xhal_event& get() const { return event_; }

 private:
  xhal_event event_{};
};

// A block of a pool, for use on `stream` (nullptr: on none), given back at the end. It may end
// while work of its stream still uses it; uses on other streams are told by keep_until. The pool
// outlives it.
class Block {
 public:
  Block() = default;
  Block(xhal_pool* pool, xhal_stream* stream, uint64_t bytes, std::string_view tag = {})
      : pool_(pool), bytes_(bytes) {
    check(xhal_pool_alloc(pool, stream, bytes, str(tag), &address_));
  }
  ~Block() {
    if (pool_ != nullptr)
      (void)xhal_pool_free(pool_, address_, events_.data(), static_cast<uint32_t>(events_.size()));
  }
  Block(Block&& other) noexcept { swap(other); }
  Block& operator=(Block&& other) noexcept {
    Block(std::move(other)).swap(*this);
    return *this;
  }
  uint64_t address() const { return address_; }
  uint64_t size_bytes() const { return bytes_; }
  // Not handed out again before `event` is reached.
  void keep_until(const Event& event) { events_.push_back(event.get()); }

 private:
  void swap(Block& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(address_, other.address_);
    std::swap(bytes_, other.bytes_);
    events_.swap(other.events_);
  }
  xhal_pool* pool_ = nullptr;
  uint64_t address_ = 0, bytes_ = 0;
  std::vector<xhal_event> events_;
};

// Records what is submitted to a stream instead of running it, until end() gives the graph. One
// that ends without, because of an exception for example, leaves nothing behind and the stream
// usable.
class Capture {
 public:
  explicit Capture(xhal_stream* stream, xhal_pool* pool = nullptr) {
    check(xhal_stream_begin_capture(stream, pool));
    stream_ = stream;
  }
  ~Capture() {
    xhal_graph* graph = nullptr;
    if (stream_ != nullptr && xhal_stream_end_capture(stream_, &graph) == XHAL_OK)
      (void)xhal_graph_destroy(graph);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  Graph end() {
    xhal_graph* graph = nullptr;
    check(xhal_stream_end_capture(std::exchange(stream_, nullptr), &graph));
    return Graph(graph);
  }

 private:
  xhal_stream* stream_ = nullptr;
};

inline void launch(xhal_stream* stream, const Graph& graph) {
  check(xhal_graph_launch(stream, graph.get()));
}

}  // namespace xhal
