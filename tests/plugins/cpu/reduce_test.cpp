// SPDX-License-Identifier: Apache-2.0
// reduce_test.cpp: reductions over any dimensions, against references in double.
#include <gmock/gmock.h>

#include "isa_levels.hpp"

namespace xhal::cpu::test {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Sizes without(const Sizes& sizes, const Sizes& dims, bool keep) {
  Sizes out;
  for (size_t d = 0; d < sizes.size(); ++d) {
    bool reduced = dims.empty();
    for (int64_t dim : dims)
      reduced |= d == static_cast<size_t>(dim < 0 ? dim + static_cast<int64_t>(sizes.size()) : dim);
    if (!reduced) out.push_back(sizes[d]);
    if (reduced && keep) out.push_back(1);
  }
  return out;
}

// The elements that each output element is made of, in row-major order.
std::vector<std::vector<double>> groups_of(const Tensor& in, const Sizes& dims) {
  const Sizes kept = without(in.sizes(), dims, true);
  int64_t count = 1;
  for (int64_t n : kept) count *= n;
  std::vector<std::vector<double>> groups(static_cast<size_t>(count));
  for (int64_t i = 0; i < in.count(); ++i) {
    int64_t rest = i, at = 0, step = 1;
    for (size_t d = kept.size(); d-- > 0; rest /= in.size(d), step *= kept[d])
      at += (kept[d] == 1 ? 0 : rest % in.size(d)) * step;
    groups[static_cast<size_t>(at)].push_back(in[i]);
  }
  return groups;
}

struct Reduction {
  const char* name;
  uint32_t id;
  double (*reference)(const std::vector<double>&);
  bool exact;
  double p = kNan;
};

double sum_of(const std::vector<double>& v) { return std::accumulate(v.begin(), v.end(), 0.0); }

const Reduction kReductions[] = {
    {"sum", XHAL_OP_sum, sum_of, false},
    {"mean", XHAL_OP_mean,
     [](const std::vector<double>& v) { return sum_of(v) / double(v.size()); }, false},
    {"amax", XHAL_OP_amax,
     [](const std::vector<double>& v) { return *std::max_element(v.begin(), v.end()); }, true},
    {"amin", XHAL_OP_amin,
     [](const std::vector<double>& v) { return *std::min_element(v.begin(), v.end()); }, true},
    {"any", XHAL_OP_any,
     [](const std::vector<double>& v) {
       return double(std::any_of(v.begin(), v.end(), [](double x) { return x != 0; }));
     },
     true},
    {"all", XHAL_OP_all,
     [](const std::vector<double>& v) {
       return double(std::all_of(v.begin(), v.end(), [](double x) { return x != 0; }));
     },
     true},
    {"norm 2", XHAL_OP_norm,
     [](const std::vector<double>& v) {
       double s = 0;
       for (double x : v) s += x * x;
       return std::sqrt(s);
     },
     false, 2},
    {"norm 1", XHAL_OP_norm,
     [](const std::vector<double>& v) {
       double s = 0;
       for (double x : v) s += std::fabs(x);
       return s;
     },
     false, 1},
    {"norm 0", XHAL_OP_norm,
     [](const std::vector<double>& v) {
       double s = 0;
       for (double x : v) s += x != 0;
       return s;
     },
     false, 0},
    {"norm inf", XHAL_OP_norm,
     [](const std::vector<double>& v) {
       double s = 0;
       for (double x : v) s = std::max(s, std::fabs(x));
       return s;
     },
     true, kInf},
    {"norm -inf", XHAL_OP_norm,
     [](const std::vector<double>& v) {
       double s = kInf;
       for (double x : v) s = std::min(s, std::fabs(x));
       return s;
     },
     true, -kInf},
    {"norm 3", XHAL_OP_norm,
     [](const std::vector<double>& v) {
       double s = 0;
       for (double x : v) s += std::pow(std::fabs(x), 3);
       return std::cbrt(s);
     },
     false, 3},
};

Call reduce_call(const Reduction& op, const Tensor& in, const Tensor& out, const Sizes& dims) {
  Call call(op.id);
  call.add(in).add(out);
  if (!dims.empty()) call.attr_list(0, dims);
  if (!std::isnan(op.p)) call.attr_float(1, op.p);
  return call;
}

TEST(Reduce, AnyDimensionsOfAnyLayout) {
  for_each_isa([] {
    for (const Reduction& op : kReductions)
      for (DType type : {DType::f32, DType::bf16, DType::f16}) {
        const Tensor values = Tensor::random(type, {6, 1, 35, 11}, 3, -2, 2);
        for (const Tensor& in : layouts_of(values))
          for (const Sizes& dims : {Sizes{}, Sizes{0}, Sizes{3}, Sizes{2}, Sizes{0, 3},
                                    Sizes{-1, -2}, Sizes{0, 2}, Sizes{1}})
            for (bool keep : {false, true}) {
              const bool truth = op.id == XHAL_OP_any || op.id == XHAL_OP_all;
              const Tensor out(truth ? DType::boolean : type, without(in.sizes(), dims, keep));
              Call call = reduce_call(op, in, out, dims);
              ASSERT_EQ(call.run(), XHAL_OK) << op.name << ": " << call.error;
              const auto groups = groups_of(values, dims);
              for (int64_t i = 0; i < out.count(); ++i) {
                const double exact = op.reference(groups[static_cast<size_t>(i)]);
                const double terms = op.id == XHAL_OP_mean ? 1 : double(groups[0].size());
                const double tolerance =
                    op.exact ? 0
                             : (std::fabs(exact) * 6 + terms * 0x1p-13) * unit_roundoff(type) +
                                   terms * 0x1p-23;
                ASSERT_NEAR(out[i], exact, tolerance) << op.name << " of " << name_of(type);
              }
            }
      }
  });
}

TEST(Reduce, IntegersAreSummedInInt64) {
  for (DType type : {DType::boolean, DType::u8, DType::i8, DType::i32, DType::i64}) {
    const Tensor in = Tensor::random(type, {40, 300}, 1, 0, type == DType::boolean ? 1 : 100),
                 out(DType::i64, {300});
    ASSERT_EQ(Call(XHAL_OP_sum).add(in).add(out).attr_list(0, {0}).run(), XHAL_OK);
    const auto groups = groups_of(in, {0});
    for (int64_t i = 0; i < 300; ++i) ASSERT_EQ(out[i], sum_of(groups[static_cast<size_t>(i)]));
    const Tensor all(DType::i64, {});
    ASSERT_EQ(Call(XHAL_OP_sum).add(in).add(all).run(2), XHAL_OK);
    ASSERT_EQ(all[0], sum_of(in.values()));
  }
  const Tensor in = Tensor::of(DType::i64, {5}, {3, -2, 5, 1, 7}), out(DType::i64, {});
  ASSERT_EQ(Call(XHAL_OP_prod).add(in).add(out).run(), XHAL_OK);
  EXPECT_EQ(out[0], -210);
  ASSERT_EQ(Call(XHAL_OP_amax).add(in).add(out).run(), XHAL_OK);
  EXPECT_EQ(out[0], 7);
  ASSERT_EQ(Call(XHAL_OP_amin).add(in).add(out).run(), XHAL_OK);
  EXPECT_EQ(out[0], -2);
}

TEST(Reduce, AMillionElementsAreSummedToAFewPlaces) {
  for_each_isa([] {
    const Tensor in = Tensor::random(DType::f32, {1000003}, 1, 0, 1), out(DType::f32, {});
    ASSERT_EQ(Call(XHAL_OP_sum).add(in).add(out).run(2), XHAL_OK);
    EXPECT_LE(ulps(DType::f32, out[0], sum_of(in.values())), 3);
    const Tensor columns = Tensor::random(DType::f32, {250001, 3}, 1, 0, 1), sums(DType::f32, {3});
    ASSERT_EQ(Call(XHAL_OP_sum).add(columns).add(sums).attr_list(0, {0}).run(2), XHAL_OK);
    const auto groups = groups_of(columns, {0});
    for (int64_t i = 0; i < 3; ++i)
      EXPECT_LE(ulps(DType::f32, sums[i], sum_of(groups[static_cast<size_t>(i)])), 3);
  });
}

TEST(Reduce, NothingReducedToNothing) {
  const Tensor empty(DType::f32, {0, 3}), out(DType::f32, {3}), truth(DType::boolean, {3});
  ASSERT_EQ(Call(XHAL_OP_sum).add(empty).add(out).attr_list(0, {0}).run(), XHAL_OK);
  EXPECT_THAT(out.values(), ElementsAreArray({0.0, 0.0, 0.0}));
  ASSERT_EQ(Call(XHAL_OP_prod).add(empty).add(out).attr_list(0, {0}).run(), XHAL_OK);
  EXPECT_THAT(out.values(), ElementsAreArray({1.0, 1.0, 1.0}));
  ASSERT_EQ(Call(XHAL_OP_mean).add(empty).add(out).attr_list(0, {0}).run(), XHAL_OK);
  EXPECT_TRUE(std::isnan(out[0]));
  ASSERT_EQ(Call(XHAL_OP_all).add(empty).add(truth).attr_list(0, {0}).run(), XHAL_OK);
  EXPECT_EQ(truth[2], 1);
  ASSERT_EQ(Call(XHAL_OP_any).add(empty).add(truth).attr_list(0, {0}).run(), XHAL_OK);
  EXPECT_EQ(truth[2], 0);
  Call refused(XHAL_OP_amax);
  EXPECT_EQ(refused.add(empty).add(out).attr_list(0, {0}).run(), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_THAT(refused.error, HasSubstr("of nothing has no value"));
  EXPECT_EQ(Call(XHAL_OP_sum)
                .add(Tensor(DType::f32, {3, 0}))
                .add(Tensor(DType::f32, {0}))
                .attr_list(0, {0})
                .run(),
            XHAL_OK);
}

TEST(Reduce, OutputsThatKeepDimensionsDifferentlyAreRefused) {
  const Tensor in(DType::f32, {2, 3}), kept(DType::f32, {2, 1}), left_out(DType::f32, {2});
  Call call(XHAL_OP_var);
  EXPECT_EQ(call.add(in).add(kept).add(left_out).attr_list(0, {1}).run(),
            XHAL_ERR_INVALID_ARGUMENT);
  Call missing(XHAL_OP_sum);
  EXPECT_EQ(missing.add(in).add(left_out).attr_list(0, {2}).run(), XHAL_ERR_INVALID_ARGUMENT);
}

TEST(Reduce, NanWinsExtremesAndCountsAsTrue) {
  for_each_isa([] {
    for (int64_t n : {3, 40, 5000}) {
      Tensor in = Tensor::random(DType::f32, {n}, 1);
      in.set(n / 2, kNan);
      const Tensor out(DType::f32, {}), truth(DType::boolean, {});
      for (uint32_t id : {XHAL_OP_amax, XHAL_OP_amin, XHAL_OP_sum, XHAL_OP_norm}) {
        ASSERT_EQ(Call(id).add(in).add(out).run(), XHAL_OK);
        EXPECT_TRUE(std::isnan(out[0]));
      }
      ASSERT_EQ(Call(XHAL_OP_any).add(in).add(truth).run(), XHAL_OK);
      EXPECT_EQ(truth[0], 1);
    }
  });
}

TEST(Reduce, VarianceOfValuesFarFromZeroKeepsItsDigits) {
  for_each_isa([] {
    for (const Sizes& dims : {Sizes{}, Sizes{0}, Sizes{1}, Sizes{0, 2}})
      for (double correction : {0.0, 1.0})
        for (bool root : {false, true}) {
          const Tensor in = Tensor::random(DType::f32, {30, 20, 17}, 1, 1000, 1001);
          const Sizes sizes = without(in.sizes(), dims, false);
          const Tensor out(DType::f32, sizes), mean(DType::f32, sizes);
          Call call(XHAL_OP_var);
          call.add(in).add(out).add(mean).attr_float(1, correction).attr(2, root);
          if (!dims.empty()) call.attr_list(0, dims);
          ASSERT_EQ(call.run(2), XHAL_OK) << call.error;
          const auto groups = groups_of(in, dims);
          for (int64_t i = 0; i < out.count(); ++i) {
            const auto& v = groups[static_cast<size_t>(i)];
            const double m = sum_of(v) / double(v.size());
            double s = 0;
            for (double x : v) s += (x - m) * (x - m);
            s /= double(v.size()) - correction;
            ASSERT_NEAR(out[i], root ? std::sqrt(s) : s, 1e-6);
            ASSERT_LE(ulps(DType::f32, mean[i], m), 4);
          }
        }
  });
  const Tensor one = Tensor::of(DType::f32, {1}, {5}), out(DType::f32, {});
  ASSERT_EQ(Call(XHAL_OP_var).add(one).add(out).absent().run(), XHAL_OK);
  EXPECT_TRUE(std::isnan(out[0]));
}

TEST(Reduce, ArgmaxAndArgminFindTheFirst) {
  for_each_isa([] {
    for (DType type : {DType::f32, DType::bf16, DType::i64, DType::i8}) {
      const Tensor values = Tensor::random(type, {5, 2100, 3}, 1, -9, 9);
      for (const Tensor& in : layouts_of(values))
        for (int64_t dim : {0, 1, 2}) {
          const Tensor value(type, without(in.sizes(), {dim}, false)),
              index(DType::i64, value.sizes());
          for (uint32_t id : {XHAL_OP_argmax, XHAL_OP_argmin}) {
            ASSERT_EQ(Call(id).add(in).add(value).add(index).attr(0, dim).run(2), XHAL_OK);
            const auto groups = groups_of(values, {dim});
            for (int64_t i = 0; i < index.count(); ++i) {
              const auto& v = groups[static_cast<size_t>(i)];
              const auto it = id == XHAL_OP_argmax ? std::max_element(v.begin(), v.end())
                                                   : std::min_element(v.begin(), v.end());
              ASSERT_EQ(index[i], it - v.begin());
              ASSERT_EQ(value[i], *it);
            }
          }
        }
    }
    Tensor in = Tensor::random(DType::f32, {40, 100}, 1);
    in.set(1234, kNan);
    in.set(2345, kNan);
    const Tensor index(DType::i64, {});
    ASSERT_EQ(Call(XHAL_OP_argmax).add(in.stored_as({1, 0})).absent().add(index).attr(1, 1).run(),
              XHAL_OK);
    EXPECT_EQ(index[0], 1234);
  });
}

TEST(Reduce, CumsumRunsAlongAnyDimensionAndInPlace) {
  for_each_isa([] {
    for (DType type : {DType::f32, DType::bf16, DType::i64, DType::boolean})
      for (size_t dim : {0, 1, 2}) {
        const Tensor values = Tensor::random(type, {4, 600, 5}, 1, 0, 1);
        const DType wide = is_float(type) ? type : DType::i64;
        for (const Tensor& in : layouts_of(values)) {
          const Tensor out(wide, {4, 600, 5});
          ASSERT_EQ(Call(XHAL_OP_cumsum).add(in).add(out).attr(0, static_cast<int64_t>(dim)).run(2),
                    XHAL_OK);
          for (int64_t a = 0; a < 4; a += 3)
            for (int64_t b = 0; b < 5; ++b) {
              Tensor x = values, y = out;
              if (dim != 0) x = x.sliced(0, a, 1), y = y.sliced(0, a, 1);
              if (dim != 1) x = x.sliced(1, b * 100, 1), y = y.sliced(1, b * 100, 1);
              if (dim != 2) x = x.sliced(2, b, 1), y = y.sliced(2, b, 1);
              double sum = 0;
              for (int64_t i = 0; i < x.count(); ++i) {
                sum += x[i];
                ASSERT_NEAR(y[i], sum, is_float(type) ? sum * unit_roundoff(type) * 2 + 1e-6 : 0);
              }
            }
        }
        const Tensor in_place = Tensor::random(wide, {4, 600, 5}, 1, 0, 1),
                     before = in_place.copy(), apart(wide, {4, 600, 5});
        ASSERT_EQ(
            Call(XHAL_OP_cumsum).add(before).add(apart).attr(0, static_cast<int64_t>(dim)).run(),
            XHAL_OK);
        ASSERT_EQ(Call(XHAL_OP_cumsum)
                      .add(in_place)
                      .add(in_place)
                      .attr(0, static_cast<int64_t>(dim))
                      .run(),
                  XHAL_OK);
        ASSERT_EQ(in_place.values(), apart.values());
      }
  });
}

TEST(Reduce, ThreadsDoNotChangeTheResult) {
  const Tensor in = Tensor::random(DType::f32, {500, 1001}, 1);
  for (const Sizes& dims : {Sizes{}, Sizes{0}, Sizes{1}})
    for (uint32_t id : {XHAL_OP_sum, XHAL_OP_norm, XHAL_OP_var}) {
      std::vector<std::vector<double>> results;
      for (int threads : {1, 2, 3}) {
        const Tensor out(DType::f32, without(in.sizes(), dims, false));
        Call call(id);
        call.add(in).add(out);
        if (id == XHAL_OP_var) call.absent();
        if (!dims.empty()) call.attr_list(0, dims);
        ASSERT_EQ(call.run(threads), XHAL_OK);
        results.push_back(out.values());
      }
      for (const auto& r : results) EXPECT_EQ(r, results.front());
    }
}

}  // namespace
}  // namespace xhal::cpu::test
