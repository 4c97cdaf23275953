// SPDX-License-Identifier: Apache-2.0
// What is larger than a counter of 16 bits, a staging buffer or a driver's largest transfer: it is
// done whole, to the last element and byte, and no further.
#include "harness/cts.hpp"
#include "operators/operator_test.hpp"

namespace xhal::cts {
namespace {

using ref::DType;
using ref::Problem;

class LargeOperator
    : public testing::TestWithParam<std::tuple<uint32_t, DType, std::pair<Case, ref::Sizes>>> {};

TEST_P(LargeOperator, ComputesEveryElement) {
  const auto& [id, dtype, shape] = GetParam();
  const auto& [layout, sizes] = shape;
  Maker maker(layout, dtype, id);
  auto p = core_problem(id, maker, sizes);
  cts::Run run;
  run.layout = layout;
  const auto outcome = run_problem(p, ref::pointwise, run);
  EXPECT_FALSE(outcome.refused) << "every device computes this one; it refused: " << outcome.reason;
}

std::string name_of_parameter(const testing::TestParamInfo<LargeOperator::ParamType>& info) {
  return operator_of(std::get<0>(info.param)).name + "_" +
         std::string(ref::name_of(std::get<1>(info.param))) + "_" +
         name_of(std::get<2>(info.param).first);
}

INSTANTIATE_TEST_SUITE_P(
    Core, LargeOperator,
    testing::Combine(testing::Values(uint32_t{XHAL_OP_fill}, uint32_t{XHAL_OP_strided_copy},
                                     uint32_t{XHAL_OP_axpby}),
                     testing::Values(DType::f32, DType::i32),
                     testing::Values(std::pair{Case::plain, ref::Sizes{70'001}},
                                     std::pair{Case::strided, ref::Sizes{7, 10'003}})),
    name_of_parameter);

// Odd, and more than a few of every power of two that a plugin may cut transfers at.
constexpr uint64_t kSize = (5 << 20) + 4099;
constexpr uint64_t kBehind = 64;       // must stay as it is
constexpr uint64_t kPart = 32 * 1024;  // what is known to arrive whole (Memory, Stream)
constexpr uint8_t kUntouched = 0xc3;

uint64_t pointer(const void* p) { return reinterpret_cast<uintptr_t>(p); }

// Between host and device in parts, so that the one large transfer of a test is what it names.
void copy_in_parts(uint64_t dst, uint64_t src, uint64_t size) {
  const Stream stream;
  for (uint64_t done = 0; done < size; done += kPart) {
    ASSERT_TRUE(ok(xhal_stream_copy(stream, dst + done, src + done, std::min(kPart, size - done))));
  }
  ASSERT_TRUE(stream.finishes());
}

void put(const Buffer& to, const std::vector<uint8_t>& bytes) {
  copy_in_parts(to.address(), pointer(bytes.data()), bytes.size());
}

std::vector<uint8_t> get(const Buffer& from) {
  std::vector<uint8_t> bytes(from.size());
  copy_in_parts(pointer(bytes.data()), from.address(), bytes.size());
  return bytes;
}

// What a transfer of kSize bytes leaves, where kUntouched was.
std::vector<uint8_t> with_what_is_behind(std::vector<uint8_t> bytes) {
  bytes.resize(kSize + kBehind, kUntouched);
  return bytes;
}

TEST(Large, ACopyToTheDeviceIsWhole) {
  const auto bytes = unrepeated(kSize);
  const Buffer to(kSize + kBehind);
  put(to, std::vector<uint8_t>(to.size(), kUntouched));
  const Stream stream;
  ASSERT_TRUE(ok(xhal_stream_copy(stream, to.address(), pointer(bytes.data()), kSize)));
  ASSERT_TRUE(stream.finishes());
  EXPECT_TRUE(same(get(to), with_what_is_behind(bytes))) << "5 MiB, host to device";
}

TEST(Large, ACopyOnTheDeviceIsWhole) {
  const auto bytes = unrepeated(kSize);
  const Buffer from(kSize), to(kSize + kBehind);
  put(from, bytes);
  put(to, std::vector<uint8_t>(to.size(), kUntouched));
  const Stream stream;
  ASSERT_TRUE(ok(xhal_stream_copy(stream, to.address(), from.address(), kSize)));
  ASSERT_TRUE(stream.finishes());
  EXPECT_TRUE(same(get(to), with_what_is_behind(bytes))) << "5 MiB, device to device";
}

TEST(Large, ACopyToTheHostIsWhole) {
  const auto bytes = unrepeated(kSize);
  const Buffer from(kSize);
  put(from, bytes);
  std::vector<uint8_t> to(kSize + kBehind, kUntouched);
  const Stream stream;
  ASSERT_TRUE(ok(xhal_stream_copy(stream, pointer(to.data()), from.address(), kSize)));
  ASSERT_TRUE(stream.finishes());
  EXPECT_TRUE(same(to, with_what_is_behind(bytes))) << "5 MiB, device to host";
}

TEST(Large, AFillIsWhole) {
  constexpr uint64_t kPattern = 0x8877665544332211;
  for (const uint32_t width : {1u, 2u, 4u, 8u}) {
    const uint64_t size = kSize / width * width;
    const Buffer to(kSize + kBehind);
    put(to, std::vector<uint8_t>(to.size(), kUntouched));
    const Stream stream;
    ASSERT_TRUE(ok(xhal_stream_fill(stream, to.address(), size, kPattern, width)));
    ASSERT_TRUE(stream.finishes());
    std::vector<uint8_t> wanted(size);
    for (size_t i = 0; i < size; ++i) wanted[i] = static_cast<uint8_t>(kPattern >> i % width * 8);
    EXPECT_TRUE(same(get(to), with_what_is_behind(wanted)))
        << "5 MiB of a pattern of " << width << " bytes";
  }
}

}  // namespace
}  // namespace xhal::cts
