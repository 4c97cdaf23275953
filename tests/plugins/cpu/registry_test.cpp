// SPDX-License-Identifier: Apache-2.0
// registry_test.cpp: requests are checked against the catalogue, scalars get their defaults.
#include <gmock/gmock.h>

#include "kernel_harness.hpp"

namespace xhal::cpu::test {
namespace {

using ::testing::HasSubstr;

TEST(Registry, KnowsTheNamesOfTheCatalogue) {
  EXPECT_EQ(op_name(XHAL_OP_add), "add");
  EXPECT_EQ(op_name(XHAL_OP_multi_adamw), "multi_adamw");
  EXPECT_EQ(op_name(9999), "");
}

TEST(Registry, UnknownOperatorsAndVersionsAreUnsupported) {
  Call call(9999);
  EXPECT_EQ(call.run(), XHAL_ERR_UNSUPPORTED);
  EXPECT_THAT(call.error, HasSubstr("operator 9999 is not in this plugin's catalogue"));
  const Tensor t(DType::f32, {2});
  const xhal_tensor_desc operands[] = {t.desc(), t.desc()};
  const uint32_t sizes[] = {1, 1};
  xhal_op_info info{};
  info.id = XHAL_OP_neg;
  info.version = 2;
  info.group_count = info.operand_count = 2;
  info.group_sizes = sizes;
  info.operands = operands;
  Refusal refusal;
  EXPECT_EQ(prepare_op(info, refusal), nullptr);
  EXPECT_THAT(refusal.text, HasSubstr("`neg` is known up to version 1; version 2 was asked for"));
}

struct Bad {
  const char* what;
  std::function<void(xhal_op_info&, xhal_tensor_desc*, uint32_t*)> spoil;
  xhal_status status;
  uint32_t operand;
  const char* text;
};

TEST(Registry, RequestsThatContradictTheCatalogueAreRefusedWithTheOperandNamed) {
  static const xhal_attribute kAttribute{0, XHAL_ATTR_INT, {}, 1};
  const Bad kBad[] = {
      {"group count", [](auto& i, auto*, auto*) { i.group_count = 2; }, XHAL_ERR_INVALID_ARGUMENT,
       0, "`mul` has 3 operand groups; 2 were given"},
      {"too many in a group", [](auto&, auto*, auto* s) { s[1] = 2; }, XHAL_ERR_INVALID_ARGUMENT, 2,
       "group `b` of `mul` has 2 operands; it takes none or one"},
      {"missing output",
       [](auto& i, auto*, auto* s) {
         s[2] = 0;
         i.operand_count = 2;
       },
       XHAL_ERR_INVALID_ARGUMENT, 3, "group `out` of `mul` has 0 operands; it takes one"},
      {"operand count", [](auto& i, auto*, auto*) { i.operand_count = 2; },
       XHAL_ERR_INVALID_ARGUMENT, 0, "operand_count"},
      {"dimensions", [](auto&, auto* t, auto*) { t[1].ndim = 9; }, XHAL_ERR_INVALID_ARGUMENT, 2,
       "`b` of `mul` has 9 dimensions"},
      {"negative size", [](auto&, auto* t, auto*) { t[0].sizes[0] = -4; },
       XHAL_ERR_INVALID_ARGUMENT, 1, "impossible size in dimension 0: -4"},
      {"absurd size", [](auto&, auto* t, auto*) { t[0].sizes[0] = t[0].sizes[1] = INT64_MAX / 2; },
       XHAL_ERR_INVALID_ARGUMENT, 1, "impossible size"},
      {"dtype", [](auto&, auto* t, auto*) { t[2].code = XHAL_CODE_UINT; },
       XHAL_ERR_INVALID_ARGUMENT, 3, "`out` of `mul` cannot be u32"},
      {"unknown dtype", [](auto&, auto* t, auto*) { t[0].code = 77; }, XHAL_ERR_INVALID_ARGUMENT, 1,
       "cannot be other (code 77, 32 bits)"},
      {"layout", [](auto&, auto* t, auto*) { t[0].layout = 3; }, XHAL_ERR_UNSUPPORTED, 1,
       "must be strided"},
      {"absent", [](auto&, auto* t, auto*) { t[1].flags = XHAL_TENSOR_ABSENT; },
       XHAL_ERR_INVALID_ARGUMENT, 2, "`b` of `mul` is marked as absent"},
      {"attribute",
       [](auto& i, auto*, auto*) {
         i.attributes = &kAttribute;
         i.attribute_count = 1;
       },
       XHAL_ERR_INVALID_ARGUMENT, 0, "`mul` has no attribute 0; it has 0 in all"},
  };
  for (const Bad& bad : kBad) {
    const Tensor t(DType::f32, {2, 3});
    xhal_tensor_desc operands[] = {t.desc(), t.desc(), t.desc()};
    uint32_t sizes[] = {1, 1, 1};
    xhal_op_info info{};
    info.id = XHAL_OP_mul;
    info.group_count = info.operand_count = 3;
    info.group_sizes = sizes;
    info.operands = operands;
    bad.spoil(info, operands, sizes);
    Refusal refusal;
    EXPECT_EQ(prepare_op(info, refusal), nullptr) << bad.what;
    EXPECT_EQ(refusal.status, bad.status) << bad.what;
    EXPECT_EQ(refusal.operand, bad.operand) << bad.what;
    EXPECT_THAT(refusal.text, HasSubstr(bad.text));
  }
}

TEST(Registry, AttributesOfTheWrongKindAreRefused) {
  Call call(XHAL_OP_gelu);
  const Tensor t(DType::f32, {2});
  EXPECT_EQ(call.add(t).add(t).attr_float(0, 1).run(), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_THAT(call.error, HasSubstr("attribute `tanh` of `gelu` has the wrong kind"));
}

TEST(Registry, ScalarsGetTheirDefaultsAndAreReadFromAddresses) {
  Scalar out[kMaxScalars];
  xhal_scalar given[2]{};
  given[0].kind = XHAL_SCALAR_FLOAT;
  given[0].value.f = 0.5;
  const int32_t beta = -7;
  given[1].kind = XHAL_SCALAR_ADDRESS;
  given[1].code = XHAL_CODE_INT;
  given[1].bits = 32;
  given[1].value.address = reinterpret_cast<uint64_t>(&beta);
  ASSERT_TRUE(fill_scalars(XHAL_OP_multi_adamw, given, out));
  EXPECT_EQ(out[0].as_double(), 0.5);
  EXPECT_EQ(out[1].as_double(), -7);
  EXPECT_EQ(out[2].as_double(), 0.999);
  EXPECT_EQ(out[4].as_double(), 1e-8);
  EXPECT_TRUE(out[5].is_int);
  EXPECT_EQ(out[5].as_double(), 1);
  xhal_scalar many[4]{};
  EXPECT_FALSE(fill_scalars(XHAL_OP_add, many, out));
  given[1].bits = 12;
  EXPECT_FALSE(fill_scalars(XHAL_OP_multi_adamw, given, out));
}

TEST(Registry, CostsFollowTheCatalogue) {
  const Tensor a(DType::f32, {10, 20}), b(DType::bf16, {10, 20});
  Call call(XHAL_OP_add);
  const Prepared op = call.add(a).add(b).add(a).prepare();
  ASSERT_NE(op, nullptr);
  EXPECT_EQ(op->flops, 2 * 200);
  EXPECT_EQ(op->bytes, 200 * (4 + 2 + 4));
}

}  // namespace
}  // namespace xhal::cpu::test
