// SPDX-License-Identifier: Apache-2.0
// recurrent_test.cpp: LSTM and GRU steps against their definition, their gradients
// against its derivative.
#include <gtest/gtest.h>

#include "kernel_harness.hpp"

namespace xhal::cpu::test {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
std::string dtype_name(const testing::TestParamInfo<DType>& info) {
  return std::string(name_of(info.param));
}

class RecurrentTest : public testing::TestWithParam<DType> {
 protected:
  static constexpr int64_t kN = 5, kH = 37;
  DType type() const { return GetParam(); }
  Tensor random(Sizes sizes, uint32_t seed) const {
    return Tensor::random(type(), std::move(sizes), seed);
  }
  void near(double got, double want) const {
    EXPECT_NEAR(got, want, 4 * unit_roundoff(type()) * (std::abs(want) + 0.5) + 1e-6);
  }
};
INSTANTIATE_TEST_SUITE_P(, RecurrentTest, testing::Values(DType::f32, DType::bf16, DType::f16),
                         dtype_name);

TEST_P(RecurrentTest, LstmCellWithAndWithoutBias) {
  for (const bool biased : {false, true}) {
    const Tensor input = random({kN, 4 * kH}, 1),
                 hidden = random({kN, 4 * kH}, 2).stored_as({1, 0}), cx = random({kN, kH}, 3);
    const Tensor bias = random({4 * kH}, 4), bias2 = random({4 * kH}, 5).spread(0);
    Tensor hy(type(), {kN, kH}), cy(type(), {kN, kH}), workspace(type(), {kN, 4 * kH});
    Call call(XHAL_OP_lstm_cell);
    call.add(input).add(hidden).add(cx);
    biased ? call.add(bias).add(bias2) : call.absent().absent();
    call.add(hy).add(cy).add(workspace);
    ASSERT_EQ(call.run(2), XHAL_OK) << call.error;
    for (int64_t n = 0; n < kN; ++n)
      for (int64_t e = 0; e < kH; ++e) {
        const auto gate = [&](int64_t g) {
          const int64_t c = g * kH + e;
          return input.at({n, c}) + hidden.at({n, c}) + (biased ? bias[c] + bias2[c] : 0);
        };
        const double i = sigmoid(gate(0)), f = sigmoid(gate(1)), g = std::tanh(gate(2)),
                     o = sigmoid(gate(3));
        const double c = f * cx.at({n, e}) + i * g;
        near(cy.at({n, e}), c);
        near(hy.at({n, e}), o * std::tanh(c));
        near(workspace.at({n, e}), i);
        near(workspace.at({n, kH + e}), f);
        near(workspace.at({n, 2 * kH + e}), g);
        near(workspace.at({n, 3 * kH + e}), o);
      }
  }
}

TEST_P(RecurrentTest, LstmCellGradAlsoWithOneGradientAbsent) {
  for (const int absent : {0, 1, 2}) {
    const Tensor workspace = Tensor::random(type(), {kN, 4 * kH}, 1, 0.1, 0.9),
                 cx = random({kN, kH}, 2), cy = random({kN, kH}, 3);
    const Tensor dhy = random({kN, kH}, 4), dcy = random({kN, kH}, 5);
    Tensor dgates(type(), {kN, 4 * kH}), dcx(type(), {kN, kH});
    Call call(XHAL_OP_lstm_cell_grad);
    absent == 1 ? call.absent() : call.add(dhy);
    absent == 2 ? call.absent() : call.add(dcy);
    call.add(cx).add(cy).add(workspace).add(dgates).add(dcx);
    const xhal_status status = call.run(2);
    ASSERT_EQ(status, XHAL_OK) << call.error;
    for (int64_t n = 0; n < kN; ++n)
      for (int64_t e = 0; e < kH; ++e) {
        const double i = workspace.at({n, e}), f = workspace.at({n, kH + e}),
                     g = workspace.at({n, 2 * kH + e});
        const double o = workspace.at({n, 3 * kH + e}), t = std::tanh(cy.at({n, e}));
        const double dh = absent == 1 ? 0 : dhy.at({n, e}),
                     dc = (absent == 2 ? 0 : dcy.at({n, e})) + dh * o * (1 - t * t);
        near(dgates.at({n, e}), dc * g * i * (1 - i));
        near(dgates.at({n, kH + e}), dc * cx.at({n, e}) * f * (1 - f));
        near(dgates.at({n, 2 * kH + e}), dc * i * (1 - g * g));
        near(dgates.at({n, 3 * kH + e}), dh * t * o * (1 - o));
        near(dcx.at({n, e}), dc * f);
      }
  }
}

struct Gru {
  double hy, saved[5];
};
Gru gru(double ir, double iz, double in, double hr, double hz, double hn, double hx) {
  const double r = sigmoid(ir + hr), z = sigmoid(iz + hz), n = std::tanh(in + r * hn);
  return {n + z * (hx - n), {r, z, n, hx, hn}};
}

TEST_P(RecurrentTest, GruCell) {
  const Tensor input = random({kN, 3 * kH}, 1), hidden = random({kN, 3 * kH}, 2),
               hx = random({kN, kH}, 3);
  const Tensor b1 = random({3 * kH}, 4), b2 = random({3 * kH}, 5);
  Tensor hy(type(), {kN, kH}), workspace(type(), {kN, 5 * kH});
  Call call(XHAL_OP_gru_cell);
  call.add(input).add(hidden).add(hx).add(b1).add(b2).add(hy).add(workspace);
  ASSERT_EQ(call.run(2), XHAL_OK) << call.error;
  for (int64_t n = 0; n < kN; ++n)
    for (int64_t e = 0; e < kH; ++e) {
      const auto i = [&](int64_t g) { return input.at({n, g * kH + e}) + b1[g * kH + e]; };
      const auto h = [&](int64_t g) { return hidden.at({n, g * kH + e}) + b2[g * kH + e]; };
      const Gru want = gru(i(0), i(1), i(2), h(0), h(1), h(2), hx.at({n, e}));
      near(hy.at({n, e}), want.hy);
      for (int64_t s = 0; s < 5; ++s) near(workspace.at({n, s * kH + e}), want.saved[s]);
    }
}

TEST(RecurrentGrad, GruCellGradIsTheDerivative) {
  const int64_t n = 3, h = 19;
  const Tensor input = Tensor::random(DType::f32, {n, 3 * h}, 1),
               hidden = Tensor::random(DType::f32, {n, 3 * h}, 2);
  const Tensor hx = Tensor::random(DType::f32, {n, h}, 3),
               dhy = Tensor::random(DType::f32, {n, h}, 4);
  Tensor hy(DType::f32, {n, h}), workspace(DType::f32, {n, 5 * h});
  Call forward(XHAL_OP_gru_cell);
  ASSERT_EQ(forward.add(input).add(hidden).add(hx).absent().absent().add(hy).add(workspace).run(),
            XHAL_OK);
  Tensor dinput(DType::f32, {n, 3 * h}), dhidden(DType::f32, {n, 3 * h}), dhx(DType::f32, {n, h});
  Call back(XHAL_OP_gru_cell_grad);
  ASSERT_EQ(back.add(dhy).add(workspace).add(dinput).add(dhidden).add(dhx).run(2), XHAL_OK)
      << back.error;
  for (int64_t r = 0; r < n; ++r)
    for (int64_t e = 0; e < h; ++e) {
      double x[7];
      for (int64_t g = 0; g < 3; ++g)
        x[g] = input.at({r, g * h + e}), x[3 + g] = hidden.at({r, g * h + e});
      x[6] = hx.at({r, e});
      const auto slope = [&](int at) {
        const double step = 1e-5, before = x[at];
        x[at] = before + step;
        const double up = gru(x[0], x[1], x[2], x[3], x[4], x[5], x[6]).hy;
        x[at] = before - step;
        const double down = gru(x[0], x[1], x[2], x[3], x[4], x[5], x[6]).hy;
        x[at] = before;
        return (up - down) / (2 * step) * dhy.at({r, e});
      };
      for (int g = 0; g < 3; ++g) {
        EXPECT_NEAR(dinput.at({r, g * h + e}), slope(g), 1e-5);
        EXPECT_NEAR(dhidden.at({r, g * h + e}), slope(3 + g), 1e-5);
      }
      EXPECT_NEAR(dhx.at({r, e}), slope(6), 1e-5);
    }
}

TEST(RecurrentEdges, TakesAnEmptyBatchAndRefusesTheWrongWidth) {
  const auto sized = [](int64_t n, int64_t w) { return Tensor(DType::f32, {n, w}); };
  Call empty(XHAL_OP_lstm_cell);
  empty.add(sized(0, 8))
      .add(sized(0, 8))
      .add(sized(0, 2))
      .absent()
      .absent()
      .add(sized(0, 2))
      .add(sized(0, 2))
      .add(sized(0, 8));
  EXPECT_EQ(empty.run(), XHAL_OK) << empty.error;
  Call wrong(XHAL_OP_lstm_cell);
  wrong.add(sized(3, 9))
      .add(sized(3, 8))
      .add(sized(3, 2))
      .absent()
      .absent()
      .add(sized(3, 2))
      .add(sized(3, 2))
      .add(sized(3, 8));
  EXPECT_EQ(wrong.run(), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(
      wrong.error,
      "`input_gates` of `lstm_cell` has sizes [3, 9] instead of [3, 4*h] (n,4*h, where n = 3)");
}

}  // namespace
}  // namespace xhal::cpu::test
