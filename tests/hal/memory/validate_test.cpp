// SPDX-License-Identifier: Apache-2.0
// The layer `validate` finds addresses that are wrong before a device touches them: unknown, freed,
// or beyond the block they begin in. Both guides promise it.
#include "../faulty/faulty_test.hpp"

namespace xhal::test {
namespace {

class ValidateTest : public FaultyTest, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    setenv("XHAL_LAYERS", "validate", 1);
    FaultyTest::SetUp();
    const auto& d = device(GetParam());
    stream_ = d.stream();
    pool_ = d.pool();
    check(xhal_pool_alloc(pool_.get(), stream_.get(), kBytes, str("x"), &x_));
    check(xhal_pool_alloc(pool_.get(), stream_.get(), kBytes, str("y"), &y_));
    fill_ = prepare(d.context(), XHAL_OP_fill, {{tensor(XHAL_CODE_FLOAT, 32, {kElements})}});
  }
  void TearDown() override {
    fill_.reset();
    pool_.release();  // blocks may be out: it ends with its context
    stream_.reset();
    FaultyTest::TearDown();
    unsetenv("XHAL_LAYERS");
  }
  xhal_status launch(const Op& op, uint64_t address) {
    const auto value = scalar(1.0);
    return xhal_op_launch(stream_.get(), op.get(), &address, 1, &value, 1, 0);
  }
  void expect_refused(xhal_status status, const char* what) {
    EXPECT_EQ(status, XHAL_ERR_INVALID_ARGUMENT) << what << ": " << error_text();
    EXPECT_THAT(error_text(), HasSubstr("0x")) << what << ": the text names the address";
    EXPECT_OK(xhal_stream_synchronize(stream_.get(), kSoon)) << what;
  }

  static constexpr int64_t kElements = 1024;
  static constexpr uint64_t kBytes = 4096;
  // More than malloc takes from its heap, or asan keeps in quarantine: freed, it is no memory of
  // the process any more.
  static constexpr uint64_t kMapped = 512 << 20;
  static constexpr uint64_t kNowhere = 0x10000;
  Stream stream_;
  Pool pool_;
  Op fill_;
  uint64_t x_ = 0, y_ = 0;
  std::vector<float> host_ = std::vector<float>(kElements);
};

TEST_P(ValidateTest, ACopyToOrFromAnUnknownAddressIsRefused) {
  const auto host = address_of(host_.data());
  expect_refused(xhal_stream_copy(stream_.get(), kNowhere, host, kBytes), "to nowhere");
  expect_refused(xhal_stream_copy(stream_.get(), x_, kNowhere, kBytes), "from nowhere");
}

TEST_P(ValidateTest, ACopyOfFreedMemoryIsRefused) {
  const auto memory = alloc(device(GetParam()), kMapped);
  ASSERT_OK(xhal_memory_free(device(GetParam()).context(), memory));
  expect_refused(xhal_stream_copy(stream_.get(), x_, memory, kBytes), "from freed memory");
  expect_refused(xhal_stream_copy(stream_.get(), memory, x_, kBytes), "to freed memory");
}

TEST_P(ValidateTest, AFreedBlockOfAPoolIsRefused) {
  ASSERT_OK(xhal_pool_free(pool_.get(), y_, nullptr, 0));
  expect_refused(launch(fill_, y_), "an operator on a freed block");
  expect_refused(xhal_stream_fill(stream_.get(), y_, kBytes, 0, 1), "a fill of a freed block");
  expect_refused(xhal_stream_copy(stream_.get(), x_, y_, kBytes), "a copy of a freed block");
}

TEST_P(ValidateTest, WorkBeyondTheEndOfItsBlockIsRefused) {
  expect_refused(xhal_stream_fill(stream_.get(), x_, kBytes + 512, 0, 1), "a fill");
  expect_refused(xhal_stream_copy(stream_.get(), x_ + kBytes / 2, address_of(host_.data()), kBytes),
                 "a copy");
  expect_refused(launch(fill_, x_ + kBytes / 2), "an operator");
}

TEST_P(ValidateTest, AnOperatorOutsideOfEveryAllocationIsRefused) {
  expect_refused(launch(fill_, kNowhere), "an unknown address");
  xhal_pointer_info info{};
  ASSERT_OK(xhal_pointer_query(x_, &info));
  expect_refused(launch(fill_, info.base + info.size_bytes - kBytes / 2), "the end of the slab");
  const auto memory = alloc(device(GetParam()), kMapped);
  ASSERT_OK(xhal_memory_free(device(GetParam()).context(), memory));
  expect_refused(launch(fill_, memory), "freed memory");
  expect_refused(launch(fill_, address_of(host_.data())), "unregistered host memory");
}

