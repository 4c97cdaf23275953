// SPDX-License-Identifier: Apache-2.0
// The reader of the catalogue: what its tables say, that mistakes in the grammar are found, and the
// check of a request. The list itself is judged by the conformance suite's own reader.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "xhal/half.hpp"
#include "xhal/op_check.hpp"
#include "xhal/shape.hpp"

namespace xhal::test {
namespace {

using catalogue::Arity;
using catalogue::Determinism;
using catalogue::find;
using testing::HasSubstr;
namespace grammar = catalogue::grammar;

// A mistake in ops.inc fails compilation, because these are evaluated by the compiler.
static_assert(find(XHAL_OP_layer_norm)->attribute("eps")->f == 1e-5);
static_assert(find(XHAL_OP_batch_norm)->attribute("momentum")->f == 0.1);
static_assert(find(XHAL_OP_nll_loss)->attribute("ignore_index")->i == -100);
static_assert(find(XHAL_OP_multi_adamw)->scalars()[2].f == 0.999);
static_assert(find(XHAL_OP_gemm)->flops.of(5, 7, 11) == 2 * 7 * 11);

TEST(Catalogue, FindsOperatorsByIdAndKnowsWhichItDoesNotHave) {
  for (const auto& op : catalogue::operators()) EXPECT_EQ(find(op.id), &op) << op.name;
  EXPECT_EQ(find(0), nullptr);
  EXPECT_EQ(find(9), nullptr) << "a gap";
  EXPECT_EQ(find(1u << 31), nullptr) << "a vendor's own";
  EXPECT_EQ(catalogue::name_of(XHAL_OP_rope), "rope");
  EXPECT_EQ(catalogue::name_of(9), "operator");
}

TEST(Catalogue, NamesEndWithZero) {
  for (const auto& op : catalogue::operators())
    EXPECT_EQ(std::strlen(op.name.data()), op.name.size()) << op.name;
}

TEST(Catalogue, GroupsHaveTheirArityTypesAndSide) {
  const auto& op = *find(XHAL_OP_where);
  ASSERT_EQ(op.group_count, 4);
  EXPECT_EQ(op.input_count, 3);
  EXPECT_EQ(op.groups()[0].name, "condition");
  EXPECT_EQ(op.groups()[0].arity, Arity::one);
  EXPECT_EQ(op.groups()[1].arity, Arity::optional);
  EXPECT_TRUE(op.groups()[0].takes(DType::boolean));
  EXPECT_FALSE(op.groups()[0].takes(DType::u8));
  EXPECT_TRUE(op.groups()[3].takes(DType::f64));
  EXPECT_TRUE(op.groups()[3].output);
  EXPECT_FALSE(op.groups()[3].takes(DType::other));
  EXPECT_EQ(find(XHAL_OP_cat)->groups()[0].arity, Arity::any);
}

TEST(Catalogue, DeterminismAndDefaultsOfScalars) {
  EXPECT_EQ(find(XHAL_OP_uniform)->determinism, Determinism::seed);
  EXPECT_EQ(find(XHAL_OP_gemm)->determinism, Determinism::yes);
  const auto scalars = find(XHAL_OP_bernoulli)->scalars();
  EXPECT_EQ(scalars[0].name, "p");
  EXPECT_FALSE(scalars[0].is_int);
  EXPECT_EQ(scalars[0].f, 0.5);
  EXPECT_TRUE(scalars[1].is_int);
}

struct Alias {
  uint32_t id;
  std::vector<uint32_t> sizes;
  uint32_t output;
  std::vector<uint32_t> inputs;
};

TEST(Catalogue, AnOutputHasTheSetOfInputsThatArePresent) {
  const Alias cases[] = {
      {XHAL_OP_add, {1, 1, 1}, 2, {0, 1}},
      {XHAL_OP_add, {0, 1, 1}, 1, {0}},  // the scalar a has no operand: operand 0 is b
      {XHAL_OP_add, {1, 0, 1}, 1, {0}},
      {XHAL_OP_lerp, {1, 1, 0, 1}, 2, {0}},
      {XHAL_OP_softmax_grad, {1, 1, 1}, 2, {0}},
      {XHAL_OP_swiglu_grad, {1, 1, 1, 1, 1}, 3, {1}},
      {XHAL_OP_swiglu_grad, {1, 1, 1, 1, 1}, 4, {2}},
      {XHAL_OP_eq, {1, 1, 1}, 2, {}},
      {XHAL_OP_gemm, {1, 1, 0, 1, 1}, 3, {}},  // out=c, and c is absent
      {XHAL_OP_multi_axpby, {2, 2, 2}, 5, {1, 3}},
      {XHAL_OP_multi_axpby, {2, 0, 2}, 3, {1}},
      {XHAL_OP_multi_unscale, {2, 1, 1, 2, 1}, 4, {0}},
      {XHAL_OP_multi_unscale, {2, 1, 1, 2, 1}, 6, {2}},  // found_inf_out on found_inf
  };
  for (const auto& c : cases) {
    std::vector<uint32_t> found;
    find(c.id)->for_each_alias(c.sizes, c.output, [&](uint32_t i) { found.push_back(i); });
    EXPECT_EQ(found, c.inputs) << find(c.id)->name << ", output at " << c.output;
  }
  EXPECT_FALSE(find(XHAL_OP_add)->may_alias(std::vector<uint32_t>{1, 1, 1}, 7, 0));
}

void expect_error(const char* what, const std::function<void()>& parse) {
  try {
    parse();
    ADD_FAILURE() << "no mistake was found: " << what;
  } catch (const catalogue::GrammarError& e) {
    EXPECT_THAT(e.what(), HasSubstr(what));
  }
}

TEST(Grammar, MistakesAreFound) {
  expect_error("lacks its ':'", [] { grammar::group_in("in", false); });
  expect_error("none of F N A", [] { grammar::group_in("in:Q", false); });
  expect_error("then +dtype", [] { grammar::group_in("in:FF", false); });
  expect_error("then +dtype", [] { grammar::group_in("in:F+f63", false); });
  expect_error("then +dtype", [] { grammar::group_in("in:", false); });
  expect_error("a name is empty", [] { grammar::group_in(":F", false); });
  expect_error("beside a-z", [] { grammar::group_in("In:F", false); });
  expect_error("none of i f ii ff", [] { grammar::attribute_in("p:x=1"); });
  expect_error("the empty list", [] { grammar::attribute_in("dims:ii=1"); });
  expect_error("no integer", [] { grammar::attribute_in("dim:i=0.5"); });
  expect_error("no digits", [] { grammar::scalar_in("lr="); });
  expect_error("wrong character", [] { grammar::scalar_in("lr=1x"); });
  expect_error("beyond 22", [] { grammar::scalar_in("lr=1e-30"); });
  expect_error("a cost is empty", [] { grammar::cost_in(""); });
  expect_error("wrong character", [] { grammar::cost_in("2*n"); });
  expect_error("none of yes", [] { grammar::determinism_in("maybe"); });
  expect_error("one space", [] {
    std::string_view text = " a";
    grammar::next_word(text);
  });
  expect_error("a space at the end", [] {
    std::string_view text = "a ";
    grammar::next_word(text);
  });
  catalogue::Group groups[] = {grammar::group_in("a:F", false), grammar::group_in("out:F", true)};
  expect_error("an input that does not", [&] { grammar::read_aliases("out=b", groups); });
  expect_error("an output that does not", [&] { grammar::read_aliases("o=a", groups); });
  expect_error("an input that does not", [&] { grammar::read_aliases("all in place", groups); });
}

TEST(Grammar, NumbersAreThoseOfTheCompiler) {
  EXPECT_EQ(grammar::number_in("0.999"), 0.999);
  EXPECT_EQ(grammar::number_in("1e-8"), 1e-8);
  EXPECT_EQ(grammar::number_in("1e-3"), 1e-3);
  EXPECT_EQ(grammar::number_in("-100"), -100);
  EXPECT_EQ(grammar::number_in("2.5e3"), 2500);
}

// ---- requests

class CheckTest : public testing::Test {
 protected:
  CheckTest() {
    for (auto& t : operands_) {
      t.code = XHAL_CODE_FLOAT;
      t.bits = 32;
      t.lanes = 1;
      t.ndim = 1;
      t.sizes[0] = 4;
      t.strides[0] = 1;
    }
    info_.struct_size = sizeof info_;
    info_.id = XHAL_OP_mul;
    info_.group_count = info_.operand_count = 3;
    info_.group_sizes = sizes_;
    info_.operands = operands_;
  }
  void expect_refused(xhal_status status, uint32_t operand, uint32_t attribute, const char* text) {
    const auto refusal = catalogue::check(info_);
    EXPECT_EQ(refusal.status, status) << refusal.text;
    EXPECT_EQ(refusal.operand, operand) << refusal.text;
    EXPECT_EQ(refusal.attribute, attribute) << refusal.text;
    EXPECT_THAT(refusal.text, HasSubstr(text));
  }

