// SPDX-License-Identifier: Apache-2.0
// The three operators of the core profile, in the dtypes that every device has, over
// every memory layout.
#include "harness/cts.hpp"
#include "operators/operator_test.hpp"

namespace xhal::cts {
namespace {

using ref::DType;
using ref::Problem;

class CoreOperator : public testing::TestWithParam<std::tuple<uint32_t, DType, Case>> {};

TEST_P(CoreOperator, AgreesWithTheReference) {
  const auto [id, dtype, layout] = GetParam();
  Maker maker(layout, dtype, id * 100 + static_cast<uint32_t>(layout));
  const auto sizes = maker.shape({4, 6, 16});
  Problem p;
  p.op = id;
  if (id == XHAL_OP_fill) p.scalars = {int64_t{5}};
  if (id == XHAL_OP_strided_copy) p.inputs = {{maker.any(sizes)}};
  if (id == XHAL_OP_axpby) {
    p.inputs = {{maker.any(sizes)}, {maker.any(sizes)}};
    p.scalars = {int64_t{3}, int64_t{2}};
  }
  p.outputs = {{output(dtype, sizes)}};
  cts::Run run;
  run.layout = layout;
  run.negative_strides = true;
  run.scalars_by_address = layout == Case::odd;
  const auto outcome = run_problem(p, ref::pointwise, run);
  EXPECT_FALSE(outcome.refused) << outcome.reason;
}

std::string name_of_parameter(const testing::TestParamInfo<CoreOperator::ParamType>& info) {
  return operator_of(std::get<0>(info.param)).name + "_" +
         std::string(ref::name_of(std::get<1>(info.param))) + "_" +
         name_of(std::get<2>(info.param));
}

INSTANTIATE_TEST_SUITE_P(Core, CoreOperator,
                         testing::Combine(testing::Values(uint32_t{XHAL_OP_fill},
                                                          uint32_t{XHAL_OP_strided_copy},
                                                          uint32_t{XHAL_OP_axpby}),
                                          testing::Values(DType::f32, DType::i32),
                                          testing::Values(Case::plain, Case::odd, Case::strided,
                                                          Case::broadcast, Case::empty)),
                         name_of_parameter);

TEST(CoreOperators, CopyConvertsBetweenFloatAndInteger) {
  Maker maker(Case::plain, DType::f32, 1);
  Problem p;
  p.op = XHAL_OP_strided_copy;
  p.inputs = {{maker.real({1000}, -100, 100)}};
  p.outputs = {{output(DType::i32, {1000})}};
  EXPECT_FALSE(run_problem(p, ref::pointwise, {}).refused);
}

TEST(CoreOperators, AxpbyRunsInPlace) {
  for (size_t alias = 0; alias < 2; ++alias) {
    Maker maker(Case::aliased, DType::f32, 2);
    Problem p;
    p.op = XHAL_OP_axpby;
    p.scalars = {3.0, 2.0};
    p.inputs = {{maker.real({999})}, {maker.real({999})}};
    p.outputs = {{output(DType::f32, {999})}};
    cts::Run run;
    run.layout = Case::aliased;
    run.alias = alias;
    EXPECT_FALSE(run_problem(p, ref::pointwise, run).refused);
  }
}

TEST(CoreOperators, AxpbyWithoutYAddsBeta) {
  Maker maker(Case::plain, DType::f32, 3);
  Problem p;
  p.op = XHAL_OP_axpby;
  p.scalars = {0.5, 7.0};
  p.inputs = {{maker.real({100})}, {}};
  p.outputs = {{output(DType::f32, {100})}};
  EXPECT_FALSE(run_problem(p, ref::pointwise, {}).refused);
}

TEST(CoreOperators, ScalarsLeftOutHaveTheirDefaults) {
  Maker maker(Case::plain, DType::f32, 4);
  Problem p;
  p.op = XHAL_OP_axpby;
  p.inputs = {{maker.real({100})}, {maker.real({100})}};
  p.outputs = {{output(DType::f32, {100})}};
  EXPECT_FALSE(run_problem(p, ref::pointwise, {}).refused);
}

TEST(CoreOperators, EightDimensionsAreNotTooMany) {
  Maker maker(Case::strided, DType::f32, 5);
  const ref::Sizes sizes = {2, 3, 2, 3, 2, 3, 2, 3};
  Problem p;
  p.op = XHAL_OP_strided_copy;
  p.inputs = {{maker.real(sizes)}};
  p.outputs = {{output(DType::f32, sizes)}};
  cts::Run run;
  run.layout = Case::strided;
  EXPECT_FALSE(run_problem(p, ref::pointwise, run).refused);
}

xhal_tensor_desc vector_of(int64_t size) {
  xhal_tensor_desc t{};
  t.code = XHAL_CODE_FLOAT;
  t.bits = 32;
  t.lanes = 1;
  t.ndim = 1;
  t.sizes[0] = size;
  t.strides[0] = 1;
  return t;
}

xhal_status prepare_copy(const std::vector<xhal_tensor_desc>& operands, xhal_op** op) {
  const std::vector<uint32_t> groups(operands.size(), 1);
  auto info = versioned<xhal_op_info>();
  info.id = XHAL_OP_strided_copy;
  info.group_count = info.operand_count = static_cast<uint32_t>(operands.size());
  info.group_sizes = groups.data();
  info.operands = operands.data();
  return xhal_op_prepare(context(), &info, op);
}

TEST(CoreOperators, ShapesThatContradictTheCatalogueAreRefused) {
  xhal_op* op = nullptr;
  EXPECT_TRUE(
      fails_with(XHAL_ERR_INVALID_ARGUMENT, prepare_copy({vector_of(3), vector_of(4)}, &op)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, prepare_copy({vector_of(3)}, &op)));
  EXPECT_TRUE(
      fails_with(XHAL_ERR_INVALID_ARGUMENT, prepare_copy({vector_of(-1), vector_of(-1)}, &op)));
}

TEST(CoreOperators, TooManyDimensionsAreRefused) {
  auto t = vector_of(1);
  t.ndim = 9;
  xhal_op* op = nullptr;
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, prepare_copy({t, t}, &op)));
}

