// SPDX-License-Identifier: Apache-2.0
// rows_test.cpp: softmax and the normalisations with their gradients, against references in double.
#include <gmock/gmock.h>

#include "isa_levels.hpp"

namespace xhal::cpu::test {
namespace {

using ::testing::HasSubstr;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr DType kFloatTypes[] = {DType::f32, DType::bf16, DType::f16};

// Rows of a tensor along dimension `dim`, as [row][element].
std::vector<std::vector<double>> rows_of(const Tensor& t, size_t dim) {
  std::vector<size_t> order;
  for (size_t d = 0; d < t.sizes().size(); ++d)
    if (d != dim) order.push_back(d);
  Tensor moved = t;
  for (size_t d = dim; d + 1 < t.sizes().size(); ++d) moved = moved.transposed(d, d + 1);
  std::vector<std::vector<double>> rows(static_cast<size_t>(t.count() / t.size(dim)));
  for (int64_t i = 0; i < t.count(); ++i)
    rows[static_cast<size_t>(i / t.size(dim))].push_back(moved[i]);
  return rows;
}

std::vector<double> softmax_of(const std::vector<double>& x) {
  const double top = *std::max_element(x.begin(), x.end());
  std::vector<double> y;
  double sum = 0;
  for (double v : x) sum += std::exp(v - top);
  for (double v : x) y.push_back(std::exp(v - top) / sum);
  return y;
}

TEST(Softmax, AlongAnyDimensionOfAnyLayout) {
  for_each_isa([] {
    for (DType type : kFloatTypes)
      for (const Sizes& sizes : {Sizes{7}, Sizes{3, 1}, Sizes{5, 130}, Sizes{4, 33, 6}})
        for (size_t dim = 0; dim < sizes.size(); ++dim)
          for (const Tensor& in : layouts_of(Tensor::random(type, sizes, 1, -8, 8))) {
            const auto rows = rows_of(in, dim);
            for (DType result : {type, DType::f32}) {
              const Tensor y(result, sizes), log_y(result, sizes);
              const auto d = static_cast<int64_t>(dim);
              ASSERT_EQ(Call(XHAL_OP_softmax).add(in).add(y).attr(0, d).run(2), XHAL_OK);
              ASSERT_EQ(Call(XHAL_OP_log_softmax).add(in).add(log_y).attr(0, d).run(2), XHAL_OK);
              const auto y_rows = rows_of(y, dim), log_rows = rows_of(log_y, dim);
              for (size_t r = 0; r < rows.size(); ++r) {
                const auto exact = softmax_of(rows[r]);
                for (size_t i = 0; i < exact.size(); ++i) {
                  ASSERT_NEAR(y_rows[r][i], exact[i],
                              exact[i] * (2 * unit_roundoff(result) + 4e-7) + 1e-7);
                  ASSERT_NEAR(log_rows[r][i], std::log(exact[i]),
                              std::fabs(std::log(exact[i])) * 2 * unit_roundoff(result) + 2e-6);
                }
              }
            }
          }
  });
}

TEST(Softmax, InPlaceAndLongRows) {
  for_each_isa([] {
    const Tensor in = Tensor::random(DType::f32, {3, 50257}, 1, -8, 8), x = in.copy(),
                 apart(DType::f32, {3, 50257});
    ASSERT_EQ(Call(XHAL_OP_softmax).add(in).add(apart).run(), XHAL_OK);
    ASSERT_EQ(Call(XHAL_OP_softmax).add(x).add(x).run(2), XHAL_OK);
    EXPECT_EQ(x.values(), apart.values());
    const auto rows = rows_of(in, 1);
    for (size_t r = 0; r < 3; ++r) {
      const auto exact = softmax_of(rows[r]);
      for (size_t i = 0; i < exact.size(); i += 101)
        ASSERT_LE(ulps(DType::f32, apart[int64_t(r * 50257 + i)], exact[i]), 3);
    }
  });
}

TEST(Softmax, MaskedElementsGetNothing) {
  for_each_isa([] {
    const Tensor in = Tensor::of(DType::f32, {2, 4}, {0, -kInf, 0, -200, 1, 1, -kInf, -kInf}),
                 out(DType::f32, {2, 4});
    ASSERT_EQ(Call(XHAL_OP_softmax).add(in).add(out).run(), XHAL_OK);
    EXPECT_EQ(out.values(), (std::vector<double>{0.5, 0, 0.5, 0, 0.5, 0.5, 0, 0}));
    const Tensor none = Tensor::of(DType::f32, {1, 2}, {-kInf, -kInf}), nothing(DType::f32, {1, 2});
    ASSERT_EQ(Call(XHAL_OP_softmax).add(none).add(nothing).run(), XHAL_OK);
    EXPECT_TRUE(std::isnan(nothing[0]));
  });
}

TEST(Softmax, GradientsAlongAnyDimension) {
  for_each_isa([] {
    for (DType type : kFloatTypes)
      for (size_t dim : {0, 1, 2}) {
        const Sizes sizes{4, 21, 5};
        const Tensor in = Tensor::random(type, sizes, 1, -3, 3),
                     grad = Tensor::random(type, sizes, 2);
        const Tensor y(type, sizes), log_y(type, sizes), dx(type, sizes), log_dx(type, sizes);
        const auto d = static_cast<int64_t>(dim);
        ASSERT_EQ(Call(XHAL_OP_softmax).add(in).add(y).attr(0, d).run(), XHAL_OK);
        ASSERT_EQ(Call(XHAL_OP_log_softmax).add(in).add(log_y).attr(0, d).run(), XHAL_OK);
        ASSERT_EQ(Call(XHAL_OP_softmax_grad).add(grad.spread(1)).add(y).add(dx).attr(0, d).run(2),
                  XHAL_OK);
        ASSERT_EQ(Call(XHAL_OP_log_softmax_grad).add(grad).add(log_y).add(log_dx).attr(0, d).run(2),
                  XHAL_OK);
        const auto gs = rows_of(grad, dim), ys = rows_of(y, dim), ls = rows_of(log_y, dim);
        const auto got = rows_of(dx, dim), log_got = rows_of(log_dx, dim);
        for (size_t r = 0; r < gs.size(); ++r) {
          double dot = 0, sum = 0;
          for (size_t i = 0; i < gs[r].size(); ++i) dot += gs[r][i] * ys[r][i], sum += gs[r][i];
          for (size_t i = 0; i < gs[r].size(); ++i) {
            ASSERT_NEAR(got[r][i], ys[r][i] * (gs[r][i] - dot), 2 * unit_roundoff(type) + 1e-6);
            ASSERT_NEAR(log_got[r][i], gs[r][i] - std::exp(ls[r][i]) * sum,
                        6 * unit_roundoff(type) + 3e-6);
          }
        }
      }
  });
}

struct Norm {
  std::vector<double> normal;  // (x - mean) * rstd
  double mean = 0, rstd = 0;
};

Norm norm_of(const std::vector<double>& x, double eps, bool centered) {
  Norm n;
  const auto count = static_cast<double>(x.size());
  if (centered) n.mean = std::accumulate(x.begin(), x.end(), 0.0) / count;
  double squares = 0;
  for (double v : x) squares += (v - n.mean) * (v - n.mean);
  n.rstd = 1 / std::sqrt(squares / count + eps);
  for (double v : x) n.normal.push_back((v - n.mean) * n.rstd);
  return n;
}

// d(loss)/dx of a normalised row, where g = d(loss)/d(normal).
std::vector<double> norm_grad(const Norm& n, const std::vector<double>& g, bool centered) {
  const auto count = static_cast<double>(g.size());
  double sum = 0, dot = 0;
  for (size_t i = 0; i < g.size(); ++i) sum += g[i], dot += g[i] * n.normal[i];
  std::vector<double> dx;
  for (size_t i = 0; i < g.size(); ++i)
    dx.push_back(n.rstd * (g[i] - (centered ? sum / count : 0) - n.normal[i] * dot / count));
  return dx;
}

TEST(LayerNorm, ForwardAndGradientsWithAndWithoutWeights) {
  for_each_isa([] {
    for (DType type : kFloatTypes)
      for (bool centered : {true, false})
        for (const bool weighted : {true, false})
          for (const Sizes& sizes : {Sizes{1, 5}, Sizes{70, 64}, Sizes{3, 50, 129}}) {
            const int64_t n = sizes.back(), rows = Tensor(type, sizes).count() / n;
            const Tensor x = Tensor::random(type, sizes, 1, 1, 4).spread(0),
                         grad = Tensor::random(type, sizes, 2);
            const Tensor w = Tensor::random(type, {n}, 3, 0.5, 2), b = Tensor::random(type, {n}, 4);
            const Sizes outer(sizes.begin(), sizes.end() - 1);
            const Tensor y(type, sizes), mean(DType::f32, outer), rstd(DType::f32, outer);
            const Tensor dx(type, sizes), dw(type, {n}), db(type, {n});
            const double eps = centered ? 1e-5 : 1e-6;
            Call forward(centered ? XHAL_OP_layer_norm : XHAL_OP_rms_norm);
            forward.add(x);
            weighted ? forward.add(w) : forward.absent();
            if (centered) weighted ? forward.add(b) : forward.absent();
            forward.add(y);
            if (centered) forward.add(mean);
            ASSERT_EQ(forward.add(rstd).run(2), XHAL_OK) << forward.error;
            Call backward(centered ? XHAL_OP_layer_norm_grad : XHAL_OP_rms_norm_grad);
            backward.add(grad).add(x);
            if (centered) backward.add(mean);
            backward.add(rstd);
            weighted ? backward.add(w) : backward.absent();
            backward.add(dx);
            weighted ? backward.add(dw) : backward.absent();
            if (centered) weighted ? backward.add(db) : backward.absent();
            ASSERT_EQ(backward.run(2), XHAL_OK) << backward.error;

            std::vector<double> dw_exact(static_cast<size_t>(n)), db_exact(static_cast<size_t>(n));
            const double u = unit_roundoff(type);
            for (int64_t r = 0; r < rows; ++r) {
              std::vector<double> row, g;
              for (int64_t i = 0; i < n; ++i) {
                row.push_back(x[r * n + i]);
                g.push_back(grad[r * n + i] * (weighted ? w[i] : 1));
              }
              const Norm norm = norm_of(row, eps, centered);
              const auto exact = norm_grad(norm, g, centered);
              if (centered) {
                ASSERT_NEAR(mean[r], norm.mean, 1e-6);
              }
              ASSERT_NEAR(rstd[r], norm.rstd, norm.rstd * 1e-6);
              for (int64_t i = 0; i < n; ++i) {
                const double normal = norm.normal[static_cast<size_t>(i)];
                const double value =
                    normal * (weighted ? w[i] : 1) + (weighted && centered ? b[i] : 0);
                ASSERT_NEAR(y[r * n + i], value, std::fabs(value) * 2 * u + 2e-6);
                ASSERT_NEAR(dx[r * n + i], exact[static_cast<size_t>(i)],
                            std::fabs(exact[static_cast<size_t>(i)]) * 2 * u + 1e-5);
                dw_exact[static_cast<size_t>(i)] += grad[r * n + i] * normal;
                db_exact[static_cast<size_t>(i)] += grad[r * n + i];
              }
            }
            for (int64_t i = 0; weighted && i < n; ++i) {
              ASSERT_NEAR(dw[i], dw_exact[static_cast<size_t>(i)],
                          std::fabs(dw_exact[static_cast<size_t>(i)]) * 2 * u + 2e-5);
              if (centered) {
                ASSERT_NEAR(db[i], db_exact[static_cast<size_t>(i)],
                            std::fabs(db_exact[static_cast<size_t>(i)]) * 2 * u + 2e-5);
              }
            }
          }
  });
}

TEST(LayerNorm, OverSeveralDimensionsAndInPlace) {
  const Tensor in = Tensor::random(DType::f32, {6, 4, 5}, 1),
               w = Tensor::random(DType::f32, {4, 5}, 2);
  for (const Tensor& x : layouts_of(in)) {
    const Tensor y(DType::f32, {6, 4, 5}), in_place = x.copy();
    ASSERT_EQ(
        Call(XHAL_OP_layer_norm).add(x).add(w).absent().add(y).absent().absent().attr(0, 1).run(),
        XHAL_OK);
    ASSERT_EQ(Call(XHAL_OP_layer_norm)
                  .add(in_place)
                  .add(w)
                  .absent()
                  .add(in_place)
                  .absent()
                  .absent()
                  .attr(0, -2)
                  .run(),
              XHAL_OK);
    for (int64_t r = 0; r < 6; ++r) {
      std::vector<double> row;
      for (int64_t i = 0; i < 20; ++i) row.push_back(in[r * 20 + i]);
      const Norm n = norm_of(row, 1e-5, true);
      for (int64_t i = 0; i < 20; ++i) {
        ASSERT_NEAR(y[r * 20 + i], n.normal[static_cast<size_t>(i)] * w[i], 1e-6);
        ASSERT_EQ(in_place[r * 20 + i], y[r * 20 + i]);
      }
    }
  }
}

TEST(LayerNorm, StatisticsOfValuesFarFromZeroKeepTheirDigits) {
  for_each_isa([] {
    const Tensor x = Tensor::random(DType::f32, {4, 1000}, 1, 5000, 5001), y(DType::f32, {4, 1000});
    ASSERT_EQ(Call(XHAL_OP_layer_norm).add(x).absent().absent().add(y).absent().absent().run(),
              XHAL_OK);
    for (int64_t r = 0; r < 4; ++r) {
      std::vector<double> row;
      for (int64_t i = 0; i < 1000; ++i) row.push_back(x[r * 1000 + i]);
      const Norm n = norm_of(row, 1e-5, true);
      for (int64_t i = 0; i < 1000; ++i)
        ASSERT_NEAR(y[r * 1000 + i], n.normal[static_cast<size_t>(i)], 2e-3);
    }
  });
}

TEST(LayerNorm, GradientsDoNotDependOnThreads) {
  const Tensor x = Tensor::random(DType::f32, {999, 65}, 1),
               grad = Tensor::random(DType::f32, {999, 65}, 2);
  const Tensor mean = Tensor::random(DType::f32, {999}, 3),
               rstd = Tensor::random(DType::f32, {999}, 4, 0.5, 1);
  std::vector<std::vector<double>> results;
  for (int threads : {1, 2, 3}) {
    const Tensor dx(DType::f32, {999, 65}), dw(DType::f32, {65}), db(DType::f32, {65});
    ASSERT_EQ(Call(XHAL_OP_layer_norm_grad)
                  .add(grad)
                  .add(x)
                  .add(mean)
                  .add(rstd)
                  .absent()
                  .add(dx)
                  .add(dw)
                  .add(db)
                  .run(threads),
              XHAL_OK);
    auto all = dx.values();
    for (const Tensor& t : {dw, db})
      for (double v : t.values()) all.push_back(v);
    results.push_back(all);
  }
  for (const auto& r : results) EXPECT_EQ(r, results.front());
}

TEST(LayerNorm, WeightOfAnotherSizeIsRefused) {
  Call call(XHAL_OP_layer_norm);
  call.add(Tensor(DType::f32, {2, 8}))
      .add(Tensor(DType::f32, {7}))
      .absent()
      .add(Tensor(DType::f32, {2, 8}))
      .absent()
      .absent();
  EXPECT_EQ(call.run(), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_THAT(call.error, HasSubstr("`weight` of `layer_norm` has sizes [7] instead of [8]"));
}

// Elements of channel c (of sample n, or of all samples for n < 0) of an image tensor [n, c, h, w],
// as flat indices.
std::vector<int64_t> channel_elements(const Sizes& s, int64_t n, int64_t c) {
  std::vector<int64_t> all;
  for (int64_t i = n < 0 ? 0 : n; i < (n < 0 ? s[0] : n + 1); ++i)
    for (int64_t k = 0; k < s[2] * s[3]; ++k) all.push_back((i * s[1] + c) * s[2] * s[3] + k);
  return all;
}

TEST(GroupNorm, ForwardAndGradients) {
  for_each_isa([] {
    const Sizes sizes{3, 6, 4, 5};
    for (DType type : kFloatTypes)
      for (int64_t groups : {1, 2, 6})
        for (const Tensor& x : layouts_of(Tensor::random(type, sizes, 1, 1, 3))) {
          const Tensor grad = Tensor::random(type, sizes, 2),
                       w = Tensor::random(type, {6}, 3, 0.5, 2), b = Tensor::random(type, {6}, 4);
          const Tensor y(type, sizes), mean(DType::f32, {3, groups}), rstd(DType::f32, {3, groups});
          const Tensor dx(type, sizes), dw(type, {6}), db(type, {6});
          ASSERT_EQ(Call(XHAL_OP_group_norm)
                        .add(x)
                        .add(w)
                        .add(b)
                        .add(y)
                        .add(mean)
                        .add(rstd)
                        .attr(0, groups)
                        .run(2),
                    XHAL_OK);
          ASSERT_EQ(Call(XHAL_OP_group_norm_grad)
                        .add(grad)
                        .add(x)
                        .add(mean)
                        .add(rstd)
                        .add(w)
                        .add(dx)
                        .add(dw)
                        .add(db)
                        .attr(0, groups)
                        .run(2),
                    XHAL_OK);
          std::vector<double> dw_exact(6), db_exact(6);
          const double u = unit_roundoff(type);
          for (int64_t n = 0; n < 3; ++n)
            for (int64_t group = 0; group < groups; ++group) {
              std::vector<double> row, g;
              std::vector<int64_t> at, channel;
              for (int64_t c = group * 6 / groups; c < (group + 1) * 6 / groups; ++c)
                for (int64_t i : channel_elements(sizes, n, c)) {
                  at.push_back(i);
                  channel.push_back(c);
                  row.push_back(x[i]);
                  g.push_back(grad[i] * w[c]);
                }
              const Norm norm = norm_of(row, 1e-5, true);
              const auto exact = norm_grad(norm, g, true);
              ASSERT_NEAR(mean[n * groups + group], norm.mean, 1e-6);
              for (size_t i = 0; i < at.size(); ++i) {
                const double value = norm.normal[i] * w[channel[i]] + b[channel[i]];
                ASSERT_NEAR(y[at[i]], value, std::fabs(value) * 2 * u + 3e-6);
                ASSERT_NEAR(dx[at[i]], exact[i], std::fabs(exact[i]) * 2 * u + 1e-5);
                dw_exact[static_cast<size_t>(channel[i])] += grad[at[i]] * norm.normal[i];
                db_exact[static_cast<size_t>(channel[i])] += grad[at[i]];
              }
            }
          for (int64_t c = 0; c < 6; ++c) {
            ASSERT_NEAR(dw[c], dw_exact[static_cast<size_t>(c)],
                        std::fabs(dw_exact[static_cast<size_t>(c)]) * 2 * u + 2e-5);
            ASSERT_NEAR(db[c], db_exact[static_cast<size_t>(c)],
                        std::fabs(db_exact[static_cast<size_t>(c)]) * 2 * u + 2e-5);
          }
        }
  });
}

TEST(BatchNorm, TrainingUpdatesTheRunningStatisticsAndEvaluationUsesThem) {
  for_each_isa([] {
    const Sizes sizes{5, 3, 2, 7};
    for (DType type : kFloatTypes)
      for (bool training : {true, false})
        for (const Tensor& x : layouts_of(Tensor::random(type, sizes, 1, 1, 3))) {
          const Tensor grad = Tensor::random(type, sizes, 2),
                       w = Tensor::random(DType::f32, {3}, 3, 0.5, 2),
                       b = Tensor::random(DType::f32, {3}, 4);
          const Tensor running_mean = Tensor::random(DType::f32, {3}, 5),
                       running_var = Tensor::random(DType::f32, {3}, 6, 1, 2);
          const Tensor mean_before = running_mean.copy(), var_before = running_var.copy();
          const Tensor y(type, sizes), mean(DType::f32, {3}), rstd(DType::f32, {3}),
              dx(type, sizes), dw(DType::f32, {3}), db(DType::f32, {3});
          ASSERT_EQ(Call(XHAL_OP_batch_norm)
                        .add(x)
                        .add(w)
                        .add(b)
                        .add(running_mean)
                        .add(running_var)
                        .add(y)
                        .add(mean)
                        .add(rstd)
                        .attr(0, training)
                        .attr_float(2, 0.25)
                        .run(2),
                    XHAL_OK);
          ASSERT_EQ(Call(XHAL_OP_batch_norm_grad)
                        .add(grad)
                        .add(x)
                        .add(w)
                        .add(running_mean)
                        .add(running_var)
                        .add(mean)
                        .add(rstd)
                        .add(dx)
                        .add(dw)
                        .add(db)
                        .attr(0, training)
                        .run(2),
                    XHAL_OK);
          const double u = unit_roundoff(type);
          for (int64_t c = 0; c < 3; ++c) {
            std::vector<double> row, g;
            const auto at = channel_elements(sizes, -1, c);
            for (int64_t i : at) row.push_back(x[i]), g.push_back(grad[i] * w[c]);
            Norm norm = norm_of(row, 1e-5, true);
            const double count = static_cast<double>(row.size());
            if (training) {
              const double var = (1 / (norm.rstd * norm.rstd) - 1e-5) * count / (count - 1);
              ASSERT_NEAR(running_mean[c], 0.75 * mean_before[c] + 0.25 * norm.mean, 1e-6);
              ASSERT_NEAR(running_var[c], 0.75 * var_before[c] + 0.25 * var, 2e-6);
            } else {
              ASSERT_EQ(running_mean[c], mean_before[c]);
              norm.mean = running_mean[c];
              norm.rstd = 1 / std::sqrt(running_var[c] + 1e-5);
              for (size_t i = 0; i < row.size(); ++i)
                norm.normal[i] = (row[i] - norm.mean) * norm.rstd;
            }
            ASSERT_NEAR(mean[c], norm.mean, 1e-6);
            ASSERT_NEAR(rstd[c], norm.rstd, 1e-5);
            const auto exact = norm_grad(norm, g, true);
            double dw_exact = 0, db_exact = 0;
            for (size_t i = 0; i < row.size(); ++i) {
              const double value = norm.normal[i] * w[c] + b[c],
                           dvalue = training ? exact[i] : g[i] * norm.rstd;
              ASSERT_NEAR(y[at[i]], value, std::fabs(value) * 2 * u + 3e-6);
              ASSERT_NEAR(dx[at[i]], dvalue, std::fabs(dvalue) * 2 * u + 1e-5);
              dw_exact += grad[at[i]] * norm.normal[i];
              db_exact += grad[at[i]];
            }
            ASSERT_NEAR(dw[c], dw_exact, 2e-5);
            ASSERT_NEAR(db[c], db_exact, 2e-5);
          }
        }
  });
}

}  // namespace
}  // namespace xhal::cpu::test