TEST_P(ValidateTest, AnOperatorThatRunsBackwardsOutOfItsBlockIsRefused) {
  auto backwards = tensor(XHAL_CODE_FLOAT, 32, {kElements}, {-1});
  xhal_pointer_info info{};
  ASSERT_OK(xhal_pointer_query(x_, &info));
  Op op;
  try {
    op = prepare(device(GetParam()).context(), XHAL_OP_fill, {{backwards}});
  } catch (const Error& e) {
    GTEST_SKIP() << "the plugin takes no negative strides: " << e.what();
  }
  expect_refused(launch(op, info.base), "below the slab");
}

TEST_P(ValidateTest, ACorrectProgramIsNotDisturbed) {
  EXPECT_OK(launch(fill_, x_));
  EXPECT_OK(xhal_stream_copy(stream_.get(), y_, x_, kBytes));
  EXPECT_EQ(read<float>(stream_.get(), y_, kElements), std::vector<float>(kElements, 1.0f));
  EXPECT_OK(xhal_stream_fill(stream_.get(), x_ + 512, kBytes - 512, 0, 8));
  EXPECT_OK(xhal_stream_synchronize(stream_.get(), kSoon));
}

// Which operands an output may lie on is the catalogue's word, input by input: the cpu has the
// operators to try it with.
class ValidateAliasTest : public ValidateTest {
 protected:
  using Groups = std::vector<std::vector<xhal_tensor_desc>>;

  static xhal_tensor_desc vector_of_floats() { return tensor(XHAL_CODE_FLOAT, 32, {kElements}); }
  xhal_status run(uint32_t id, const Groups& groups, const std::vector<uint64_t>& addresses) {
    const Op op = prepare(device(GetParam()).context(), id, groups);
    const auto status = xhal_op_launch(stream_.get(), op.get(), addresses.data(),
                                       static_cast<uint32_t>(addresses.size()), nullptr, 0, 0);
    EXPECT_OK(xhal_stream_synchronize(stream_.get(), kSoon));
    return status;
  }
};

TEST_P(ValidateAliasTest, AnOutputOnAnInputThatTheCatalogueDoesNotNameIsRefused) {
  const auto t = vector_of_floats();
  // lerp: "out=a"; softmax_grad (grad, out -> din): "din=grad".
  EXPECT_OK(run(XHAL_OP_lerp, {{t}, {t}, {}, {t}}, {x_, y_, x_}));
  EXPECT_EQ(run(XHAL_OP_lerp, {{t}, {t}, {}, {t}}, {x_, y_, y_}), XHAL_ERR_OVERLAP);
  EXPECT_THAT(error_text(), HasSubstr("output 2 overlaps operand 1"));
  EXPECT_THAT(error_text(), HasSubstr("only operand 0"));
  EXPECT_OK(run(XHAL_OP_softmax_grad, {{t}, {t}, {t}}, {x_, y_, x_}));
  EXPECT_EQ(run(XHAL_OP_softmax_grad, {{t}, {t}, {t}}, {x_, y_, y_}), XHAL_ERR_OVERLAP);
  EXPECT_EQ(run(XHAL_OP_eq, {{t}, {t}, {tensor(XHAL_CODE_BOOL, 8, {kElements})}}, {x_, y_, y_}),
            XHAL_ERR_OVERLAP);
  EXPECT_THAT(error_text(), HasSubstr("no alias"));
}

TEST_P(ValidateAliasTest, AnOutputMayLieOnTheSecondInputWhenTheFirstIsAScalar) {
  const auto t = vector_of_floats();
  EXPECT_OK(run(XHAL_OP_add, {{}, {t}, {t}}, {x_, x_}));
  EXPECT_OK(run(XHAL_OP_add, {{t}, {}, {t}}, {x_, x_}));
  EXPECT_OK(run(XHAL_OP_add, {{t}, {t}, {t}}, {x_, y_, y_}));
}

TEST_P(ValidateAliasTest, APreparedOperatorNamesAnInputThatIsThere) {
  const auto t = vector_of_floats();
  const Op op = prepare(device(GetParam()).context(), XHAL_OP_add, Groups{{}, {t}, {t}});
  xhal_op_properties properties{};
  properties.struct_size = sizeof properties;
  xhal_operand_need needs[2] = {};
  ASSERT_OK(xhal_op_query(op.get(), &properties, needs, 2));
  EXPECT_EQ(needs[1].may_alias, 1u) << "1 + operand 0, which is b: a is absent";
}

INSTANTIATE_TEST_SUITE_P(Plugins, ValidateAliasTest, testing::Values("cpu"));
INSTANTIATE_TEST_SUITE_P(Plugins, ValidateTest, testing::Values("template", "cpu"));

}  // namespace
}  // namespace xhal::test
