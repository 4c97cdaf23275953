// SPDX-License-Identifier: Apache-2.0
// Bad input: every mistake has its own status and a text, changes nothing, and is never a crash.
#include <thread>

#include "harness/cts.hpp"
#include "harness/guard_page.hpp"
#include "xhal/catalog.h"

namespace xhal::cts {
namespace {

// A structure at the very end of readable memory: whoever reads past what it was given dies.
template <class T>
class AtGuardPage {
 public:
  explicit AtGuardPage(uint32_t size) : size_(size), at_(page_.end(size)) {
    T whole = versioned<T>();
    whole.struct_size = size;
    std::memcpy(at_, &whole, std::min<size_t>(size, sizeof whole));
  }
  T* get() { return reinterpret_cast<T*>(at_); }
  void set_last_byte(uint8_t value) { at_[size_ - 1] = value; }

 private:
  test::GuardPage page_;
  uint32_t size_;
  unsigned char* at_;
};

TEST(Structures, ATooSmallMemoryInfoIsRefusedUnread) {
  AtGuardPage<xhal_memory_info> small(8);
  uint64_t address = 0;
  EXPECT_TRUE(
      fails_with(XHAL_ERR_STRUCT_SIZE, xhal_memory_alloc(context(), small.get(), &address)));
}

TEST(Structures, ATooSmallStreamInfoIsRefusedUnread) {
  AtGuardPage<xhal_stream_info> small(8);
  xhal_stream* stream = nullptr;
  EXPECT_TRUE(
      fails_with(XHAL_ERR_STRUCT_SIZE, xhal_stream_create(context(), small.get(), &stream)));
}

TEST(Structures, ATooSmallOpInfoIsRefusedUnread) {
  AtGuardPage<xhal_op_info> small(8);
  xhal_op* op = nullptr;
  EXPECT_TRUE(fails_with(XHAL_ERR_STRUCT_SIZE, xhal_op_prepare(context(), small.get(), &op)));
}

TEST(Structures, ATooSmallOpenInfoIsRefusedUnread) {
  AtGuardPage<xhal_device_open_info> small(8);
  xhal_device* opened = nullptr;
  xhal_context* opened_context = nullptr;
  EXPECT_TRUE(
      fails_with(XHAL_ERR_STRUCT_SIZE, xhal_device_open(small.get(), &opened, &opened_context)));
}

TEST(Structures, SizeZeroIsRefused) {
  auto info = versioned<xhal_stream_info>();
  info.struct_size = 0;
  xhal_stream* stream = nullptr;
  EXPECT_TRUE(fails_with(XHAL_ERR_STRUCT_SIZE, xhal_stream_create(context(), &info, &stream)));
}

TEST(Structures, ALargerOneWithAZeroTailIsTheKnownOne) {
  AtGuardPage<xhal_stream_info> large(sizeof(xhal_stream_info) + 64);
  xhal_stream* stream = nullptr;
  ASSERT_TRUE(ok(xhal_stream_create(context(), large.get(), &stream)));
  EXPECT_TRUE(ok(xhal_stream_destroy(stream)));
}

TEST(Structures, ALargerOneWithAnUnknownFieldIsRefused) {
  AtGuardPage<xhal_stream_info> large(sizeof(xhal_stream_info) + 64);
  large.set_last_byte(1);
  xhal_stream* stream = nullptr;
  EXPECT_TRUE(
      fails_with(XHAL_ERR_UNKNOWN_FIELD, xhal_stream_create(context(), large.get(), &stream)));
}

TEST(Structures, MemoryInfoFollowsTheSameRule) {
  AtGuardPage<xhal_memory_info> large(sizeof(xhal_memory_info) + 64);
  large.get()->kind = XHAL_MEMORY_DEVICE;
  large.get()->size_bytes = 64;
  uint64_t address = 0;
  ASSERT_TRUE(ok(xhal_memory_alloc(context(), large.get(), &address)));
  EXPECT_TRUE(ok(xhal_memory_free(context(), address)));
  large.set_last_byte(1);
  EXPECT_TRUE(
      fails_with(XHAL_ERR_UNKNOWN_FIELD, xhal_memory_alloc(context(), large.get(), &address)));
}

TEST(Structures, AnUnknownStructureInTheChainIsRefused) {
  const xhal_chain unknown = {sizeof(xhal_chain), 0x1234, nullptr};
  auto info = versioned<xhal_stream_info>();
  info.next = &unknown;
  xhal_stream* stream = nullptr;
  EXPECT_TRUE(fails_with(XHAL_ERR_UNKNOWN_STRUCT, xhal_stream_create(context(), &info, &stream)));
}

TEST(Structures, AnIgnorableStructureInTheChainIsIgnored) {
  const xhal_chain ignorable = {sizeof(xhal_chain), 0x1234 | XHAL_STRUCT_IGNORABLE, nullptr};
  auto info = versioned<xhal_stream_info>();
  info.next = &ignorable;
  xhal_stream* stream = nullptr;
  ASSERT_TRUE(ok(xhal_stream_create(context(), &info, &stream)));
  EXPECT_TRUE(ok(xhal_stream_destroy(stream)));
}

TEST(Structures, AnOutputIsWrittenOnlyAsFarAsTheCallerHasRoom) {
  xhal_pool* pool = nullptr;
  ASSERT_TRUE(ok(xhal_pool_create(context(), nullptr, &pool)));
  AtGuardPage<xhal_pool_stats> exact(sizeof(xhal_pool_stats));
  EXPECT_TRUE(ok(xhal_pool_query(pool, exact.get())));
  AtGuardPage<xhal_pool_stats> larger(sizeof(xhal_pool_stats) + 8);
  larger.set_last_byte(0x55);
  EXPECT_TRUE(ok(xhal_pool_query(pool, larger.get())));
  EXPECT_EQ(reinterpret_cast<char*>(larger.get())[sizeof(xhal_pool_stats) + 7], 0)
      << "what is not known is zeroed";
  EXPECT_TRUE(ok(xhal_pool_destroy(pool)));
}

TEST(Structures, ErrorRecordFitsTheCallersStructure) {
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_HANDLE, xhal_stream_destroy(nullptr)));
  AtGuardPage<xhal_error> exact(sizeof(xhal_error));
  EXPECT_EQ(xhal_last_error(exact.get()), XHAL_OK);
  EXPECT_EQ(exact.get()->status, XHAL_ERR_INVALID_HANDLE);
}

