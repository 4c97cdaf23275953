// SPDX-License-Identifier: Apache-2.0
// The three operators of the core profile, in the dtypes that every device has, over
// every memory layout.
#include <atomic>
#include <thread>

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
  auto p = core_problem(id, maker, sizes);
  cts::Run run;
  run.layout = layout;
  run.negative_strides = true;
  run.scalars_by_address = layout == Case::odd;
  const auto outcome = run_problem(p, ref::pointwise, run);
  EXPECT_FALSE(outcome.refused) << "every device computes this one; it refused: " << outcome.reason;
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

xhal_tensor_desc integers_of(int64_t size, uint8_t bits) {
  auto t = floats_of(size);
  t.code = XHAL_CODE_INT;
  t.bits = bits;
  return t;
}

xhal_status prepare_copy(const std::vector<xhal_tensor_desc>& operands, xhal_op** op) {
  return prepare_operator(XHAL_OP_strided_copy, operands, op);
}

TEST(CoreOperators, ShapesThatContradictTheCatalogueAreRefused) {
  xhal_op* op = nullptr;
  EXPECT_TRUE(
      fails_with(XHAL_ERR_INVALID_ARGUMENT, prepare_copy({floats_of(3), floats_of(4)}, &op)));
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, prepare_copy({floats_of(3)}, &op)));
  EXPECT_TRUE(
      fails_with(XHAL_ERR_INVALID_ARGUMENT, prepare_copy({floats_of(-1), floats_of(-1)}, &op)));
}

TEST(CoreOperators, TooManyDimensionsAreRefused) {
  auto t = floats_of(1);
  t.ndim = 9;
  xhal_op* op = nullptr;
  EXPECT_TRUE(fails_with(XHAL_ERR_INVALID_ARGUMENT, prepare_copy({t, t}, &op)));
}

TEST(CoreOperators, AnUnknownLayoutIsRefused) {
  auto t = floats_of(4);
  t.layout = 0x4711;
  xhal_op* op = nullptr;
  const auto status = prepare_copy({t, floats_of(4)}, &op);
  EXPECT_TRUE(status == XHAL_ERR_UNSUPPORTED || status == XHAL_ERR_INVALID_ARGUMENT)
      << xhal_status_name(status);
}

TEST(CoreOperators, LaunchingWithAWrongNumberOfAddressesIsRefused) {
  xhal_op* op = nullptr;
  ASSERT_TRUE(ok(prepare_copy({floats_of(4), floats_of(4)}, &op)));
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
  ASSERT_TRUE(ok(prepare_copy({floats_of(16), floats_of(16)}, &op)));
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
  struct Asked {
    uint32_t id, operands;
    double flops;  // of 16 elements
  };
  for (const auto& asked : {Asked{XHAL_OP_fill, 1, 0}, Asked{XHAL_OP_strided_copy, 2, 0},
                            Asked{XHAL_OP_axpby, 3, 3 * 16}}) {
    xhal_op* op = nullptr;
    ASSERT_TRUE(ok(prepare_operator(
        asked.id, std::vector<xhal_tensor_desc>(asked.operands, floats_of(16)), &op)));
    auto properties = versioned<xhal_op_properties>();
    xhal_operand_need needs[3] = {};
    ASSERT_TRUE(ok(xhal_op_query(op, &properties, needs, asked.operands)));
    const auto& name = operator_of(asked.id).name;
    EXPECT_NE(properties.flags & XHAL_OP_IS_DETERMINISTIC, 0u) << name;
    EXPECT_EQ(properties.flops, asked.flops) << name << " of 16 f32";
    EXPECT_EQ(properties.bytes, asked.operands * 64.0) << name << " of 16 f32";
    EXPECT_TRUE(ok(xhal_op_destroy(op)));
  }
}

// Behind the room for the needs lies what must stay as it is; with no room there is no array.
TEST(CoreOperators, AQueryWritesNoMoreNeedsThanThereIsRoomFor) {
  constexpr uint8_t kCanary = 0x5a;
  xhal_op* op = nullptr;
  ASSERT_TRUE(
      ok(prepare_operator(XHAL_OP_axpby, {floats_of(16), floats_of(16), floats_of(16)}, &op)));
  for (uint32_t room = 0; room <= 4; ++room) {
    std::vector<uint8_t> bytes(6 * sizeof(xhal_operand_need), kCanary);
    auto properties = versioned<xhal_op_properties>();
    const auto status =
        xhal_op_query(op, &properties, reinterpret_cast<xhal_operand_need*>(bytes.data()), room);
    // An array without room for all of them: what fits is given, or the question is refused.
    const bool refused = room < 3 && status == XHAL_ERR_INVALID_ARGUMENT;
    EXPECT_TRUE(refused || ok(status)) << "room for " << room;
    const size_t allowed = std::min(room, 3u) * sizeof(xhal_operand_need);
    const std::vector<uint8_t> behind(bytes.begin() + static_cast<ptrdiff_t>(allowed), bytes.end());
    EXPECT_TRUE(same(behind, std::vector<uint8_t>(behind.size(), kCanary)))
        << "behind the needs that were asked for: room for " << room
        << ", of an operator with 3 operands";
  }
  auto properties = versioned<xhal_op_properties>();
  EXPECT_TRUE(ok(xhal_op_query(op, &properties, nullptr, 0)));
  EXPECT_TRUE(ok(xhal_op_destroy(op)));
}

