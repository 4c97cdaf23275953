// SPDX-License-Identifier: Apache-2.0
#include "harness/cts.hpp"

#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <numeric>

#include "common/process.hpp"
#include "harness/harness.hpp"

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

size_t entries_in(const char* folder) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++count;
  return count;
}

}  // namespace

Traces traces() { return {entries_in("/proc/self/task"), entries_in("/proc/self/fd")}; }

const Target& target() { return the_target(); }
void set_target(Target t) { the_target() = std::move(t); }

uint64_t deadline_ns() {
  return static_cast<uint64_t>(std::chrono::nanoseconds(target().limit).count()) * 2 / 3;
}

xhal_device* device() {
  open_device();
  return the_device().device;
}

xhal_context* context() {
  open_device();
  return the_device().context;
}

void close_device() {
  release_arena();
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
  return ok(xhal_stream_synchronize(stream_, deadline_ns()));
}

Busy::Busy(xhal_stream* stream) {
  auto own = std::make_unique<std::shared_ptr<State>>(state_);
  const auto status = xhal_stream_host_call(stream, wait, own.get(), 0);
  EXPECT_TRUE(ok(status));
  if (status == XHAL_OK) (void)own.release();
}

void Busy::open() {
  const std::lock_guard lock(state_->mutex);
  state_->open = true;
  state_->opened.notify_all();
}

// In case that nobody opens it: a submission that waits for it comes back, and the test says so.
void Busy::wait(void* user, xhal_status) {
  const std::unique_ptr<std::shared_ptr<State>> own(static_cast<std::shared_ptr<State>*>(user));
  auto& state = **own;
  if (std::this_thread::get_id() == state.submitter) {
    state.passed = true;
    return;
  }
  std::unique_lock lock(state.mutex);
  state.opened.wait_for(lock, std::chrono::nanoseconds(deadline_ns() / 4),
                        [&] { return state.open; });
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
  if (address_ == 0) return;  // it has been said why
  const Stream stream;
  EXPECT_TRUE(
      ok(xhal_stream_copy(stream, address_ + offset, reinterpret_cast<uintptr_t>(bytes), count)));
  EXPECT_TRUE(stream.finishes());
}
std::vector<uint8_t> Buffer::read() const {
  std::vector<uint8_t> bytes(size_);
  if (address_ == 0) return bytes;
  const Stream stream;
  EXPECT_TRUE(
      ok(xhal_stream_copy(stream, reinterpret_cast<uintptr_t>(bytes.data()), address_, size_)));
  EXPECT_TRUE(stream.finishes());
  return bytes;
}

testing::AssertionResult Buffer::free() {
  const auto address = address_;
  address_ = 0;
  return ok(xhal_memory_free(context(), address));
}

std::vector<uint8_t> counting(size_t count, uint8_t first) {
  std::vector<uint8_t> bytes(count);
  std::iota(bytes.begin(), bytes.end(), first);
  return bytes;
}

std::vector<uint8_t> unrepeated(size_t count) {
  std::vector<uint8_t> bytes(count);
  for (size_t i = 0; i < count; ++i)
    bytes[i] = static_cast<uint8_t>(static_cast<uint32_t>(i) * 2654435761u >> 24);
  return bytes;
}

xhal_context* make_context(uint32_t flags) {
  auto info = versioned<xhal_context_info>();
  info.flags = flags;
  xhal_context* made = nullptr;
  const auto status = xhal_context_create(device(), &info, &made);
  EXPECT_TRUE(status == XHAL_ERR_UNSUPPORTED || ok(status));
  return made;
}

xhal_status allocate_in(xhal_context* in, uint64_t size, uint64_t* address) {
  auto info = versioned<xhal_memory_info>();
  info.kind = XHAL_MEMORY_DEVICE;
  info.size_bytes = size;
  return xhal_memory_alloc(in, &info, address);
}

xhal_tensor_desc floats_of(int64_t size) {
  xhal_tensor_desc t{};
  t.code = XHAL_CODE_FLOAT;
  t.bits = 32;
  t.lanes = 1;
  t.ndim = 1;
  t.sizes[0] = size;
  t.strides[0] = 1;
  return t;
}

xhal_status prepare_operator(uint32_t id, const std::vector<xhal_tensor_desc>& operands,
                             xhal_op** op) {
  return prepare_operator(id, std::vector<uint32_t>(operands.size(), 1), operands, op);
}

xhal_status prepare_operator(uint32_t id, const std::vector<uint32_t>& groups,
                             const std::vector<xhal_tensor_desc>& operands, xhal_op** op) {
  auto info = versioned<xhal_op_info>();
  info.id = id;
  info.group_count = static_cast<uint32_t>(groups.size());
  info.group_sizes = groups.data();
  info.operand_count = static_cast<uint32_t>(operands.size());
  info.operands = operands.data();
  return xhal_op_prepare(context(), &info, op);
}

std::string printed_text(const std::string& printed) {
  constexpr size_t kMost = 500;
  return "the plugin printed on standard output, which is the program's (xhal/plugin.h; host->log "
         "is for messages): " +
         printed.substr(0, kMost) + (printed.size() > kMost ? "..." : "");
}

bool in_own_process() {
  if (std::getenv("XHAL_CTS_CHILD") != nullptr) return true;
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  auto command = target().command;
  command.insert(command.end(),
                 {"--filter", std::string(test->test_suite_name()) + "." + test->name()});
  const auto run = tools::run_process(command, target().limit * 5 / 6, {{"XHAL_CTS_CHILD", "1"}});
  const auto at = run.out.rfind(kVerdict);
  const auto verdict =
      at == run.out.npos
          ? nlohmann::json()
          : nlohmann::json::parse(run.out.substr(at + std::strlen(kVerdict)), nullptr, false);
  const auto how = verdict.is_object() ? verdict.value("how", std::string()) : std::string();
  if (!run.ok() || how.empty()) {
    ADD_FAILURE() << "the process of this test: "
                  << (run.ok() ? "ended with exit status 0 before the test had" : run.text())
                  << "\n"
                  << run.out << run.err;
  }
  const auto printed = run.out.substr(0, std::min(at, run.out.size()));
  if (run.ok() && printed != "\n") ADD_FAILURE() << printed_text(printed);
  if (how == "failed") ADD_FAILURE() << verdict["reason"].get<std::string>();
  if (how == "skipped") [&] { GTEST_SKIP() << verdict["reason"].get<std::string>(); }();
  return false;
}

}  // namespace xhal::cts