TEST(Handles, NullIsNotAHandle) {
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_HANDLE, xhal_device_close(nullptr)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_HANDLE, xhal_stream_synchronize(nullptr, 0)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_HANDLE, xhal_stream_fill(nullptr, 0, 0, 0, 1)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_HANDLE, xhal_timeline_signal(nullptr, 1)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_HANDLE, xhal_op_destroy(nullptr)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_HANDLE, xhal_pool_trim(nullptr, 0)));
  uint64_t value = 0;
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_HANDLE, xhal_device_limit(nullptr, 1, &value)));
}

TEST(Handles, AnObjectOfAnotherKindIsNotAHandle) {
  const Stream stream;
  const Timeline timeline;
  auto* wrong = reinterpret_cast<xhal_stream*>(static_cast<xhal_timeline*>(timeline));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_HANDLE, xhal_stream_synchronize(wrong, 0)));
  auto* also_wrong = reinterpret_cast<xhal_timeline*>(static_cast<xhal_stream*>(stream));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_HANDLE, xhal_timeline_signal(also_wrong, 1)));
}

TEST(Handles, AWrongSecondHandleIsCaughtToo) {
  const Stream stream;
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_HANDLE,
                         xhal_op_launch(stream, nullptr, nullptr, 0, nullptr, 0, 0)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_HANDLE, xhal_stream_wait(stream, nullptr, 1)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_HANDLE, xhal_graph_launch(stream, nullptr)));
  EXPECT_TRUE(stream.finishes());
}

TEST(Handles, ADestroyedStreamIsNotAHandle) {
  xhal_stream* stream = nullptr;
  ASSERT_TRUE(ok(xhal_stream_create(context(), nullptr, &stream)));
  ASSERT_TRUE(ok(xhal_stream_destroy(stream)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_HANDLE, xhal_stream_fill(stream, 0, 0, 0, 1)));
}