TEST(CoreOperators, AnUnknownLayoutIsRefused) {
  auto t = vector_of(4);
  t.layout = 0x4711;
  xhal_op* op = nullptr;
  const auto status = prepare_copy({t, vector_of(4)}, &op);
  EXPECT_TRUE(status == XHAL_ERR_UNSUPPORTED || status == XHAL_ERR_INVALID_ARGUMENT)
      << xhal_status_name(status);
}

TEST(CoreOperators, LaunchingWithAWrongNumberOfAddressesIsRefused) {
  xhal_op* op = nullptr;
  ASSERT_TRUE(ok(prepare_copy({vector_of(4), vector_of(4)}, &op)));
  const Buffer buffer(64);
  const Stream stream;
  const uint64_t address = buffer.address();
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT,
                         xhal_op_launch(stream, op, &address, 1, nullptr, 0, 0)));
  EXPECT_TRUE(stream.finishes());
  EXPECT_TRUE(ok(xhal_op_destroy(op)));
}

TEST(CoreOperators, APreparedOperatorServesManyStreamsAndLaunches) {
  xhal_op* op = nullptr;
  ASSERT_TRUE(ok(prepare_copy({vector_of(16), vector_of(16)}, &op)));
  const Buffer from(64), to(64 * 8);
  const auto bytes = counting(64);
  from.write(bytes.data(), 64);
  {
    const Stream a, b;
    for (uint64_t i = 0; i < 8; ++i) {
      const uint64_t addresses[] = {from.address(), to.address() + i * 64};
      ASSERT_TRUE(ok(xhal_op_launch(i % 2 == 0 ? a : b, op, addresses, 2, nullptr, 0, 0)));
    }
    ASSERT_TRUE(ok(xhal_op_destroy(op))) << "work already submitted still runs";
    EXPECT_TRUE(a.finishes());
    EXPECT_TRUE(b.finishes());
  }
  const auto result = to.read();
  for (size_t i = 0; i < result.size(); ++i) ASSERT_EQ(result[i], bytes[i % 64]);
}

TEST(CoreOperators, PropertiesTellDeterminismAndCost) {
  xhal_op* op = nullptr;
  ASSERT_TRUE(ok(prepare_copy({vector_of(16), vector_of(16)}, &op)));
  auto properties = versioned<xhal_op_properties>();
  xhal_operand_need needs[2] = {};
  ASSERT_TRUE(ok(xhal_op_query(op, &properties, needs, 2)));
  EXPECT_NE(properties.flags & XHAL_OP_IS_DETERMINISTIC, 0u);
  EXPECT_TRUE(ok(xhal_op_destroy(op)));
}

}  // namespace
}  // namespace xhal::cts