// fill, or axpby of 10 and 0, with `value` in memory as a scalar of dtype `from`; false when the
// plugin does not take scalars of that dtype. Behind the scalar there is something else, so that
// one that is read too wide shows.
bool reads_scalar(uint32_t id, DType from, double value, DType to) {
  auto t = floats_of(4);
  t.code = ref::code_of(to);
  const bool is_fill = id == XHAL_OP_fill;
  xhal_op* op = nullptr;
  EXPECT_TRUE(ok(prepare_operator(id, std::vector<xhal_tensor_desc>(is_fill ? 1 : 3, t), &op)));
  if (op == nullptr) return true;
  std::vector<uint8_t> scalar_bytes(16, 0xa5), tens(16), zeros(16);
  ref::encode(from, value, scalar_bytes.data());
  for (size_t i = 0; i < 4; ++i) ref::encode(to, 10, tens.data() + 4 * i);
  const Buffer scalar_at(16), x(16), y(16), out(16);
  scalar_at.write(scalar_bytes.data(), 16);
  x.write(tens.data(), 16);
  y.write(zeros.data(), 16);
  xhal_scalar scalar{};
  scalar.kind = XHAL_SCALAR_ADDRESS;
  scalar.code = ref::code_of(from);
  scalar.bits = static_cast<uint8_t>(ref::size_of(from) * 8);
  scalar.value.address = scalar_at.address();
  const uint64_t of_fill[] = {out.address()},
                 of_axpby[] = {x.address(), y.address(), out.address()};
  const Stream stream;
  const auto status =
      xhal_op_launch(stream, op, is_fill ? of_fill : of_axpby, is_fill ? 1 : 3, &scalar, 1, 0);
  if (status != XHAL_ERR_UNSUPPORTED && status != XHAL_ERR_INVALID_ARGUMENT) {
    EXPECT_TRUE(ok(status));
    EXPECT_TRUE(stream.finishes());
    const auto bytes = out.read();
    const double meant = ref::round_to(to, value), wanted = is_fill ? meant : 10 * meant;
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(ref::decode(to, bytes.data() + 4 * i), wanted)
          << operator_of(id).name << " in " << ref::name_of(to) << " with a scalar of "
          << ref::name_of(from) << " by address, which is " << value;
    }
  }
  EXPECT_TRUE(ok(xhal_op_destroy(op)));
  return status == XHAL_OK;
}

TEST(CoreOperators, AScalarByAddressIsReadInEveryDtypeThatIsAccepted) {
  int accepted = 0;
  for (const DType from : {DType::f32, DType::f64, DType::bf16, DType::f16, DType::i8, DType::u8,
                           DType::i16, DType::i32, DType::i64, DType::u32}) {
    const double value = ref::is_float(from) ? -2.5 : ref::is_unsigned(from) ? 3 : -3;
    for (const DType to : {DType::f32, DType::i32}) {
      accepted += reads_scalar(XHAL_OP_fill, from, value, to);
      accepted += reads_scalar(XHAL_OP_axpby, from, value, to);
    }
  }
  EXPECT_GT(accepted, 0) << "scalars by address, of any dtype";
}

TEST(CoreOperators, IntegersOf64BitsAreCopiedExactly) {
  const std::vector<int64_t> values = {
      (int64_t{1} << 53) + 1, -(int64_t{1} << 53) - 1, INT64_MAX, INT64_MIN, INT64_MAX - 1, 0};
  const auto count = static_cast<int64_t>(values.size());
  const auto t = integers_of(count, 64);
  xhal_op* op = nullptr;
  const auto status = prepare_copy({t, t}, &op);
  if (status == XHAL_ERR_UNSUPPORTED) GTEST_SKIP() << last_error_text();
  ASSERT_TRUE(ok(status));
  const Buffer from(values.size() * 8), to(values.size() * 8);
  from.write(values.data(), from.size());
  const Stream stream;
  const uint64_t addresses[] = {from.address(), to.address()};
  ASSERT_TRUE(ok(xhal_op_launch(stream, op, addresses, 2, nullptr, 0, 0)));
  ASSERT_TRUE(stream.finishes());
  EXPECT_TRUE(same(as<int64_t>(to.read()), values));
  EXPECT_TRUE(ok(xhal_op_destroy(op)));
}

