// SPDX-License-Identifier: Apache-2.0
// The control table of the cpu plugin: resets, and faults on demand. Both act on the open they come
// through, and say so where that one has no work.
#include "runtime_harness.hpp"

namespace xhal::cpu::test {
namespace {

const xhal_control_table* control_of(const Device& device) {
  const xhal_control_table* table = nullptr;
  check(xhal_device_control_table(device.get(), &table));
  return table;
}

TEST_F(RuntimeTest, AnInjectedFaultFailsTheNextOperator) {
  const auto index = cpu_devices().front().index;
  Device controlled(index, XHAL_OPEN_CONTROL);
  const auto* control = control_of(controlled);
  const Op fill = prepare(controlled.context(), XHAL_OP_fill, {{vector_of(16)}});
  xhal_memory_info info{};
  info.struct_size = sizeof info;
  info.kind = XHAL_MEMORY_DEVICE;
  info.size_bytes = 64;
  uint64_t a = 0;
  ASSERT_OK(xhal_memory_alloc(controlled.context(), &info, &a));
  auto stream = controlled.stream();
  ASSERT_OK(control->inject(controlled.get(), str("operation")));
  launch(stream.get(), fill, {a}, {scalar(1.0)});
  EXPECT_EQ(xhal_stream_synchronize(stream.get(), kSoon), XHAL_ERR_DEVICE);
  EXPECT_THAT(last_error_info().text, HasSubstr("fill"));
  EXPECT_EQ(control->inject(controlled.get(), str("flood")), XHAL_ERR_NOT_FOUND);
}

TEST_F(RuntimeTest, AResetLosesTheOldHandlesAndANewOpenWorks) {
  const auto index = cpu_devices().front().index;
  {
    Device old(index, XHAL_OPEN_CONTROL);
    auto stream = old.stream();
    const auto never = timeline();
    ASSERT_OK(xhal_stream_wait(stream.get(), never.get(), 1));
    xhal_event event{};
    ASSERT_OK(xhal_event_record(stream.get(), 0, &event));
    const auto* control = control_of(old);
    ASSERT_OK(control->reset(old.get()));
    EXPECT_EQ(xhal_event_wait(&event, kSoon), XHAL_ERR_DEVICE_LOST);
    EXPECT_EQ(xhal_stream_fill(stream.get(), 4096, 8, 0, 8), XHAL_ERR_DEVICE_LOST);
  }
  Device fresh(index, XHAL_OPEN_CONTROL);
  EXPECT_GT(fresh.info().generation, 0u);
  auto stream = fresh.stream();
  EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  xhal_sample sample{};
  sample.id = XHAL_TELEMETRY_RESETS;
  ASSERT_OK(xhal_device_telemetry(fresh.get(), &sample, 1));
  EXPECT_EQ(sample.value, 1.0);
}

TEST_F(RuntimeTest, WhereNothingRunsNothingIsInjectedOrReset) {
  const auto index = cpu_devices().front().index;
  Device working(index, XHAL_OPEN_CONTROL), observing(index, XHAL_OPEN_OBSERVE | XHAL_OPEN_CONTROL);
  const auto* control = control_of(observing);
  const auto resets = [&] {
    xhal_sample sample{};
    sample.id = XHAL_TELEMETRY_RESETS;
    check(xhal_device_telemetry(observing.get(), &sample, 1));
    return sample.value;
  };
  const double before = resets();
  const auto refused = [](xhal_status status) {
    EXPECT_EQ(status, XHAL_ERR_UNSUPPORTED);
    EXPECT_THAT(last_error_info().text, HasSubstr("in the process that opened it"));
    EXPECT_THAT(last_error_info().text, HasSubstr("without XHAL_OPEN_OBSERVE")) << "what to do";
  };
  refused(control->reset(observing.get()));
  refused(control->inject(observing.get(), str("lost")));
  refused(control->inject(observing.get(), str("operation")));
  EXPECT_OK(xhal_stream_synchronize(working.stream().get(), kSoon));
  EXPECT_EQ(resets(), before) << "what was refused is not counted";
}

TEST_F(RuntimeTest, WhoeverAsksIsToldTheFaults) {
  const auto index = cpu_devices().front().index;
  Device observing(index, XHAL_OPEN_OBSERVE | XHAL_OPEN_CONTROL);
  const auto* control = control_of(observing);
  EXPECT_EQ(control->inject(observing.get(), str("")), XHAL_ERR_NOT_FOUND);
  EXPECT_THAT(last_error_info().text, testing::AllOf(HasSubstr("`lost` and `operation`"),
                                                     testing::Not(HasSubstr("not `"))));
  EXPECT_EQ(control->inject(observing.get(), str("flood")), XHAL_ERR_NOT_FOUND);
  EXPECT_THAT(last_error_info().text, HasSubstr("not `flood`"));
}

}  // namespace
}  // namespace xhal::cpu::test
