// SPDX-License-Identifier: Apache-2.0
// What every call refuses in the same way: flags it does not know, and errors that name the device.
#include "../faulty/faulty_test.hpp"

namespace xhal::test {
namespace {

class FlagsTest : public FaultyDeviceTest {
 protected:
  static constexpr uint32_t kUnknown = 1u << 30;
  template <class Info>
  static Info with_flags(uint32_t flags) {
    Info info{};
    info.struct_size = sizeof info;
    info.flags = flags;
    return info;
  }
};

// A flag that protects something is never silently ignored by a library that does not know it.
TEST_F(FlagsTest, UnknownFlagsAreRefusedEverywhere) {
  const auto context_info = with_flags<xhal_context_info>(kUnknown);
  xhal_context* context = nullptr;
  EXPECT_EQ(xhal_context_create(device_->get(), &context_info, &context), XHAL_ERR_UNKNOWN_FIELD);

  const auto stream_info = with_flags<xhal_stream_info>(kUnknown);
  xhal_stream* stream = nullptr;
  EXPECT_EQ(xhal_stream_create(device_->context(), &stream_info, &stream), XHAL_ERR_UNKNOWN_FIELD);

  const auto pool_info = with_flags<xhal_pool_info>(kUnknown);
  xhal_pool* pool = nullptr;
  EXPECT_EQ(xhal_pool_create(device_->context(), &pool_info, &pool), XHAL_ERR_UNKNOWN_FIELD);

  uint64_t address = 0;
  EXPECT_EQ(try_alloc(device_->context(), 4096, &address, kUnknown), XHAL_ERR_UNKNOWN_FIELD);

  xhal_device_open_info open_info{};
  open_info.struct_size = sizeof open_info;
  open_info.index = device_->info().index;
  open_info.flags = kUnknown;
  xhal_device* opened = nullptr;
  EXPECT_EQ(xhal_device_open(&open_info, &opened, &context), XHAL_ERR_UNKNOWN_FIELD);

  auto init_info = with_flags<xhal_init_info>(kUnknown);
  init_info.version_minor = XHAL_VERSION_MINOR;
  EXPECT_EQ(xhal_init(&init_info), XHAL_ERR_UNKNOWN_FIELD);

  uint32_t count = 0;
  EXPECT_EQ(xhal_enumerate(kUnknown, nullptr, 0, &count), XHAL_ERR_UNKNOWN_FIELD);

  xhal_event event{};
  EXPECT_EQ(xhal_event_record(stream_.get(), kUnknown, &event), XHAL_ERR_UNKNOWN_FIELD);

  bool called = false;
  EXPECT_EQ(xhal_stream_host_call(
                stream_.get(), [](void* user, xhal_status) { *static_cast<bool*>(user) = true; },
                &called, kUnknown),
            XHAL_ERR_UNKNOWN_FIELD);
  EXPECT_FALSE(called);

  auto op_info = with_flags<xhal_op_info>(kUnknown);
  xhal_op* op = nullptr;
  EXPECT_EQ(xhal_op_prepare(device_->context(), &op_info, &op), XHAL_ERR_UNKNOWN_FIELD);
  xhal_tensor_desc operand{};
  op_info.flags = 0;
  op_info.operand_count = 1;
  op_info.operands = &operand;
  operand.flags = kUnknown;
  EXPECT_EQ(xhal_op_prepare(device_->context(), &op_info, &op), XHAL_ERR_UNKNOWN_FIELD);
  for (const uint32_t known : {XHAL_TENSOR_ABSENT, XHAL_TENSOR_BOUNDED}) {
    operand.flags = known;
    EXPECT_NE(xhal_op_prepare(device_->context(), &op_info, &op), XHAL_ERR_UNKNOWN_FIELD) << known;
  }
  operand.flags = 0;
  operand.reserved[1] = 5;
  EXPECT_EQ(xhal_op_prepare(device_->context(), &op_info, &op), XHAL_ERR_UNKNOWN_FIELD);

  ASSERT_OK(xhal_event_record(stream_.get(), 0, &event));
  event.flags = kUnknown;
  EXPECT_EQ(xhal_event_query(&event), XHAL_ERR_UNKNOWN_FIELD);
  EXPECT_EQ(xhal_event_wait(&event, kSoon), XHAL_ERR_UNKNOWN_FIELD);
  EXPECT_EQ(xhal_stream_wait_event(stream_.get(), &event), XHAL_ERR_UNKNOWN_FIELD);
}

TEST_F(FlagsTest, ATypeThatIsNoneIsRefused) {
  xhal_context_info context_info{};
  context_info.struct_size = sizeof context_info;
  context_info.type = 3;
  xhal_context* context = nullptr;
  EXPECT_EQ(xhal_context_create(device_->get(), &context_info, &context), XHAL_ERR_UNKNOWN_FIELD);
  xhal_stream_info stream_info{};
  stream_info.struct_size = sizeof stream_info;
  stream_info.type = 4;
  xhal_stream* stream = nullptr;
  EXPECT_EQ(xhal_stream_create(device_->context(), &stream_info, &stream), XHAL_ERR_UNKNOWN_FIELD);
}

TEST_F(FlagsTest, ATimelineFailsOnlyWithAKnownStatusAndATextThatIsThere) {
  const auto t = timeline();
  xhal_error error{};
  error.struct_size = sizeof error;
  error.status = -999;
  EXPECT_EQ(xhal_timeline_fail(t.get(), &error), XHAL_ERR_INVALID_ARGUMENT);
  error.status = XHAL_ERR_IO;
  error.text = {nullptr, 6};
  EXPECT_EQ(xhal_timeline_fail(t.get(), &error), XHAL_ERR_INVALID_ARGUMENT);
  error.text = {};
  EXPECT_OK(xhal_timeline_fail(t.get(), &error));
  EXPECT_EQ(xhal_timeline_query(t.get(), 1, nullptr), XHAL_ERR_IO);
  EXPECT_EQ(error_text(), xhal_status_text(XHAL_ERR_IO));
}

// The size of a slot's structure is refused without a record.
TEST_F(FlagsTest, AFailureIsNotTakenForAnEarlierOneWithTheSameStatus) {
  xhal_pool_info pool_info{};
  pool_info.struct_size = 8;
  xhal_pool* pool = nullptr;
  ASSERT_EQ(xhal_pool_create(device_->context(), &pool_info, &pool), XHAL_ERR_STRUCT_SIZE);
  const auto op = prepare(device_->context(), XHAL_OP_fill, {{tensor(XHAL_CODE_FLOAT, 32, {4})}});
  xhal_op_properties properties{};
  properties.struct_size = 4;
  EXPECT_EQ(xhal_op_query(op.get(), &properties, nullptr, 0), XHAL_ERR_STRUCT_SIZE);
  EXPECT_THAT(error_text(), HasSubstr("xhal_op_query"));
}

TEST_F(FlagsTest, ARefusedFlagIsNamedInTheText) {
  const auto info = with_flags<xhal_context_info>(kUnknown);
  xhal_context* context = nullptr;
  EXPECT_EQ(xhal_context_create(device_->get(), &info, &context), XHAL_ERR_UNKNOWN_FIELD);
  EXPECT_THAT(error_text(), HasSubstr("0x40000000"));
}

// Whoever reads the record in a log knows where to look.
TEST_F(FlagsTest, FailingCallsSayWhichDeviceTheyWereAbout) {
  const auto pool = device_->pool(2 << 20);
  uint64_t address = 0;
  std::vector<uint8_t> host(8192);
  const auto memory = alloc(*device_, 4096);
  const auto small = Device(device_->info().index);
  auto* const quota = context_in(*device_, 0, 4096);
  struct Case {
    const char* what;
    std::function<xhal_status()> call;
  };
  const Case cases[] = {
      {"a pool at its limit",
       [&] { return xhal_pool_alloc(pool.get(), stream_.get(), 64 << 20, str("big"), &address); }},
      {"a pool given a block it does not have",
       [&] { return xhal_pool_free(pool.get(), 0xdead000, nullptr, 0); }},
      {"memory of no size", [&] { return try_alloc(device_->context(), 0, &address); }},
      {"memory beyond the quota", [&] { return try_alloc(quota, 8192, &address); }},
      {"more memory than there is",
       [&] { return try_alloc(device_->context(), uint64_t{1} << 46, &address); }},
      {"a free of what was not allocated",
       [&] { return xhal_memory_free(device_->context(), memory + 4096); }},
      {"a copy that leaves its allocation",
       [&] { return xhal_stream_copy(stream_.get(), memory, address_of(host.data()), 64 << 20); }},
      {"a fill outside of everything",
       [&] { return xhal_stream_fill(stream_.get(), 4096, 64, 0, 1); }},
      {"a fill with a pattern of three bytes",
       [&] { return xhal_stream_fill(stream_.get(), memory, 63, 0, 3); }},
      {"an unknown limit", [&] { return xhal_device_limit(device_->get(), 4711, &address); }},
      {"a registration of nothing",
       [&] { return xhal_host_unregister(device_->context(), host.data()); }},
      {"memory that cannot be exported",
       [&] {
         xhal_external external{};
         return xhal_memory_export(device_->context(), memory, XHAL_EXTERNAL_FD, &external);
       }},
      {"an end of a capture that was not begun",
       [&] {
         xhal_graph* graph = nullptr;
         return xhal_stream_end_capture(stream_.get(), &graph);
       }},
  };
  for (const auto& [what, call] : cases) {
    EXPECT_LT(call(), 0) << what;
    EXPECT_EQ(last_error_info().device, "faulty:0") << what << ": " << error_text();
  }
}

TEST_F(FlagsTest, AnObserverCreatesNothing) {
  const auto observer = open_device("faulty:0", XHAL_OPEN_OBSERVE);
  xhal_context_info info{};
  info.struct_size = sizeof info;
  xhal_context* context = nullptr;
  EXPECT_EQ(xhal_context_create(observer.get(), &info, &context), XHAL_ERR_PERMISSION);
  EXPECT_EQ(context, nullptr);
}

}  // namespace
}  // namespace xhal::test
