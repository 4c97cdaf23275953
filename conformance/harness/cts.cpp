// SPDX-License-Identifier: Apache-2.0
#include "harness/cts.hpp"

#include <chrono>
#include <cstdlib>
#include <numeric>

#include "common/process.hpp"

namespace xhal::cts {
namespace {

Target& the_target() {
  static Target target;
  return target;
}

struct OpenDevice {
  xhal_device* device = nullptr;
  xhal_context* context = nullptr;
};

OpenDevice& the_device() {
  static OpenDevice open;
  return open;
}

void open_device() {
  auto& open = the_device();
  if (open.device != nullptr) return;
  auto info = versioned<xhal_device_open_info>();
  info.index = target().index;
  ASSERT_TRUE(ok(xhal_device_open(&info, &open.device, &open.context)));
}

std::string text_of(xhal_string text) {
  return text.size == 0 ? "" : std::string(text.data, text.size);
}

}  // namespace

const Target& target() { return the_target(); }
void set_target(Target t) { the_target() = std::move(t); }

xhal_device* device() {
  open_device();
  return the_device().device;
}

xhal_context* context() {
  open_device();
  return the_device().context;
}

void close_device() {
  if (the_device().device != nullptr) xhal_device_close(the_device().device);
  the_device() = {};
}

bool can(uint32_t capability) {
  xhal_device_info info{};
  if (xhal_device_query(device(), &info) != XHAL_OK) return false;
  return (info.capabilities[capability / 64] >> capability % 64 & 1) != 0;
}

std::string last_error_text() {
  auto error = versioned<xhal_error>();
  return xhal_last_error(&error) == XHAL_OK ? text_of(error.text) : "";
}

testing::AssertionResult ok(xhal_status status) {
  if (status == XHAL_OK) return testing::AssertionSuccess();
  return testing::AssertionFailure() << xhal_status_name(status) << ": " << last_error_text();
}

testing::AssertionResult fails_with(xhal_status expected, xhal_status status) {
  if (status != expected) {
    return testing::AssertionFailure()
           << "wanted " << xhal_status_name(expected) << ", got " << xhal_status_name(status)
           << (status < 0 ? ": " + last_error_text() : "");
  }
  auto error = versioned<xhal_error>();
  if (xhal_last_error(&error) != XHAL_OK)
    return testing::AssertionFailure() << "no error record was left";
  if (error.status != expected) {
    return testing::AssertionFailure() << "the record says " << xhal_status_name(error.status)
                                       << ", the call " << xhal_status_name(expected);
  }
  if (error.text.size == 0) return testing::AssertionFailure() << "the error has no text";
  return testing::AssertionSuccess();
}

Stream::Stream(const xhal_stream_info* info) {
  EXPECT_TRUE(ok(xhal_stream_create(context(), info, &stream_)));
}
Stream::~Stream() {
  if (stream_ != nullptr) xhal_stream_destroy(stream_);
}
testing::AssertionResult Stream::finishes() const {
  return ok(xhal_stream_synchronize(stream_, kDeadlineNs));
}

Timeline::Timeline(uint64_t initial) { EXPECT_TRUE(ok(xhal_timeline_create(initial, &timeline_))); }
Timeline::~Timeline() {
  if (timeline_ != nullptr) xhal_timeline_destroy(timeline_);
}

Buffer::Buffer(uint64_t size_bytes, uint64_t alignment_bytes) : size_(size_bytes) {
  auto info = versioned<xhal_memory_info>();
  info.kind = XHAL_MEMORY_DEVICE;
  info.size_bytes = size_bytes;
  info.alignment_bytes = alignment_bytes;
  EXPECT_TRUE(ok(xhal_memory_alloc(context(), &info, &address_)));
}
Buffer::~Buffer() {
  if (address_ != 0) xhal_memory_free(context(), address_);
}
void Buffer::write(const void* bytes, uint64_t count, uint64_t offset) const {
  const Stream stream;
  EXPECT_TRUE(
      ok(xhal_stream_copy(stream, address_ + offset, reinterpret_cast<uintptr_t>(bytes), count)));
  EXPECT_TRUE(stream.finishes());
}
std::vector<uint8_t> Buffer::read() const {
  std::vector<uint8_t> bytes(size_);
  const Stream stream;
  EXPECT_TRUE(
      ok(xhal_stream_copy(stream, reinterpret_cast<uintptr_t>(bytes.data()), address_, size_)));
  EXPECT_TRUE(stream.finishes());
  return bytes;
}

std::vector<uint8_t> counting(size_t count, uint8_t first) {
  std::vector<uint8_t> bytes(count);
  std::iota(bytes.begin(), bytes.end(), first);
  return bytes;
}

bool in_own_process() {
  if (std::getenv("XHAL_CTS_CHILD") != nullptr) return true;
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  auto command = target().command;
  command.insert(command.end(),
                 {"--filter", std::string(test->test_suite_name()) + "." + test->name()});
  const auto run =
      tools::run_process(command, std::chrono::seconds(120), {{"XHAL_CTS_CHILD", "1"}});
  EXPECT_TRUE(run.ok()) << "the child of this test: " << run.text() << "\n" << run.out << run.err;
  if (run.ok() && run.out.find("SKIPPED:") != std::string::npos) {
    const auto at = run.out.find("SKIPPED:") + 8;
    [&] { GTEST_SKIP() << run.out.substr(at, run.out.find('\n', at) - at); }();
  }
  return false;
}

}  // namespace xhal::cts