TEST(Handles, ADestroyedTimelineIsNotAHandle) {
  xhal_timeline* timeline = nullptr;
  ASSERT_TRUE(ok(xhal_timeline_create(0, &timeline)));
  ASSERT_TRUE(ok(xhal_timeline_destroy(timeline)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_HANDLE, xhal_timeline_signal(timeline, 1)));
}

TEST(Arguments, AMissingResultPointerIsRefused) {
  EXPECT_TRUE(
      fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_stream_create(context(), nullptr, nullptr)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_timeline_create(0, nullptr)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_pool_create(context(), nullptr, nullptr)));
  const Stream stream;
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_event_record(stream, 0, nullptr)));
}

TEST(Arguments, AMissingInfoWhereOneIsNeededIsRefused) {
  uint64_t address = 0;
  xhal_op* op = nullptr;
  EXPECT_TRUE(
      fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_memory_alloc(context(), nullptr, &address)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_op_prepare(context(), nullptr, &op)));
}

TEST(Arguments, AnUnknownOperatorIsUnsupported) {
  auto info = versioned<xhal_op_info>();
  info.id = 0x7ffffff0;
  xhal_op* op = nullptr;
  EXPECT_TRUE(fails_with(XHAL_ERR_UNSUPPORTED, xhal_op_prepare(context(), &info, &op)));
}

TEST(Errors, RecordNamesThePluginAndTheOperation) {
  uint64_t value = 0;
  ASSERT_EQ(xhal_device_limit(device(), 0x7ffffff0, &value), XHAL_ERR_UNSUPPORTED);
  auto error = versioned<xhal_error>();
  ASSERT_EQ(xhal_last_error(&error), XHAL_OK);
  EXPECT_EQ(std::string(error.plugin.data, error.plugin.size), target().plugin);
  EXPECT_EQ(std::string(error.device.data, error.device.size), std::string(target().info.id));
}

TEST(Errors, BelongToTheThreadThatMadeThem) {
  ASSERT_EQ(xhal_timeline_signal(nullptr, 1), XHAL_ERR_INVALID_HANDLE);
  std::thread([] {
    auto error = versioned<xhal_error>();
    EXPECT_EQ(xhal_last_error(&error), XHAL_ERR_NOT_FOUND);
  }).join();
}

TEST(Errors, SurviveSuccessfulCalls) {
  ASSERT_EQ(xhal_timeline_signal(nullptr, 1), XHAL_ERR_INVALID_HANDLE);
  const Timeline works;
  auto error = versioned<xhal_error>();
  ASSERT_EQ(xhal_last_error(&error), XHAL_OK);
  EXPECT_EQ(error.status, XHAL_ERR_INVALID_HANDLE);
}

TEST(Errors, EveryStatusHasANameAndAText) {
#define XHAL_CHECK_STATUS(name, value, text)                  \
  EXPECT_STREQ(xhal_status_name(XHAL_##name), "XHAL_" #name); \
  EXPECT_STRNE(xhal_status_text(XHAL_##name), "");
  XHAL_STATUS_LIST(XHAL_CHECK_STATUS)
#undef XHAL_CHECK_STATUS
  EXPECT_STREQ(xhal_status_name(-12345), "XHAL_?");
}

TEST(Errors, AFunctionThatIsNotThereIsUnsupported) {
  void (*function)(void) = nullptr;
  EXPECT_TRUE(fails_with(XHAL_ERR_UNSUPPORTED, xhal_get_proc("xhal_no_such_function", &function)));
  EXPECT_TRUE(ok(xhal_get_proc("xhal_stream_create", &function)));
  EXPECT_NE(function, nullptr);
}

TEST(Correlation, IsAStackOfTheThread) {
  uint64_t id = 0;
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, xhal_correlation_pop(&id)));
  ASSERT_TRUE(ok(xhal_correlation_push(7)));
  ASSERT_TRUE(ok(xhal_correlation_push(8)));
  ASSERT_TRUE(ok(xhal_correlation_pop(&id)));
  EXPECT_EQ(id, 8u);
  ASSERT_TRUE(ok(xhal_correlation_pop(&id)));
  EXPECT_EQ(id, 7u);
}

}  // namespace
}  // namespace xhal::cts
