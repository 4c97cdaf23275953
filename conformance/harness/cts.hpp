// SPDX-License-Identifier: Apache-2.0
// cts.hpp: what every conformance test stands on: the device under test, and calls
// that explain themselves.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "xhal/xhal.h"

namespace xhal::cts {

// Waits that must end do so long before; a test that reaches it has found a hang.
inline constexpr uint64_t kDeadlineNs = 60'000'000'000;

struct Target {
  std::string plugin;
  uint32_t index = 0;  // for xhal_device_open
  xhal_device_info info{};
  std::filesystem::path library, manifest;
  std::filesystem::path probe;  // xhal-probe
  std::vector<std::string>
      command;  // runs this suite again on the same target; a child appends its --filter
};

const Target& target();
void set_target(Target target);

// The device under test, opened on first use and open until the end, and its default context.
xhal_device* device();
xhal_context* context();
void close_device();
bool can(uint32_t capability);  // XHAL_CAP_*

// Success, or the text of the failure.
testing::AssertionResult ok(xhal_status status);
// Failure with this very status, and a record of it whose text is not empty.
testing::AssertionResult fails_with(xhal_status expected, xhal_status status);
std::string last_error_text();

template <class T>
T versioned() {
  T value{};
  value.struct_size = sizeof value;
  return value;
}

class Stream {
 public:
  Stream() : Stream(nullptr) {}
  explicit Stream(const xhal_stream_info* info);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator xhal_stream*() const { return stream_; }
  testing::AssertionResult finishes() const;  // within the deadline

 private:
  xhal_stream* stream_ = nullptr;
};

class Timeline {
 public:
  explicit Timeline(uint64_t initial = 0);
  ~Timeline();
  Timeline(const Timeline&) = delete;
  Timeline& operator=(const Timeline&) = delete;
  operator xhal_timeline*() const { return timeline_; }
  void release() { timeline_ = nullptr; }  // somebody else destroys it

 private:
  xhal_timeline* timeline_ = nullptr;
};

// Device memory. Its content is reached by copies only: the host may not be able to touch it.
class Buffer {
 public:
  explicit Buffer(uint64_t size_bytes, uint64_t alignment_bytes = 0);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  uint64_t address() const { return address_; }
  uint64_t size() const { return size_; }
  void write(const void* bytes, uint64_t count, uint64_t offset = 0) const;
  std::vector<uint8_t> read() const;

 private:
  uint64_t address_ = 0, size_ = 0;
};

template <class T>
std::vector<T> as(const std::vector<uint8_t>& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

// Bytes 0, 1, 2, ... of the given count, from `first` on: every mistake in an address shows.
std::vector<uint8_t> counting(size_t count, uint8_t first = 0);

// Runs the present test in a process of its own, for what ends or spoils one (shutdown, fork). In
// the parent this is false and the child's verdict has become this test's; in the child it is true
// and the body goes on.
bool in_own_process();

}  // namespace xhal::cts
