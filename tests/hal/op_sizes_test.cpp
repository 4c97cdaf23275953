// SPDX-License-Identifier: Apache-2.0
// op_sizes_test.cpp: the sizes of operands by the catalogue's `shape` column: which requests agree
// with it, what an output's sizes are, and that mistakes in the column are found.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <vector>

#include "xhal/op_check.hpp"

namespace xhal::test {
namespace {

using catalogue::Dims;
using testing::HasSubstr;

using Sizes = std::vector<int64_t>;
using Group = std::vector<Sizes>;  // empty: absent
struct Given {
  const char* name;
  std::vector<int64_t> values;  // of a list; one of an integer
};

// A request that check() accepts but for its sizes.
class Request {
 public:
  Request(uint32_t id, const std::vector<Group>& groups, const std::vector<Given>& given = {}) {
    const auto& op = *catalogue::find(id);
    for (size_t g = 0; g < groups.size(); ++g) {
      group_sizes_.push_back(static_cast<uint32_t>(groups[g].size()));
      for (const Sizes& sizes : groups[g]) add(op.groups()[g], sizes);
    }
    for (const auto& [name, values] : given) {
      const auto* known = op.attribute(name);
      xhal_attribute a{};
      a.index = static_cast<uint32_t>(known - op.attributes().data());
      a.kind = known->kind;
      a.count = static_cast<uint32_t>(values.size());
      if (a.kind == XHAL_ATTR_INTS) {
        lists_.push_back(values);
        a.value.ints = lists_.back().data();
      } else if (a.kind == XHAL_ATTR_INT) {
        a.value.i = values[0];
      }
      attributes_.push_back(a);
    }
    info_.struct_size = sizeof info_;
    info_.id = id;
    info_.group_count = static_cast<uint32_t>(group_sizes_.size());
    info_.group_sizes = group_sizes_.data();
    info_.operand_count = static_cast<uint32_t>(operands_.size());
    info_.operands = operands_.data();
    info_.attribute_count = static_cast<uint32_t>(attributes_.size());
    info_.attributes = attributes_.data();
  }
  Request(const Request&) = delete;
  Request& operator=(const Request&) = delete;

  const xhal_op_info& info() const { return info_; }
  Sizes inferred(uint32_t position, std::string* why = nullptr) const {
    Dims dims;
    const auto refusal = catalogue::infer_sizes(info_, position, dims);
    if (why != nullptr) *why = refusal.text;
    if (refusal) return {-1};
    return {dims.sizes.begin(), dims.sizes.begin() + dims.count};
  }

 private:
  void add(const catalogue::Group& group, const Sizes& sizes) {
    xhal_tensor_desc t{};
    for (size_t i = 0; i < kDTypeCount; ++i) {
      if (!group.takes(static_cast<DType>(i))) continue;
      t.code = kDTypes[i].code;
      t.bits = kDTypes[i].bits;
      break;
    }
    t.lanes = 1;
    t.ndim = static_cast<uint8_t>(sizes.size());
    for (size_t d = 0; d < sizes.size(); ++d) t.sizes[d] = sizes[d], t.strides[d] = 1;
    operands_.push_back(t);
  }

