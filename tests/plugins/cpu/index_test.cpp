// SPDX-License-Identifier: Apache-2.0
// index_test.cpp: reading, writing and ordering at positions given by tensors.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernel_harness.hpp"

namespace xhal::cpu::test {
namespace {

using testing::DoubleEq;
using testing::ElementsAre;
using testing::HasSubstr;

Tensor index_tensor(DType type, Sizes sizes, int64_t bound, uint32_t seed) {
  return Tensor::random(type, std::move(sizes), seed, 0, static_cast<double>(bound - 1));
}

Tensor zeros_like(const Tensor& t) { return Tensor(t.type(), t.sizes()); }

class IndexTest : public testing::TestWithParam<DType> {
 protected:
  DType type() const { return GetParam(); }
  Tensor random(Sizes sizes, uint32_t seed) const {
    return Tensor::random(type(), std::move(sizes), seed, type() == DType::boolean ? 0 : -8,
                          type() == DType::boolean ? 1 : 8);
  }
};

std::string dtype_name(const testing::TestParamInfo<DType>& info) {
  return std::string(name_of(info.param));
}
INSTANTIATE_TEST_SUITE_P(, IndexTest,
                         testing::Values(DType::f32, DType::bf16, DType::f16, DType::i8, DType::u8,
                                         DType::i16, DType::i32, DType::i64, DType::boolean),
                         dtype_name);

TEST_P(IndexTest, IndexSelectTakesRowsAlongAnyDimension) {
  const Tensor in = random({5, 7, 6}, 1);
  for (size_t dim = 0; dim < 3; ++dim)
    for (const DType wide : {DType::i32, DType::i64})
      for (const Tensor& source : {in, in.stored_as({2, 0, 1}), in.spread(1)}) {
        const Tensor index = index_tensor(wide, {9}, in.size(dim), 2).spread(0);
        Sizes sizes = in.sizes();
        sizes[dim] = 9;
        Tensor out(type(), sizes);
        Call call(XHAL_OP_index_select);
        call.add(source).add(index).add(out).attr(0, static_cast<int64_t>(dim) - 3);
        ASSERT_EQ(call.run(2), XHAL_OK) << call.error;
        for (int64_t i = 0; i < out.count(); ++i) {
          int64_t at[3] = {i / (sizes[1] * sizes[2]), i / sizes[2] % sizes[1], i % sizes[2]};
          at[dim] = static_cast<int64_t>(index[at[dim]]);
          ASSERT_EQ(out[i], in.at({at[0], at[1], at[2]}));
        }
      }
}

TEST_P(IndexTest, GatherTakesElementsAlongADimension) {
  const Tensor in = random({5, 7, 6}, 1);
  for (size_t dim = 0; dim < 3; ++dim) {
    const Tensor index = index_tensor(DType::i64, {4, 5, 3}, in.size(dim), 3).stored_as({1, 2, 0});
    Tensor out = Tensor(type(), {4, 5, 3}).spread(2);
    Call call(XHAL_OP_gather);
    call.add(in.stored_as({1, 0, 2})).add(index).add(out).attr(0, static_cast<int64_t>(dim));
    ASSERT_EQ(call.run(3), XHAL_OK) << call.error;
    for (int64_t i = 0; i < out.count(); ++i) {
      int64_t at[3] = {i / 15, i / 3 % 5, i % 3};
      at[dim] = static_cast<int64_t>(index[i]);
      ASSERT_EQ(out[i], in.at({at[0], at[1], at[2]}));
    }
  }
}

TEST_P(IndexTest, IndexReplacesAdjacentDimensionsByTheirIndices) {
  const Tensor in = random({4, 5, 6, 3}, 1);
  // in[:, i, j, :] with i [2, 1] and j [1, 3], broadcast; negative indices count from the end.
  const Tensor i = Tensor::of(DType::i64, {2, 1}, {4, -5}).expanded(1, 3);
  const Tensor j = Tensor::of(DType::i64, {1, 3}, {0, -1, 2}).expanded(0, 2);
  Tensor out(type(), {4, 2, 3, 3});
  Call call(XHAL_OP_index);
  call.add(in.stored_as({3, 1, 0, 2})).group({i, j}).add(out).attr_list(0, {1, 2});
  ASSERT_EQ(call.run(2), XHAL_OK) << call.error;
  const int64_t rows[] = {4, 0}, columns[] = {0, 5, 2};
  for (int64_t a = 0; a < 4; ++a)
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t c = 0; c < 3; ++c)
        for (int64_t d = 0; d < 3; ++d)
          ASSERT_EQ(out.at({a, b, c, d}), in.at({a, rows[b], columns[c], d}));
}

TEST_P(IndexTest, IndexPutWritesInOrderSoThatTheLastOfEqualIndicesWins) {
  const Tensor in = random({6, 40}, 1), values = random({5, 40}, 2);
  const Tensor index = Tensor::of(DType::i64, {5}, {3, 1, 3, -1, 1});
  for (const bool alias : {false, true}) {
    Tensor source = in.copy();
    Tensor out = alias ? source : zeros_like(in);
    Call call(XHAL_OP_index_put);
    call.add(source).add(values).group({index}).add(out).attr_list(0, {0});
    ASSERT_EQ(call.run(3), XHAL_OK) << call.error;
    for (int64_t e = 0; e < 40; ++e) {
      EXPECT_EQ(out.at({0, e}), in.at({0, e}));
      EXPECT_EQ(out.at({1, e}), values.at({4, e}));
      EXPECT_EQ(out.at({3, e}), values.at({2, e}));
      EXPECT_EQ(out.at({5, e}), values.at({3, e}));
    }
  }
}

TEST_P(IndexTest, IndexPutAccumulatesInF32OrWrapping) {
  const Tensor in = random({7, 33}, 1), values = random({50, 33}, 2);
  const Tensor index = index_tensor(DType::i32, {50}, 7, 3);
  Tensor out = zeros_like(in).stored_as({1, 0});
  Call call(XHAL_OP_index_put);
  call.add(in).add(values.stored_as({1, 0})).group({index}).add(out).attr_list(0, {0}).attr(1, 1);
  ASSERT_EQ(call.run(2), XHAL_OK) << call.error;
  std::vector<double> want = in.values();
  for (int64_t i = 0; i < 50; ++i)
    for (int64_t e = 0; e < 33; ++e) {
      double& w = want[static_cast<size_t>(static_cast<int64_t>(index[i]) * 33 + e)];
      w = type() == DType::boolean ? std::max(w, values.at({i, e})) : w + values.at({i, e});
    }
  for (int64_t i = 0; i < out.count(); ++i) {
    Tensor rounded(type(), {1});
    const double w = want[static_cast<size_t>(i)];
    if (!is_float(type())) {
      rounded.set(0, static_cast<double>(static_cast<int64_t>(w)));
      if (type() == DType::i8) rounded.set(0, static_cast<int8_t>(static_cast<int64_t>(w)));
      if (type() == DType::u8) rounded.set(0, static_cast<uint8_t>(static_cast<int64_t>(w)));
      ASSERT_EQ(out[i], rounded[0]);
    } else {
      ASSERT_NEAR(out[i], w, 2 * unit_roundoff(type()) * std::abs(w) + 1e-4);
    }
  }
}

TEST_P(IndexTest, ScatterWritesAddsAndMultiplies) {
  for (const int reduce : {0, 1, 2})
    for (const bool scalar : {false, true})
      for (size_t dim = 0; dim < 2; ++dim) {
        const Tensor in = random({9, 20}, 1), src = random({6, 18}, 2);
        const Tensor index = index_tensor(DType::i64, {6, 18}, in.size(dim), 3);
        Tensor out = zeros_like(in);
        Call call(XHAL_OP_scatter);
        call.add(in).add(index);
        scalar ? call.absent() : call.add(src);
        call.add(out).attr(0, static_cast<int64_t>(dim)).attr(1, reduce).scalar(1);
        ASSERT_EQ(call.run(2), XHAL_OK) << call.error;
        Tensor want(DType::f64, in.sizes());
        want.fill([&](int64_t i) { return in[i]; });
        for (int64_t i = 0; i < index.count(); ++i) {
          int64_t at[2] = {i / 18, i % 18};
          at[dim] = static_cast<int64_t>(index[i]);
          const int64_t to = at[0] * 20 + at[1];
          const double x = scalar ? 1 : src[i], y = want[to];
          double r = reduce == 0 ? x : reduce == 1 ? y + x : y * x;
          if (type() == DType::boolean) r = r != 0;
          if (type() == DType::i8) r = static_cast<int8_t>(static_cast<int64_t>(r));
          if (type() == DType::u8) r = static_cast<uint8_t>(static_cast<int64_t>(r));
          if (type() == DType::i16) r = static_cast<int16_t>(static_cast<int64_t>(r));
          want.set(to, r);
        }
        for (int64_t i = 0; i < out.count(); ++i)
          ASSERT_NEAR(out[i], want[i],
                      is_float(type()) ? 2 * unit_roundoff(type()) * std::abs(want[i]) + 1e-5 : 0);
      }
}

TEST_P(IndexTest, IndexAddAddsScaledRows) {
  if (type() == DType::boolean) return;  // alpha has no meaning
  const Tensor in = random({4, 6, 5}, 1), src = random({4, 9, 5}, 2);
  const Tensor index = index_tensor(DType::i32, {9}, 6, 3);
  Tensor out = zeros_like(in);
  Call call(XHAL_OP_index_add);
  call.add(in).add(index).add(src).add(out).attr(0, 1).scalar(2);
  ASSERT_EQ(call.run(2), XHAL_OK) << call.error;
  Tensor want(DType::f64, in.sizes());
  want.fill([&](int64_t i) { return in[i]; });
  for (int64_t a = 0; a < 4; ++a)
    for (int64_t b = 0; b < 9; ++b)
      for (int64_t c = 0; c < 5; ++c) {
        const int64_t to = (a * 6 + static_cast<int64_t>(index[b])) * 5 + c;
        want.set(to, want[to] + 2 * src.at({a, b, c}));
      }
  for (int64_t i = 0; i < out.count(); ++i) {
    double w = want[i];
    if (type() == DType::i8) w = static_cast<int8_t>(static_cast<int64_t>(w));
    if (type() == DType::u8) w = static_cast<uint8_t>(static_cast<int64_t>(w));
    ASSERT_NEAR(out[i], w, is_float(type()) ? 2 * unit_roundoff(type()) * std::abs(w) + 1e-5 : 0);
  }
}

TEST_P(IndexTest, SortIsStableInBothDirections) {
  for (const bool descending : {false, true})
    for (size_t dim = 0; dim < 2; ++dim) {
      const Tensor in = random({37, 41}, 5).stored_as({1, 0});
      Tensor value = zeros_like(in), index(DType::i64, in.sizes());
      Call call(XHAL_OP_sort);
      call.add(in).add(value).add(index).attr(0, static_cast<int64_t>(dim)).attr(1, descending);
      ASSERT_EQ(call.run(2), XHAL_OK) << call.error;
      const int64_t lines = in.size(1 - dim), length = in.size(dim);
      for (int64_t line = 0; line < lines; ++line) {
        std::vector<int64_t> want(static_cast<size_t>(length));
        std::iota(want.begin(), want.end(), 0);
        const auto at = [&](int64_t i) { return dim == 0 ? i * 41 + line : line * 41 + i; };
        std::stable_sort(want.begin(), want.end(), [&](int64_t a, int64_t b) {
          return descending ? in[at(a)] > in[at(b)] : in[at(a)] < in[at(b)];
        });
        for (int64_t i = 0; i < length; ++i) {
          ASSERT_EQ(index[at(i)], static_cast<double>(want[static_cast<size_t>(i)]));
          ASSERT_EQ(value[at(i)], in[at(want[static_cast<size_t>(i)])]);
        }
      }
    }
}

TEST_P(IndexTest, TopkAgreesWithSort) {
  if (type() == DType::boolean) return;  // not among its dtypes
  for (const bool largest : {true, false})
    for (const int64_t k : {0, 1, 5, 41}) {
      const Tensor in = random({7, 41}, 6);
      Tensor value(type(), {7, k}), index(DType::i64, {7, k}), all = zeros_like(in),
                                                               order(DType::i64, in.sizes());
      Call top(XHAL_OP_topk);
      top.add(in).add(value).add(index).attr(0, k).attr(2, largest);
      ASSERT_EQ(top.run(2), XHAL_OK) << top.error;
      Call sort(XHAL_OP_sort);
      sort.add(in).add(all).add(order).attr(1, largest);
      ASSERT_EQ(sort.run(), XHAL_OK) << sort.error;
      for (int64_t line = 0; line < 7; ++line)
        for (int64_t i = 0; i < k; ++i) {
          ASSERT_EQ(index.at({line, i}), order.at({line, i}));
          ASSERT_EQ(value.at({line, i}), all.at({line, i}));
        }
    }
}

TEST_P(IndexTest, NonzeroListsCoordinatesInRowOrder) {
  Tensor in = random({3, 50, 211}, 7);
  in.fill([&](int64_t i) { return i % 7 == 0 ? 1 : 0; });
  const Tensor view = in.stored_as({2, 0, 1});
  Tensor index(DType::i64, {in.count(), 3}), count(DType::i64, {});
  Call call(XHAL_OP_nonzero);
  call.add(view).add(index).add(count);
  ASSERT_EQ(call.run(2), XHAL_OK) << call.error;
  int64_t row = 0;
  for (int64_t i = 0; i < in.count(); i += 7, ++row) {
    ASSERT_EQ(index.at({row, 0}), i / (50 * 211));
    ASSERT_EQ(index.at({row, 1}), i / 211 % 50);
    ASSERT_EQ(index.at({row, 2}), i % 211);
  }
  EXPECT_EQ(count[0], static_cast<double>(row));
}

TEST(IndexOrder, NanIsLargestAndBothZerosAreEqual) {
  const Tensor in = Tensor::of(DType::f32, {6}, {0.0, NAN, -0.0, -INFINITY, INFINITY, -1});
  Tensor value(DType::f32, {6}), index(DType::i64, {6});
  Call up(XHAL_OP_sort);
  up.add(in).add(value).add(index);
  ASSERT_EQ(up.run(), XHAL_OK);
  EXPECT_THAT(index.values(), ElementsAre(3, 5, 0, 2, 4, 1));
  Call down(XHAL_OP_sort);
  down.add(in).add(value).add(index).attr(1, 1);
  ASSERT_EQ(down.run(), XHAL_OK);
  EXPECT_THAT(index.values(), ElementsAre(1, 4, 0, 2, 5, 3));
}

TEST(IndexOrder, NonzeroOfFloatsTakesNegativeZeroForZeroAndNanForNonzero) {
  const Tensor in = Tensor::of(DType::bf16, {4}, {0.0, -0.0, NAN, 1e-30});
  Tensor index(DType::i64, {4, 1}), count(DType::i64, {});
  Call call(XHAL_OP_nonzero);
  call.add(in).add(index).add(count);
  ASSERT_EQ(call.run(), XHAL_OK);
  EXPECT_EQ(count[0], 2);
  EXPECT_EQ(index[0], 2);
  EXPECT_EQ(index[1], 3);
}

class EmbeddingGradTest : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(, EmbeddingGradTest, testing::Values(DType::f32, DType::bf16, DType::f16),
                         dtype_name);

TEST_P(EmbeddingGradTest, SumsRowsByTheirIndexAndLeavesPaddingOut) {
  const Tensor grad = Tensor::random(GetParam(), {4, 30, 600}, 1);
  const Tensor index = index_tensor(DType::i64, {4, 30}, 11, 2);
  for (const Tensor& source : {grad, grad.stored_as({1, 2, 0})})
    for (const int64_t padding : {-1, 3}) {
      Tensor out(GetParam(), {13, 600});
      out.fill([](int64_t) { return 77; });
      Call call(XHAL_OP_embedding_grad);
      call.add(source).add(index).add(out).attr(0, padding);
      ASSERT_EQ(call.run(2), XHAL_OK) << call.error;
      std::vector<double> want(13 * 600), magnitude(13 * 600);
      for (int64_t i = 0; i < 120; ++i)
        for (int64_t e = 0; e < 600; ++e) {
          if (index[i] == static_cast<double>(padding)) continue;
          const auto to = static_cast<size_t>(static_cast<int64_t>(index[i]) * 600 + e);
          want[to] += grad[i * 600 + e];
          magnitude[to] += std::abs(grad[i * 600 + e]);
        }
      for (int64_t i = 0; i < out.count(); ++i) {
        const auto at = static_cast<size_t>(i);
        ASSERT_NEAR(out[i], want[at],
                    2 * unit_roundoff(GetParam()) * std::abs(want[at]) + 1e-6 * magnitude[at]);
      }
    }
}

TEST_P(EmbeddingGradTest, GivesTheSameBitsWithAnyNumberOfThreads) {
  const Tensor grad = Tensor::random(GetParam(), {500, 64}, 1);
  const Tensor index = index_tensor(DType::i32, {500}, 40, 2);
  std::vector<char> first;
  for (int threads = 1; threads <= 3; ++threads) {
    Tensor out(GetParam(), {40, 64});
    Call call(XHAL_OP_embedding_grad);
    call.add(grad).add(index).add(out);
    ASSERT_EQ(call.run(threads), XHAL_OK);
    if (threads == 1) first = out.bytes();
    EXPECT_EQ(out.bytes(), first);
  }
}

TEST(IndexBounds, AnIndexOutsideFailsAndIsNamedWithItsPosition) {
  const Tensor in = Tensor::random(DType::f32, {5, 3}, 1);
  Tensor index = Tensor::of(DType::i64, {6}, {0, 4, 1, 5, -1, 9});
  Tensor out(DType::f32, {6, 3});
  Call select(XHAL_OP_index_select);
  select.add(in).add(index).add(out);
  EXPECT_EQ(select.run(3), XHAL_ERR_DEVICE);
  EXPECT_EQ(select.error, "index_select: index 5 at position 3 is outside [0, 5)");

  Tensor grown(DType::f32, {5, 3});
  Call put(XHAL_OP_index_put);
  put.add(in).add(out).group({index}).add(grown).attr_list(0, {0});
  EXPECT_EQ(put.run(3), XHAL_ERR_DEVICE);
  EXPECT_EQ(put.error, "index_put: index 5 at position 3 is outside [-5, 5)");

  Call embedding(XHAL_OP_embedding_grad);
  embedding.add(out).add(index).add(grown);
  EXPECT_EQ(embedding.run(2), XHAL_ERR_DEVICE);
  EXPECT_THAT(embedding.error, HasSubstr("embedding_grad: index 5 at position 3"));
}

TEST(IndexBounds, AFailedWriteChangesNothing) {
  const Tensor in = Tensor::random(DType::f32, {5, 3}, 1);
  const Tensor before = in.copy(), index = Tensor::of(DType::i64, {2}, {0, 7});
  Call put(XHAL_OP_index_put);
  put.add(in).add(Tensor(DType::f32, {2, 3})).group({index}).add(in).attr_list(0, {0});
  EXPECT_EQ(put.run(), XHAL_ERR_DEVICE);
  EXPECT_EQ(in.bytes(), before.bytes());
}

TEST(IndexBounds, EmptyIndicesAndEmptyTensorsAreFine) {
  const Tensor in = Tensor::random(DType::f32, {5, 3}, 1), none(DType::i64, {0});
  Tensor empty(DType::f32, {0, 3}), out(DType::f32, {5, 3});
  Call select(XHAL_OP_index_select);
  EXPECT_EQ(select.add(in).add(none).add(empty).run(), XHAL_OK);
  Call put(XHAL_OP_index_put);
  EXPECT_EQ(put.add(in).add(empty).group({none}).add(out).attr_list(0, {0}).run(), XHAL_OK)
      << put.error;
  EXPECT_EQ(out.values(), in.values());
  Call grad(XHAL_OP_embedding_grad);
  EXPECT_EQ(grad.add(empty).add(none).add(out).run(), XHAL_OK);
  EXPECT_EQ(out[7], 0);
  Tensor rows(DType::i64, {0, 2}), count(DType::i64, {});
  Call nonzero(XHAL_OP_nonzero);
  EXPECT_EQ(nonzero.add(empty).add(rows).add(count).run(), XHAL_OK);
  EXPECT_EQ(count[0], 0);
  Call sort(XHAL_OP_sort);
  EXPECT_EQ(sort.add(empty).add(empty.copy()).add(Tensor(DType::i64, {0, 3})).run(), XHAL_OK);
}

}  // namespace
}  // namespace xhal::cpu::test
