// SPDX-License-Identifier: Apache-2.0
// What op_prepare refuses, it refuses with the right status, the operand and a reason: frameworks
// fall back on what they are told.
#include "harness/cts.hpp"
#include "xhal/catalog.h"

namespace xhal::cts {
namespace {

xhal_status prepare(uint32_t id, const std::vector<uint32_t>& groups,
                    const std::vector<xhal_tensor_desc>& operands) {
  xhal_op* op = nullptr;
  const auto status = prepare_operator(id, groups, operands, &op);
  if (status == XHAL_OK) xhal_op_destroy(op);
  return status;
}

// A text of the plugin's own: libxhal makes one of the status where there is none.
testing::AssertionResult explains_itself(xhal_status status) {
  if (status >= 0) return testing::AssertionFailure() << "it was not refused";
  const auto text = last_error_text();
  if (text == std::string("xhal_op_prepare: ") + xhal_status_text(status))
    return testing::AssertionFailure() << xhal_status_name(status) << " came without a text";
  return testing::AssertionSuccess();
}

TEST(Refusal, OfAnOperatorHasAText) {
  const auto t = floats_of(4);
  EXPECT_TRUE(explains_itself(prepare(0x7ffffff0, {1, 1}, {t, t})));
}

TEST(Refusal, OfALayoutHasAText) {
  auto t = floats_of(4);
  t.layout = 0x4711;
  EXPECT_TRUE(explains_itself(prepare(XHAL_OP_strided_copy, {1, 1}, {t, t})));
}

TEST(Refusal, OfAShapeHasAText) {
  auto longer = floats_of(4);
  longer.sizes[0] = 5;
  EXPECT_TRUE(explains_itself(prepare(XHAL_OP_strided_copy, {1, 1}, {floats_of(4), longer})));
}

TEST(Refusal, NamesTheOperandWhoseDtypeItCannotDo) {
  for (const size_t wrong : {0, 1}) {
    std::vector<xhal_tensor_desc> operands(2, floats_of(4));
    operands[wrong].bits = 7;  // no device has it; a copy may have two dtypes, so it is this one
    const auto status = prepare(XHAL_OP_strided_copy, {1, 1}, operands);
    EXPECT_TRUE(status == XHAL_ERR_UNSUPPORTED || status == XHAL_ERR_INVALID_ARGUMENT)
        << xhal_status_name(status);
    EXPECT_TRUE(explains_itself(status));
    auto error = versioned<xhal_error>();
    ASSERT_EQ(xhal_last_error(&error), XHAL_OK);
    EXPECT_EQ(error.operand, wrong + 1) << "the refused operand, counted from 1";
  }
}

TEST(Refusal, OfAGroupThatContradictsTheCatalogueIsAnInvalidArgument) {
  const auto t = floats_of(4);
  struct Wrong {
    const char* what;
    uint32_t id;
    std::vector<uint32_t> groups;
  };
  const Wrong all[] = {{"two inputs in one group", XHAL_OP_strided_copy, {2, 1}},
                       {"a group too many", XHAL_OP_strided_copy, {1, 1, 1}},
                       {"a group too few", XHAL_OP_strided_copy, {1}},
                       {"no output", XHAL_OP_strided_copy, {1, 0}},
                       {"two outputs", XHAL_OP_fill, {2}},
                       {"an input of an operator without any", XHAL_OP_fill, {1, 1}},
                       {"no x", XHAL_OP_axpby, {0, 1, 1}}};
  for (const auto& wrong : all) {
    size_t count = 0;
    for (const auto size : wrong.groups) count += size;
    const auto status = prepare(wrong.id, wrong.groups, std::vector<xhal_tensor_desc>(count, t));
    EXPECT_EQ(status, XHAL_ERR_INVALID_ARGUMENT)
        << wrong.what << ": " << xhal_status_name(status) << ": " << last_error_text();
  }
}

// Within one operator all groups have one dtype, unless its prose says otherwise (ops.inc). Only
// dtypes that every device has: others may be UNSUPPORTED.
TEST(Refusal, OfInputsOfTwoDtypesIsAnInvalidArgument) {
  const auto f = floats_of(4);
  auto i = f;
  i.code = XHAL_CODE_INT;
  struct Wrong {
    const char* what;
    std::vector<xhal_tensor_desc> operands;
  };
  const Wrong all[] = {{"x of i32, y and out of f32", {i, f, f}},
                       {"y of i32, x and out of f32", {f, i, f}},
                       {"x of f32, y and out of i32", {f, i, i}},
                       {"y of f32, x and out of i32", {i, f, i}}};
  for (const auto& wrong : all) {
    const auto status = prepare(XHAL_OP_axpby, {1, 1, 1}, wrong.operands);
    EXPECT_EQ(status, XHAL_ERR_INVALID_ARGUMENT)
        << "axpby with " << wrong.what << ": " << xhal_status_name(status) << ": "
        << (status < 0 ? last_error_text() : "accepted");
  }
}

TEST(Refusal, OfElementsOfSeveralLanesHasAText) {
  for (const size_t wrong : {0, 1}) {
    for (const auto lanes : {uint16_t{2}, uint16_t{4}, uint16_t{257}}) {
      std::vector<xhal_tensor_desc> operands(2, floats_of(4));
      operands[wrong].lanes = lanes;
      const auto status = prepare(XHAL_OP_strided_copy, {1, 1}, operands);
      EXPECT_TRUE(status == XHAL_ERR_UNSUPPORTED || status == XHAL_ERR_INVALID_ARGUMENT)
          << "operand " << wrong + 1 << " of " << lanes
          << " lanes, where the catalogue has 1: " << xhal_status_name(status);
      EXPECT_TRUE(explains_itself(status));
    }
  }
}

}  // namespace
}  // namespace xhal::cts