  std::vector<xhal_tensor_desc> operands_;
  std::vector<uint32_t> group_sizes_;
  std::vector<xhal_attribute> attributes_;
  std::deque<std::vector<int64_t>> lists_;
  xhal_op_info info_{};
};

struct Case {
  uint32_t id;
  std::vector<Group> groups;
  std::vector<Given> given;
  const char* refused = nullptr;  // a part of the text; nullptr: accepted
};

TEST(OpSizes, RequestsAgreeWithTheCatalogueOrNameTheOperand) {
  const Case cases[] = {
      {XHAL_OP_add, {{{2, 3}}, {{2, 3}}, {{2, 3}}}, {}},
      {XHAL_OP_add, {{}, {{2, 3}}, {{2, 3}}}, {}},
      {XHAL_OP_add,
       {{{2, 3}}, {{3}}, {{2, 3}}},
       {},
       "`b` of `add` has sizes [3] instead of [2, 3]"},
      {XHAL_OP_add, {{{2, 3}}, {{2, 3}}, {{3, 2}}}, {}, "`out` of `add` has sizes [3, 2]"},
      {XHAL_OP_fill, {{{7}}}, {}},
      {XHAL_OP_gemm, {{{2, 3}}, {{3, 4}}, {}, {{4}}, {{2, 4}}}, {}},
      {XHAL_OP_gemm, {{{5, 2, 3}}, {{5, 3, 4}}, {{5, 2, 4}}, {}, {{5, 2, 4}}}, {}},
      {XHAL_OP_gemm,
       {{{2, 3}}, {{2, 4}}, {}, {}, {{2, 4}}},
       {},
       "instead of [3, n] (B,k,n, where m = 2, k = 3"},
      {XHAL_OP_gemm, {{{5, 2, 3}}, {{3, 4}}, {}, {}, {{5, 2, 4}}}, {}, "`b` of `gemm`"},
      {XHAL_OP_gemm, {{{3}}, {{3, 4}}, {}, {}, {{4}}}, {}, "`a` of `gemm` has sizes [3]"},
      {XHAL_OP_sum, {{{2, 3, 4}}, {{2, 4}}}, {{"dims", {1}}}},
      {XHAL_OP_sum, {{{2, 3, 4}}, {{2, 1, 4}}}, {{"dims", {-2}}}},
      {XHAL_OP_sum, {{{2, 3, 4}}, {{}}}, {}},
      {XHAL_OP_sum, {{{2, 3, 4}}, {{1, 1, 1}}}, {}},
      {XHAL_OP_sum, {{{2, 3, 4}}, {{2, 3}}}, {{"dims", {1}}}, "instead of [2, 4] (reduced(S)"},
      {XHAL_OP_argmax, {{{2, 3}}, {}, {{3}}}, {{"dim", {0}}}},
      {XHAL_OP_argmax, {{{2, 3}}, {}, {{}}}, {{"all", {1}}}},
      {XHAL_OP_topk, {{{2, 9}}, {{2, 4}}, {{2, 4}}}, {{"k", {4}}}},
      {XHAL_OP_topk, {{{2, 9}}, {{2, 4}}, {{2, 3}}}, {{"k", {4}}}, "`index` of `topk`"},
      {XHAL_OP_index_select, {{{5, 2}}, {{3}}, {{3, 2}}}, {}},
      {XHAL_OP_index_select, {{{5, 2}}, {{3}}, {{5, 2}}}, {}, "`out` of `index_select`"},
      {XHAL_OP_index, {{{2, 5, 6, 3}}, {{{7, 8}}, {{7, 8}}}, {{2, 7, 8, 3}}}, {{"dims", {1, 2}}}},
      {XHAL_OP_cat, {{{2, 3}, {2, 5}}, {{2, 8}}}, {{"dim", {1}}}},
      {XHAL_OP_cat, {{{0}, {2, 5}}, {{2, 5}}}, {{"dim", {1}}}},
      {XHAL_OP_cat, {{{2, 3}, {2, 5}}, {{2, 7}}}, {{"dim", {1}}}, "instead of [2, 8] (joined(in))"},
      {XHAL_OP_cat, {{{5, 0}, {7, 0}}, {{12, 0}}}, {}},
      {XHAL_OP_cat,
       {{{2, 3}, {3, 5}}, {{2, 8}}},
       {{"dim", {1}}},
       "operand 1 of `cat` has sizes [3, 5], which do not fit the others"},
      {XHAL_OP_layer_norm,
       {{{2, 3, 4}}, {{3, 4}}, {}, {{2, 3, 4}}, {{2}}, {{2, 1, 1}}},
       {{"axis", {1}}}},
      {XHAL_OP_layer_norm, {{{2, 3}}, {{2}}, {}, {{2, 3}}, {}, {}}, {}, "from(S)"},
      {XHAL_OP_group_norm, {{{2, 6, 5}}, {{6}}, {}, {{2, 6, 5}}, {{2, 3}}, {}}, {{"groups", {3}}}},
      {XHAL_OP_conv,
       {{{1, 4, 9, 9}}, {{8, 2, 3, 3}}, {{8}}, {{1, 8, 5, 5}}},
       {{"stride", {2}}, {"padding", {1, 1}}, {"groups", {2}}}},
      {XHAL_OP_conv,
       {{{1, 8, 5}}, {{8, 3, 3}}, {{6}}, {{1, 6, 10}}},
       {{"stride", {2}},
        {"padding", {1}},
        {"output_padding", {1}},
        {"transposed", {1}},
        {"groups", {2}}}},
      {XHAL_OP_conv, {{{1, 4, 9, 9}}, {{8, 4, 3, 3}}, {}, {{1, 8, 9, 9}}}, {}, "convolved(X,W)"},
      {XHAL_OP_max_pool, {{{1, 2, 6, 6}}, {{1, 2, 3, 3}}, {}}, {{"kernel", {2}}}},
      {XHAL_OP_max_pool, {{{1, 2, 7, 7}}, {{1, 2, 4, 4}}, {}}, {{"kernel", {2}}, {"ceil", {1}}}},
      {XHAL_OP_lstm_cell,
       {{{2, 12}}, {{2, 12}}, {{2, 3}}, {}, {{12}}, {{2, 3}}, {{2, 3}}, {{2, 12}}},
       {}},
      {XHAL_OP_lstm_cell,
       {{{2, 10}}, {{2, 10}}, {{2, 3}}, {}, {}, {{2, 3}}, {{2, 3}}, {{2, 10}}},
       {},
       "has sizes [2, 10]"},
      {XHAL_OP_nonzero, {{{2, 3}}, {{6, 2}}, {{}}}, {}},
      {XHAL_OP_nonzero, {{{2, 3}}, {{6, 3}}, {{}}}, {}, "bound,#S"},
      {XHAL_OP_quantise_block, {{{2, 33}}, {{2, 33}}, {{2, 2}}}, {}},
      {XHAL_OP_quantise_block, {{{2, 33}}, {{2, 33}}, {{2, 1}}}, {}, "ceil(n/@block)"},
      {XHAL_OP_nll_loss, {{{4, 9}}, {{4}}, {{9}}, {{}}, {{}}}, {}},
      {XHAL_OP_nll_loss, {{{4, 9}}, {{4}}, {}, {{4}}, {{}}}, {{"reduction", {0}}}},
      {XHAL_OP_nll_loss, {{{4, 9}}, {{4}}, {}, {{4}}, {{}}}, {}, "loss(N)"},
      {XHAL_OP_multi_axpby, {{{2}, {3, 4}}, {{2}, {3, 4}}, {{2}, {3, 4}}}, {}},
      {XHAL_OP_multi_axpby, {{{2}, {3, 4}}, {{2}, {3, 5}}, {{2}, {3, 4}}}, {}, "has sizes [3, 5]"},
  };
  for (const Case& c : cases) {
    const Request request(c.id, c.groups, c.given);
    const auto refusal = catalogue::check(request.info());
    if (c.refused == nullptr) {
      EXPECT_FALSE(refusal) << refusal.text;
      continue;
    }
    EXPECT_EQ(refusal.status, XHAL_ERR_INVALID_ARGUMENT) << catalogue::name_of(c.id);
    EXPECT_NE(refusal.operand, 0u) << refusal.text;
    EXPECT_THAT(refusal.text, HasSubstr(c.refused));
  }
}

TEST(OpSizes, AnOutputsSizesFollowFromTheInputs) {
  EXPECT_EQ(Request(XHAL_OP_gemm, {{{5, 2, 3}}, {{5, 3, 4}}, {}, {}, {{}}}).inferred(2),
            (Sizes{5, 2, 4}));
  EXPECT_EQ(Request(XHAL_OP_sum, {{{2, 3, 4}}, {{}}}, {{"dims", {0, -1}}}).inferred(1), (Sizes{3}));
  EXPECT_EQ(Request(XHAL_OP_conv, {{{1, 4, 9, 9}}, {{8, 4, 3, 3}}, {}, {{}}}).inferred(2),
            (Sizes{1, 8, 7, 7}));
  EXPECT_EQ(Request(XHAL_OP_cat, {{{2, 3}, {2, 5}}, {{}}}, {{"dim", {1}}}).inferred(2),
            (Sizes{2, 8}));
  EXPECT_EQ(Request(XHAL_OP_quantise_block, {{{2, 65}}, {{}}, {{}}}).inferred(2), (Sizes{2, 3}));
  EXPECT_EQ(Request(XHAL_OP_multi_norm, {{{2}, {3, 4}}, {{9}, {9}}}).inferred(3), (Sizes{}));
  EXPECT_EQ(Request(XHAL_OP_multi_sqrt, {{{2}, {3, 4}}, {{9}, {9}}}).inferred(3), (Sizes{3, 4}));
}

TEST(OpSizes, WhatDoesNotFollowIsSaid) {
  std::string why;
  const Request rows(XHAL_OP_embedding_grad, {{{4, 8}}, {{4}}, {{}}});
  EXPECT_EQ(rows.inferred(2, &why), Sizes{-1});
  EXPECT_THAT(why, HasSubstr("`dweight` of `embedding_grad` do not follow"));
  const Request odd(XHAL_OP_gemm, {{{2, 3}}, {{4, 5}}, {}, {}, {{}}});
  EXPECT_EQ(odd.inferred(2, &why), Sizes{-1});
  EXPECT_THAT(why, HasSubstr("contradict"));
  EXPECT_EQ(odd.inferred(0, &why), Sizes{-1});
  EXPECT_THAT(why, HasSubstr("is no output"));
  EXPECT_EQ(odd.inferred(77, &why), Sizes{-1});
}

// Whatever a caller writes into attributes, the rules neither overflow nor divide by zero (run it
// under ubsan).
TEST(OpSizes, AttributesOutOfRangeAreNotComputedWith) {
  for (const int64_t value : {int64_t{0}, int64_t{-1}, INT64_MIN, INT64_MAX, int64_t{1} << 40}) {
    for (const char* name : {"stride", "padding", "dilation", "output_padding", "groups"}) {
      const Request request(XHAL_OP_conv, {{{1, 4, 9}}, {{8, 4, 3}}, {}, {{1, 8, 7}}},
                            {{name, {value}}, {"transposed", {1}}});
      catalogue::check(request.info());
    }
    for (const char* name : {"kernel", "stride", "padding", "dilation"}) {
      const Request request(XHAL_OP_max_pool, {{{1, 4, 9, 9}}, {{1, 4, 4, 4}}, {}},
                            {{name, {value}}});
      catalogue::check(request.info());
    }
    for (const auto& [id, name] : {std::pair{XHAL_OP_sum, "dims"}, {XHAL_OP_flip, "dims"}})
      catalogue::check(Request(id, {{{2, 3}}, {{2, 3}}}, {{name, {value}}}).info());
    catalogue::check(
        Request(XHAL_OP_quantise_block, {{{9}}, {{9}}, {{1}}}, {{"block", {value}}}).info());
    catalogue::check(
        Request(XHAL_OP_layer_norm, {{{9}}, {}, {}, {{9}}, {}, {}}, {{"axis", {value}}}).info());
  }
}

void expect_error(const char* what, const char* sizes) {
  catalogue::grammar::SizesCheck check([](std::string_view name) { return name == "k"; },
                                       [](std::string_view name) { return name == "in"; });
  try {
    check(sizes);
    ADD_FAILURE() << "no mistake was found in " << sizes;
  } catch (const catalogue::GrammarError& e) {
    EXPECT_THAT(e.what(), HasSubstr(what)) << sizes;
  }
}

TEST(OpSizes, MistakesInTheColumnAreFound) {
  expect_error("no sizes", "");
  expect_error("no name", "a,,b");
  expect_error("two runs", "A,b,C");
  expect_error("wrong character", "a,b2");
  expect_error("no attribute", "a,@q");
  expect_error("no attribute", "ceil(n/@q)");
  expect_error("not written ceil", "ceil(n)");
  expect_error("not written 4*h", "4h");
  expect_error("not written 4*h", "0*h");
  expect_error("does not exist", "halved(S)");
  expect_error("too many or too few", "reduced(S,T)");
  expect_error("too many or too few", "along(S)");
  expect_error("lacks its ')'", "reduced(S");
  expect_error("a group that does not exist", "joined(out)");
  expect_error("too many names", "a,b,c,d,e,f,g,h,i");
}

}  // namespace
}  // namespace xhal::test
