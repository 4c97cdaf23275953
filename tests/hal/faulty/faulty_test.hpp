// SPDX-License-Identifier: Apache-2.0
// faulty_test.hpp: the fixture of tests that need a device that misbehaves, or two devices
// of one plugin.
#pragma once

#include <cstring>

#include "../hal_test.hpp"
#include "../watchdog.hpp"
#include "board.hpp"

namespace xhal::test {

using faulty::Board;
using faulty::Call;
using faulty::cap;

inline Board& board() { return *xhal_faulty_board(); }

inline Device open_device(const std::string& id, uint32_t flags = 0, uint64_t quota = 0) {
  for (const auto& d : devices()) {
    if (d.id == id) return Device(d.index, flags, quota);
  }
  throw std::runtime_error("no device " + id);
}

inline xhal_status try_alloc(xhal_context* context, uint64_t bytes, uint64_t* address,
                             uint32_t flags = 0) {
  xhal_memory_info info{};
  info.struct_size = sizeof info;
  info.kind = XHAL_MEMORY_DEVICE;
  info.flags = flags;
  info.size_bytes = bytes;
  return xhal_memory_alloc(context, &info, address);
}
inline uint64_t alloc_in(xhal_context* context, uint64_t bytes, uint32_t flags = 0) {
  uint64_t address = 0;
  check(try_alloc(context, bytes, &address, flags));
  return address;
}

inline Stream stream_in(xhal_context* context) {
  xhal_stream* stream = nullptr;
  check(xhal_stream_create(context, nullptr, &stream));
  return Stream(stream);
}

inline xhal_context* context_in(const Device& device, uint32_t flags = 0, uint64_t quota = 0) {
  xhal_context_info info{};
  info.struct_size = sizeof info;
  info.flags = flags;
  info.quota_bytes = quota;
  xhal_context* context = nullptr;
  check(xhal_context_create(device.get(), &info, &context));
  return context;
}

inline Timeline timeline(uint64_t initial = 0) {
  xhal_timeline* t = nullptr;
  check(xhal_timeline_create(initial, &t));
  return Timeline(t);
}

inline uint64_t address_of(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

// What the control table of a device opened with XHAL_OPEN_CONTROL does.
inline void lose(const Device& device) {
  const xhal_control_table* table = nullptr;
  check(xhal_device_control_table(device.get(), &table));
  check(table->reset(device.get()));
}
inline void inject(const Device& device, std::string_view fault) {
  const xhal_control_table* table = nullptr;
  check(xhal_device_control_table(device.get(), &table));
  check(table->inject(device.get(), str(fault)));
}

class FaultyTest : public HalTest {
 protected:
  // The board is the process's, and a test may run after another one in it.
  void TearDown() override {
    HalTest::TearDown();
    board().clear();
  }
};

// With one device open, and a stream of it.
class FaultyDeviceTest : public FaultyTest {
 protected:
  explicit FaultyDeviceTest(uint64_t capabilities = Board::kUsualCapabilities)
      : capabilities_(capabilities) {}
  void SetUp() override {
    FaultyTest::SetUp();
    board().capabilities = capabilities_;
    open_again();
  }
  void TearDown() override {
    stream_.reset();
    device_.reset();
    FaultyTest::TearDown();
  }
  // After a change of what the board claims.
  void open_again() {
    stream_.reset();
    device_.reset();
    device_ = std::make_unique<Device>(open_device("faulty:0"));
    stream_ = device_->stream();
  }
  const uint64_t capabilities_;
  std::unique_ptr<Device> device_;
  Stream stream_;
};

}  // namespace xhal::test