  xhal_tensor_desc operands_[3] = {};
  uint32_t sizes_[3] = {1, 1, 1};
  xhal_op_info info_{};
};

TEST_F(CheckTest, ACorrectRequestIsNotRefused) { EXPECT_FALSE(catalogue::check(info_)); }

TEST_F(CheckTest, AnUnknownOperatorOrVersionIsUnsupported) {
  info_.version = 2;
  expect_refused(XHAL_ERR_UNSUPPORTED, 0, 0, "`mul` is known up to version 1");
  info_.id = 9;
  expect_refused(XHAL_ERR_UNSUPPORTED, 0, 0, "operator 9");
}

TEST_F(CheckTest, ADtypeOutsideTheCatalogueIsAnInvalidArgument) {
  operands_[1].code = XHAL_CODE_COMPLEX;
  operands_[1].bits = 64;
  expect_refused(XHAL_ERR_INVALID_ARGUMENT, 2, 0, "`b` of `mul` cannot be other");
}

TEST_F(CheckTest, OnlyFloatsAreMixed) {
  operands_[0].code = XHAL_CODE_BFLOAT;
  operands_[0].bits = 16;
  EXPECT_FALSE(catalogue::check(info_));
  operands_[0].code = XHAL_CODE_INT;
  expect_refused(XHAL_ERR_INVALID_ARGUMENT, 2, 0,
                 "`b` of `mul` is f32 and `a` is i16; only floats");
  operands_[1] = operands_[0];
  EXPECT_FALSE(catalogue::check(info_)) << "an output may be of another dtype, says the prose";
}

TEST_F(CheckTest, AnOutputThatOverlapsItselfIsRefused) {
  operands_[0].strides[0] = 0;
  EXPECT_FALSE(catalogue::check(info_)) << "an input may be repeated";
  operands_[2].strides[0] = 0;
  expect_refused(XHAL_ERR_INVALID_ARGUMENT, 3, 0, "`out` of `mul` overlaps itself");
  operands_[2].sizes[0] = operands_[1].sizes[0] = operands_[0].sizes[0] = 1;
  EXPECT_FALSE(catalogue::check(info_));
}

TEST_F(CheckTest, APrivateLayoutIsUnsupported) {
  operands_[2].layout = 7;
  expect_refused(XHAL_ERR_UNSUPPORTED, 3, 0, "`out` of `mul` must be strided");
}

TEST_F(CheckTest, AGroupOfTheWrongSizeIsNamed) {
  sizes_[2] = 0;
  info_.operand_count = 2;
  expect_refused(XHAL_ERR_INVALID_ARGUMENT, 3, 0, "group `out` of `mul` has 0 operands");
}

TEST_F(CheckTest, ANullArrayIsFoundBeforeItIsRead) {
  info_.operands = nullptr;
  expect_refused(XHAL_ERR_INVALID_ARGUMENT, 0, 0, "NULL");
}

TEST_F(CheckTest, AnAttributeIsNamedByItsPosition) {
  xhal_attribute attributes[2] = {{0, XHAL_ATTR_INT, {}, 1}, {1, XHAL_ATTR_INTS, {}, 2}};
  info_.attributes = attributes;
  info_.attribute_count = 2;
  expect_refused(XHAL_ERR_INVALID_ARGUMENT, 0, 1, "`mul` has no attribute 0; it has 0 in all");
  info_.id = XHAL_OP_layer_norm;
  expect_refused(XHAL_ERR_INVALID_ARGUMENT, 0, 2, "attribute `eps` of `layer_norm`");
}

// ---- sizes

TEST(Sizes, AWindowThatDoesNotFitLeavesNothing) {
  EXPECT_EQ(convolved_size(4, {5, 1, 0, 1}), 0);
  EXPECT_EQ(convolved_size(4, {3, 3, 0, 2}), 0) << "its reach is 5";
  EXPECT_EQ(pooled_size(2, {5, 2, 1, 1}, true), 0);
  EXPECT_EQ(pooled_size(4, {5, 4, 0, 1}, false), 0) << "not -1 / 4 + 1";
  EXPECT_EQ(transposed_size(0, {3, 1, 0, 1}, 0), 0);
  EXPECT_EQ(transposed_size(1, {1, 1, 3, 1}, 0), 0) << "more padding than there is";
}

TEST(Sizes, WindowsAreCounted) {
  EXPECT_EQ(convolved_size(7, {3, 2, 1, 1}), 4);
  EXPECT_EQ(transposed_size(4, {3, 2, 1, 1}, 0), 7);
  EXPECT_EQ(pooled_size(6, {3, 2, 0, 1}, false), 2);
  EXPECT_EQ(pooled_size(6, {3, 2, 0, 1}, true), 3);
  EXPECT_EQ(pooled_size(3, {2, 2, 1, 1}, true), 2) << "the third would begin behind the input";
}

// ---- dtypes and descriptions

TEST(DTypes, EachIsFoundByItsFormat) {
  for (size_t i = 0; i < kDTypeCount; ++i)
    EXPECT_EQ(dtype_of(kDTypes[i].code, kDTypes[i].bits), static_cast<DType>(i));
  EXPECT_EQ(dtype_of(XHAL_CODE_FLOAT, 24), DType::other);
  EXPECT_EQ(dtype_of(XHAL_CODE_UINT, 64), DType::other);
  EXPECT_EQ(dtype_of(XHAL_CODE_FLOAT, 0), DType::other);
  EXPECT_EQ(dtype_of(255, 255), DType::other);
}

TEST(DTypes, ATensorWithoutElementsIsContiguousWhateverItsStrides) {
  xhal_tensor_desc t{};
  t.ndim = 2;
  t.sizes[0] = 0;
  t.sizes[1] = 5;
  t.strides[0] = 77;
  t.strides[1] = 3;
  EXPECT_TRUE(is_contiguous(t));
  t.sizes[0] = 1;
  EXPECT_FALSE(is_contiguous(t));
  t.strides[1] = 1;
  EXPECT_TRUE(is_contiguous(t)) << "the stride of a dim of size 1 does not count";
}

TEST(DTypes, FloatsBecomeIntegersAsTheCatalogueSays) {
  EXPECT_EQ(to_integer(-2.9), -2);
  EXPECT_EQ(to_integer(std::nan("")), INT64_MIN);
  EXPECT_EQ(to_integer(0x1p63), INT64_MIN);
  EXPECT_EQ(to_integer(-0x1p63), INT64_MIN);
  EXPECT_EQ(to_integer(0x1p62), int64_t{1} << 62);
}

// Every value of both formats comes back; halfway between two neighbours the even one is taken, a
// little to either side of it the nearer, however little it is.
template <class Half, class Round>
void expect_one_rounding(uint16_t infinity, Round round) {
  for (uint32_t bits = 0; bits < infinity; ++bits) {
    const double low = to_float(Half{static_cast<uint16_t>(bits)});
    ASSERT_EQ(round(low).bits, bits);
    ASSERT_EQ(round(-low).bits, bits | 0x8000u);
    if (bits + 1 == infinity) break;
    const double high = to_float(Half{static_cast<uint16_t>(bits + 1)});
    const double middle = (low + high) / 2;
    ASSERT_EQ(round(middle).bits, bits + (bits & 1)) << low;
    ASSERT_EQ(round(std::nextafter(middle, 0.0)).bits, bits) << low;
    ASSERT_EQ(round(std::nextafter(middle, INFINITY)).bits, bits + 1) << low;
    ASSERT_EQ(round(-std::nextafter(middle, INFINITY)).bits, (bits + 1) | 0x8000u) << low;
  }
}

TEST(Halves, ADoubleIsRoundedOnce) {
  expect_one_rounding<Bf16>(0x7f80, [](double d) { return to_bf16(d); });
  expect_one_rounding<F16>(0x7c00, [](double d) { return to_f16(d); });
  EXPECT_EQ(to_bf16(1e300).bits, 0x7f80);
  EXPECT_EQ(to_f16(-1e300).bits, 0xfc00);
  EXPECT_EQ(to_bf16(1e-300).bits, 0);
  EXPECT_TRUE(std::isnan(to_float(to_bf16(std::nan("")))));
  EXPECT_TRUE(std::isnan(to_float(to_f16(std::nan("")))));
}

TEST(Halves, AnI64IsRoundedOnce) {
  for (int shift = 9; shift < 62; ++shift) {
    const int64_t base = int64_t{1} << shift, middle = base + (base >> 8);
    EXPECT_EQ(to_float(to_bf16(middle)), std::ldexp(1.0, shift)) << shift;
    EXPECT_EQ(to_float(to_bf16(middle + 1)), std::ldexp(1 + 0x1p-7, shift)) << shift;
    EXPECT_EQ(to_float(to_bf16(middle - 1)), std::ldexp(1.0, shift)) << shift;
    EXPECT_EQ(to_float(to_bf16(-middle - 1)), -std::ldexp(1 + 0x1p-7, shift)) << shift;
    EXPECT_EQ(to_float(to_bf16(-middle)), -std::ldexp(1.0, shift)) << shift;
  }
  EXPECT_EQ(to_float(to_bf16(INT64_MIN)), -0x1p63f);
  EXPECT_EQ(to_float(to_f16(int64_t{65519})), 65504);
  EXPECT_EQ(to_f16(int64_t{65520}).bits, 0x7c00);
}

}  // namespace
}  // namespace xhal::test
