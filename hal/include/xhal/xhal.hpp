// SPDX-License-Identifier: Apache-2.0
// xhal/xhal.hpp: xHAL for C++20 frameworks: handles that end themselves, errors as exceptions,
// newer functions by name.
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

}  // namespace xhal
