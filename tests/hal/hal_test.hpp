// SPDX-License-Identifier: Apache-2.0
// hal_test.hpp: the fixture of libxhal's tests: everything through the public ABI.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "xhal/xhal.hpp"

namespace xhal::test {

using testing::HasSubstr;

// Long enough that only a hang fails; nothing is timed here.
inline constexpr uint64_t kSoon = 20'000'000'000;

inline std::string error_text() { return last_error_info().text; }

#define EXPECT_OK(call) EXPECT_EQ(call, XHAL_OK) << xhal::test::error_text()
#define ASSERT_OK(call) ASSERT_EQ(call, XHAL_OK) << xhal::test::error_text()

class HalTest : public testing::Test {
 protected:
  void SetUp() override { session_ = std::make_unique<Session>(); }
  void TearDown() override {
    open_.clear();
    session_.reset();
  }

  // The first device of a plugin, opened once a test.
  Device& device(const std::string& plugin) {
    auto it = open_.find(plugin);
    if (it != open_.end()) return it->second;
    return open_.emplace(plugin, reopen(plugin)).first->second;
  }
  Device reopen(const std::string& plugin) {
    for (const auto& d : devices()) {
      if (d.plugin == plugin) return Device(d.index);
    }
    throw std::runtime_error("no device of plugin " + plugin);
  }
  void close(const std::string& plugin) { open_.erase(plugin); }

  static uint64_t alloc(const Device& d, uint64_t bytes) {
    xhal_memory_info info{};
    info.struct_size = sizeof info;
    info.kind = XHAL_MEMORY_DEVICE;
    info.size_bytes = bytes;
    uint64_t address = 0;
    check(xhal_memory_alloc(d.context(), &info, &address));
    return address;
  }

  // Reads device memory through a copy: the host may not be able to touch it.
  template <class T = uint8_t>
  static std::vector<T> read(xhal_stream* stream, uint64_t address, size_t count) {
    std::vector<T> host(count);
    check(xhal_stream_copy(stream, reinterpret_cast<uint64_t>(host.data()), address,
                           count * sizeof(T)));
    check(xhal_stream_synchronize(stream, kSoon));
    return host;
  }

  // A stream that is held until open() is called.
  struct Gate {
    explicit Gate(xhal_stream* stream) {
      xhal_timeline* t = nullptr;
      check(xhal_timeline_create(0, &t));
      timeline.reset(t);
      check(xhal_stream_wait(stream, t, 1));
    }
    void open() { check(xhal_timeline_signal(timeline.get(), 1)); }
    Timeline timeline;
  };

  std::unique_ptr<Session> session_;
  std::map<std::string, Device> open_;
};

}  // namespace xhal::test