TEST(CoreOperators, IntegersOf64BitsAreFilledExactly) {
  xhal_op* op = nullptr;
  const auto status = prepare_operator(XHAL_OP_fill, {integers_of(2, 64)}, &op);
  if (status == XHAL_ERR_UNSUPPORTED) GTEST_SKIP() << last_error_text();
  ASSERT_TRUE(ok(status));
  const Buffer to(16);
  const Stream stream;
  const uint64_t address = to.address();
  for (const int64_t value : {(int64_t{1} << 53) + 1, INT64_MAX, INT64_MIN}) {
    xhal_scalar scalar{};
    scalar.kind = XHAL_SCALAR_INT;
    scalar.value.i = value;
    ASSERT_TRUE(ok(xhal_op_launch(stream, op, &address, 1, &scalar, 1, 0)));
    ASSERT_TRUE(stream.finishes());
    EXPECT_TRUE(same(as<int64_t>(to.read()), std::vector<int64_t>(2, value)));
  }
  EXPECT_TRUE(ok(xhal_op_destroy(op)));
}

// One prepared operator, a stream for each thread, another address and value in each launch.
TEST(CoreOperators, LaunchesOfSeveralThreadsDoNotMix) {
  constexpr int64_t kThreads = 4, kLaunches = 200, kBytes = 64;
  xhal_op* op = nullptr;
  ASSERT_TRUE(ok(prepare_operator(XHAL_OP_fill, {integers_of(kBytes / 4, 32)}, &op)));
  const Buffer all(kThreads * kLaunches * kBytes);
  std::atomic<int> failed = 0;
  std::vector<std::thread> threads;
  for (int64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const Stream stream;
      for (int64_t i = 0; i < kLaunches; ++i) {
        const int64_t place = t * kLaunches + i;
        const uint64_t address = all.address() + static_cast<uint64_t>(place * kBytes);
        xhal_scalar value{};
        value.kind = XHAL_SCALAR_INT;
        value.value.i = place;
        failed += xhal_op_launch(stream, op, &address, 1, &value, 1, 0) != XHAL_OK;
      }
      failed += !stream.finishes();
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(failed, 0);
  const auto values = as<int32_t>(all.read());
  for (size_t i = 0; i < values.size(); ++i)
    ASSERT_EQ(values[i], static_cast<int32_t>(i / (kBytes / 4))) << "of the launch of that number";
  EXPECT_TRUE(ok(xhal_op_destroy(op)));
}

// The launch has been submitted; the memory that its scalar lies in is written before it runs.
TEST(CoreOperators, AScalarByAddressIsReadWhenTheOperatorRuns) {
  xhal_op* op = nullptr;
  ASSERT_TRUE(ok(prepare_operator(XHAL_OP_fill, {integers_of(4, 32)}, &op)));
  const Buffer to(16), scalar_at(8);
  const int64_t early = 11, late = 22;
  scalar_at.write(&early, 8);
  const Stream stream;
  {
    const Busy busy(stream);
    ASSERT_TRUE(ok(xhal_stream_fill(stream, scalar_at.address(), 8, late, 8)));
    xhal_scalar value{};
    value.kind = XHAL_SCALAR_ADDRESS;
    value.code = XHAL_CODE_INT;
    value.bits = 64;
    value.value.address = scalar_at.address();
    const uint64_t address = to.address();
    ASSERT_TRUE(ok(xhal_op_launch(stream, op, &address, 1, &value, 1, 0)));
  }
  ASSERT_TRUE(stream.finishes());
  EXPECT_TRUE(same(as<int32_t>(to.read()), std::vector<int32_t>(4, late)));
  EXPECT_TRUE(ok(xhal_op_destroy(op)));
}

TEST(CoreOperators, ADestroyedOperatorStillRunsWhatWasSubmitted) {
  const auto bytes = counting(64);
  const Buffer from(64), to(64);
  from.write(bytes.data(), 64);
  const Stream stream;
  {
    const Busy busy(stream);
    xhal_op* op = nullptr;
    ASSERT_TRUE(ok(prepare_copy({floats_of(16), floats_of(16)}, &op)));
    const uint64_t addresses[] = {from.address(), to.address()};
    ASSERT_TRUE(ok(xhal_op_launch(stream, op, addresses, 2, nullptr, 0, 0)));
    ASSERT_TRUE(ok(xhal_op_destroy(op)));
    xhal_op* other = nullptr;  // whose memory may be the destroyed one's
    ASSERT_TRUE(ok(prepare_operator(XHAL_OP_fill, {floats_of(2)}, &other)));
    ASSERT_TRUE(ok(xhal_op_destroy(other)));
  }
  ASSERT_TRUE(stream.finishes());
  EXPECT_TRUE(same(to.read(), bytes));
}

}  // namespace
}  // namespace xhal::cts
