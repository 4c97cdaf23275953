// SPDX-License-Identifier: Apache-2.0
// runtime_harness.hpp: the fixture of the cpu plugin's runtime tests: everything through
// the public ABI.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "xhal/xhal.hpp"

namespace xhal::cpu::test {

using testing::HasSubstr;

// Long enough that only a hang fails; nothing is timed here.
inline constexpr uint64_t kSoon = 60'000'000'000;

#define EXPECT_OK(call) EXPECT_EQ(call, XHAL_OK) << xhal::last_error_info().text
#define ASSERT_OK(call) ASSERT_EQ(call, XHAL_OK) << xhal::last_error_info().text

inline xhal_tensor_desc vector_of(int64_t count) { return tensor(XHAL_CODE_FLOAT, 32, {count}); }

inline xhal_scalar by_address(uint64_t address) {
  xhal_scalar s{};
  s.kind = XHAL_SCALAR_ADDRESS;
  s.code = XHAL_CODE_FLOAT;
  s.bits = 32;
  s.value.address = address;
  return s;
}

// Shut until opened: host calls wait in it, so that a stream is surely busy.
class Barrier {
 public:
  ~Barrier() {
    open();
    std::unique_lock lock(mutex_);  // whoever is inside still reads this
    changed_.wait(lock, [&] { return inside_ == 0; });
  }
  void open() {
    const std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void wait_entered() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return entered_; });
  }
  static void pass(void* user, xhal_status) {
    auto* self = static_cast<Barrier*>(user);
    std::unique_lock lock(self->mutex_);
    self->entered_ = true;
    ++self->inside_;
    self->changed_.notify_all();
    self->changed_.wait(lock, [&] { return self->open_; });
    --self->inside_;
    self->changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false, entered_ = false;
  int inside_ = 0;
};

class RuntimeTest : public testing::Test {
 protected:
  void SetUp() override { session_ = std::make_unique<Session>(); }
  void TearDown() override {
    devices_.clear();
    session_.reset();
  }

  static std::vector<xhal_device_info> cpu_devices() {
    auto list = devices();
    std::erase_if(list, [](const auto& d) { return std::string(d.plugin) != "cpu"; });
    return list;
  }

  Device& device(uint32_t ordinal = 0) {
    while (devices_.size() <= ordinal)
      devices_.emplace_back(cpu_devices().at(devices_.size()).index);
    return devices_[ordinal];
  }
  xhal_context* context() { return device().context(); }

  uint64_t alloc(uint64_t bytes, uint32_t flags = 0, uint32_t kind = XHAL_MEMORY_DEVICE) {
    xhal_memory_info info{};
    info.struct_size = sizeof info;
    info.kind = kind;
    info.flags = flags;
    info.size_bytes = bytes;
    uint64_t address = 0;
    check(xhal_memory_alloc(context(), &info, &address));
    return address;
  }

  // out = value
  Op fill_op(int64_t count) { return prepare(context(), XHAL_OP_fill, {{vector_of(count)}}); }
  // out = alpha*x + beta
  Op axpby_op(int64_t count) {
    return prepare(context(), XHAL_OP_axpby, {{vector_of(count)}, {}, {vector_of(count)}});
  }
  // out = in[index]; fails when the index is outside
  Op select_op(int64_t rows) {
    return prepare(context(), XHAL_OP_index_select,
                   {{vector_of(rows)}, {tensor(XHAL_CODE_INT, 64, {1})}, {vector_of(1)}});
  }

  void launch(xhal_stream* stream, const Op& op, std::vector<uint64_t> addresses,
              const std::vector<xhal_scalar>& scalars = {}) {
    xhal_op_properties properties{};
    properties.struct_size = sizeof properties;
    check(xhal_op_query(op.get(), &properties, nullptr, 0));
    const uint64_t workspace =
        properties.workspace_bytes == 0 ? 0 : alloc(properties.workspace_bytes);
    check(xhal_op_launch(stream, op.get(), addresses.data(),
                         static_cast<uint32_t>(addresses.size()), scalars.data(),
                         static_cast<uint32_t>(scalars.size()), workspace));
  }

  template <class T>
  static void write(xhal_stream* stream, uint64_t address, const std::vector<T>& data) {
    check(xhal_stream_copy(stream, address, reinterpret_cast<uint64_t>(data.data()),
                           data.size() * sizeof(T)));
    check(xhal_stream_synchronize(stream, kSoon));
  }
  template <class T = float>
  static std::vector<T> read(xhal_stream* stream, uint64_t address, size_t count) {
    std::vector<T> host(count);
    check(xhal_stream_copy(stream, reinterpret_cast<uint64_t>(host.data()), address,
                           count * sizeof(T)));
    check(xhal_stream_synchronize(stream, kSoon));
    return host;
  }

  // Makes `stream` fail by an index outside; the operation is named index_select.
  void fail(xhal_stream* stream) {
    const uint64_t in = alloc(64), index = alloc(64), out = alloc(64);
    Stream other = device().stream();
    write<int64_t>(other.get(), index, {99});
    const Op op = select_op(16);
    launch(stream, op, {in, index, out});
  }

  static Timeline timeline() {
    xhal_timeline* t = nullptr;
    check(xhal_timeline_create(0, &t));
    return Timeline(t);
  }

  std::unique_ptr<Session> session_;
  std::vector<Device> devices_;
};

}  // namespace xhal::cpu::test
