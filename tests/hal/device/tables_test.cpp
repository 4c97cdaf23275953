// SPDX-License-Identifier: Apache-2.0
// The control table a program gets is libxhal's copy: without holes, and it answers in every state
// a device and a process can be in.
#include "../faulty/faulty_test.hpp"

namespace xhal::test {
namespace {

class ControlTest : public FaultyTest {
 protected:
  static const xhal_control_table* table_of(const Device& d) {
    const xhal_control_table* table = nullptr;
    check(xhal_device_control_table(d.get(), &table));
    return table;
  }
};

TEST_F(ControlTest, WhatThePluginLeavesOutAnswersUnsupported) {
  const auto d = open_device("faulty:0", XHAL_OPEN_CONTROL);
  const auto* const table = table_of(d);
  ASSERT_NE(table->set_power_cap, nullptr);
  EXPECT_EQ(table->set_power_cap(d.get(), 100.0), XHAL_ERR_UNSUPPORTED);
  EXPECT_EQ(table->inject(d.get(), str("no such fault")), XHAL_ERR_NOT_FOUND);
}

TEST_F(ControlTest, ALostDeviceAnswersLost) {
  const auto d = open_device("faulty:0", XHAL_OPEN_CONTROL);
  const auto* const table = table_of(d);
  EXPECT_OK(table->reset(d.get()));
  EXPECT_EQ(table->inject(d.get(), str("event")), XHAL_ERR_DEVICE_LOST);
  EXPECT_EQ(table->set_power_cap(d.get(), 100.0), XHAL_ERR_DEVICE_LOST);
  EXPECT_EQ(table->reset(d.get()), XHAL_ERR_DEVICE_LOST);
}

TEST_F(ControlTest, AForkedChildIsForked) {
  const auto d = open_device("faulty:0", XHAL_OPEN_CONTROL);
  const auto* const table = table_of(d);
  expect_child([&] {
    EXPECT_EQ(table->inject(d.get(), str("event")), XHAL_ERR_FORKED);
    EXPECT_EQ(table->reset(d.get()), XHAL_ERR_FORKED);
  });
  EXPECT_OK(table->inject(d.get(), str("event"))) << "the parent goes on";
}

TEST_F(ControlTest, AfterShutdownItAnswersShutdown) {
  auto d = open_device("faulty:0", XHAL_OPEN_CONTROL);
  const auto* const table = table_of(d);
  auto* const handle = d.get();
  session_.reset();
  EXPECT_EQ(table->inject(handle, str("event")), XHAL_ERR_SHUTDOWN);
  EXPECT_EQ(table->reset(handle), XHAL_ERR_SHUTDOWN);
}

TEST_F(ControlTest, WithoutTheFlagThereIsNoTable) {
  const auto d = open_device("faulty:0");
  const xhal_control_table* table = nullptr;
  EXPECT_EQ(xhal_device_control_table(d.get(), &table), XHAL_ERR_PERMISSION);
}

// Opened with other flags, it is another open with rights of its own.
TEST_F(ControlTest, AnOpenWithoutTheFlagHasNoShareInAnotherOnesControl) {
  const auto controls = open_device("faulty:0", XHAL_OPEN_CONTROL);
  xhal_device_open_info info{};
  info.struct_size = sizeof info;
  info.index = controls.info().index;
  xhal_device* plain = nullptr;
  xhal_context* context = nullptr;
  const auto status = xhal_device_open(&info, &plain, &context);
  if (status != XHAL_OK) GTEST_SKIP() << "it is refused, which is fine: " << error_text();
  const xhal_control_table* table = nullptr;
  if (plain != controls.get()) {
    EXPECT_EQ(xhal_device_control_table(plain, &table), XHAL_ERR_PERMISSION);
  }
  EXPECT_OK(xhal_device_close(plain));
}

}  // namespace
}  // namespace xhal::test
