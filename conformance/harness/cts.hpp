// SPDX-License-Identifier: Apache-2.0
// cts.hpp: what every conformance test stands on: the device under test, and calls
// that explain themselves.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "harness/surroundings.hpp"
#include "xhal/xhal.h"

namespace xhal::cts {

// What a library can leave behind in a process.
struct Traces {
  size_t threads = 0, descriptors = 0;
};
Traces traces();

struct Target {
  std::string plugin;
  uint32_t index = 0;  // for xhal_device_open
  xhal_device_info info{};
  std::filesystem::path library, manifest;
  std::filesystem::path probe;  // xhal-probe
  std::vector<std::string>
      command;  // runs this suite again on the same target; a child appends its --filter
  std::chrono::milliseconds limit{30'000};       // for a test; who runs it ends the process then
  Traces before_enumeration, after_enumeration;  // of this process's first
  Surroundings before_loading, after_loading;    // at the same two moments
};

const Target& target();
void set_target(Target target);

// Waits that must end do so long before; a test that reaches it has found a hang, and still has the
// time to say where.
uint64_t deadline_ns();

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

// Work that a stream is busy with on the device itself, where libxhal holds nothing back: a host
// call that returns when it is opened. A device that works inside of the submission passes it.
class Busy {
 public:
  explicit Busy(xhal_stream* stream);
  ~Busy() { open(); }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;
  void open();
  bool passed() const { return state_->passed; }

 private:
  struct State {
    const std::thread::id submitter = std::this_thread::get_id();
    std::mutex mutex;
    std::condition_variable opened;
    bool open = false;
    std::atomic<bool> passed{false};
  };
  static void wait(void* user, xhal_status status);
  std::shared_ptr<State> state_ = std::make_shared<State>();
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
  testing::AssertionResult free();  // before its time, where the answer counts

 private:
  uint64_t address_ = 0, size_ = 0;
};

template <class T>
std::vector<T> as(const std::vector<uint8_t>& bytes) {
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

// Success, or the first place where they differ: memory has too many bytes to print.
template <class T>
testing::AssertionResult same(const std::vector<T>& got, const std::vector<T>& right) {
  const char* what = sizeof(T) == 1 ? "byte" : "element";
  if (got.size() != right.size()) {
    return testing::AssertionFailure()
           << "there are " << got.size() << " " << what << "s, " << right.size() << " are right";
  }
  const auto [is, should] = std::mismatch(got.begin(), got.end(), right.begin());
  if (is == got.end()) return testing::AssertionSuccess();
  return testing::AssertionFailure()
         << "first difference at " << what << " " << is - got.begin() << " of " << got.size()
         << ": " << +*is << ", " << +*should << " is right";
}

// Bytes 0, 1, 2, ... of the given count, from `first` on: every mistake in an address shows.
std::vector<uint8_t> counting(size_t count, uint8_t first = 0);
// Bytes that do not repeat: also an address that is off by a page or a megabyte shows.
std::vector<uint8_t> unrepeated(size_t count);

// A further context; nullptr when the device has one only, which is no failure.
xhal_context* make_context(uint32_t flags = 0);
xhal_status allocate_in(xhal_context* in, uint64_t size, uint64_t* address);

// A contiguous vector of f32.
xhal_tensor_desc floats_of(int64_t size);
// Prepares an operator in the default context; without `groups` each has one operand.
xhal_status prepare_operator(uint32_t id, const std::vector<xhal_tensor_desc>& operands,
                             xhal_op** op);
xhal_status prepare_operator(uint32_t id, const std::vector<uint32_t>& groups,
                             const std::vector<xhal_tensor_desc>& operands, xhal_op** op);

// Runs the present test in a process of its own, for what ends or spoils one (shutdown, fork). In
// the parent this is false and the child's verdict has become this test's; in the child it is true
// and the body goes on.
bool in_own_process();
// What is wrong when a plugin has printed that.
std::string printed_text(const std::string& printed);
// In what such a child prints, before its listener's message as JSON.
inline constexpr const char* kVerdict = "xhal-cts verdict: ";

}  // namespace xhal::cts
