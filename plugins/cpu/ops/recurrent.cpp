// SPDX-License-Identifier: Apache-2.0
// recurrent.cpp: one step of LSTM and GRU cells, after the matrix products, and its gradient.
#include <algorithm>

#include "convert.hpp"
#include "pointwise.hpp"
#include "scratch.hpp"

namespace xhal::cpu {
namespace {

// A [n, columns] tensor, or a bias [columns]: every row is the same.
struct Rows {
  bool present = false;
  uint32_t operand = 0;
  DType type = DType::f32;
  int64_t row_stride = 0, column_stride = 1;

  Rows() = default;
  Rows(const xhal_tensor_desc& t, uint32_t position)
      : present(true),
        operand(position),
        type(dtype_of(t)),
        row_stride(t.ndim == 2 ? t.strides[0] : 0),
        column_stride(t.strides[t.ndim - 1]) {}

  char* at(const Launch& launch, int64_t row, int64_t column) const {
    return static_cast<char*>(launch.pointers[operand]) +
           (row * row_stride + column * column_stride) * static_cast<int64_t>(size_of(type));
  }
  void load(const Launch& launch, int64_t row, int64_t column, int64_t n, float* to) const {
    loader<float>(type, column_stride == 1)(at(launch, row, column), column_stride,
                                            static_cast<size_t>(n), to);
  }
  void store(const Launch& launch, int64_t row, int64_t column, int64_t n,
             const float* from) const {
    storer<float>(type, column_stride == 1)(from, static_cast<size_t>(n), at(launch, row, column),
                                            column_stride);
  }
};

void apply(Kernel kernel, float* x, int64_t n) {
  const float* in[] = {x};
  const size_t inc[] = {1};
  float_kernel(kernel)(in, inc, &x, static_cast<size_t>(n), nullptr);
}

// What the four operators share: rows of `h` elements, some of them several gates long.
class CellOp : public Op {
 public:
  int64_t n = 0, h = 0;

  xhal_status run(const Launch& launch) const override {
    ScratchAreas scratch(launch.workspace, area_bytes(), areas());
    launch.pool.parallel_for(n, grain(), [&](int64_t begin, int64_t end) {
      const ScratchAreas::Loan area(scratch);
      for (int64_t row = begin; row < end; ++row)
        run_row(launch, row, reinterpret_cast<float*>(area.data()));
    });
    return XHAL_OK;
  }

 protected:
  static constexpr int64_t kRowsOfScratch = 16;
  // `memory` has kRowsOfScratch * h floats.
  virtual void run_row(const Launch& launch, int64_t row, float* memory) const = 0;

  // An absent group has no rows.
  static Rows rows(const OpRequest& request, uint32_t group) {
    const auto* t = request.operand(group);
    return t == nullptr ? Rows() : Rows(*t, request.first_operand(group));
  }
  // n and h from the operand that has them.
  void size(const xhal_tensor_desc& t) {
    n = t.sizes[0], h = t.sizes[1];
    workspace_bytes = static_cast<uint64_t>(areas()) * area_bytes();
    flops = 30.0 * static_cast<double>(n * h);
    bytes = 14.0 * static_cast<double>(n * h) * static_cast<double>(size_of(dtype_of(t)));
  }
  // to = sum of the present rows
  static void sum(const Launch& launch, int64_t row, int64_t column, int64_t count,
                  std::initializer_list<const Rows*> parts, float* to, float* buffer) {
    std::fill_n(to, count, 0.0f);
    for (const Rows* part : parts) {
      if (!part->present) continue;
      part->load(launch, row, column, count, buffer);
      for (int64_t i = 0; i < count; ++i) to[i] += buffer[i];
    }
  }

 private:
  int64_t grain() const { return std::max<int64_t>(1, 1024 / std::max<int64_t>(1, h)); }
  uint64_t area_bytes() const {
    return align64(static_cast<uint64_t>(kRowsOfScratch * h) * sizeof(float));
  }
  int areas() const { return ScratchAreas::count_for((n + grain() - 1) / grain()); }
};

class LstmCell final : public CellOp {
 public:
  explicit LstmCell(const OpRequest& r)
      : input_(rows(r, 0)),
        hidden_(rows(r, 1)),
        cx_(rows(r, 2)),
        input_bias_(rows(r, 3)),
        hidden_bias_(rows(r, 4)),
        hy_(rows(r, 5)),
        cy_(rows(r, 6)),
        workspace_(rows(r, 7)) {
    size(*r.operand(2));
  }

 private:
  void run_row(const Launch& launch, int64_t row, float* m) const override {
    float *gates = m, *c = m + 4 * h, *buffer = m + 5 * h;
    sum(launch, row, 0, 4 * h, {&input_, &hidden_, &input_bias_, &hidden_bias_}, gates, buffer);
    float *i = gates, *f = gates + h, *g = gates + 2 * h, *o = gates + 3 * h;
    apply(Kernel::sigmoid, i, 2 * h);
    apply(Kernel::tanh, g, h);
    apply(Kernel::sigmoid, o, h);
    workspace_.store(launch, row, 0, 4 * h, gates);
    cx_.load(launch, row, 0, h, c);
    for (int64_t e = 0; e < h; ++e) c[e] = f[e] * c[e] + i[e] * g[e];
    cy_.store(launch, row, 0, h, c);
    apply(Kernel::tanh, c, h);
    for (int64_t e = 0; e < h; ++e) c[e] *= o[e];
    hy_.store(launch, row, 0, h, c);
  }

  Rows input_, hidden_, cx_, input_bias_, hidden_bias_, hy_, cy_, workspace_;
};

class LstmCellGrad final : public CellOp {
 public:
  explicit LstmCellGrad(const OpRequest& r)
      : dhy_(rows(r, 0)),
        dcy_(rows(r, 1)),
        cx_(rows(r, 2)),
        cy_(rows(r, 3)),
        workspace_(rows(r, 4)),
        dgates_(rows(r, 5)),
        dcx_(rows(r, 6)) {
    size(*r.operand(2));
  }

 private:
  void run_row(const Launch& launch, int64_t row, float* m) const override {
    float *gates = m, *dhy = m + 4 * h, *dc = m + 5 * h, *cx = m + 6 * h, *tanh_c = m + 7 * h,
          *buffer = m + 8 * h;
    workspace_.load(launch, row, 0, 4 * h, gates);
    sum(launch, row, 0, h, {&dhy_}, dhy, buffer);
    sum(launch, row, 0, h, {&dcy_}, dc, buffer);
    cx_.load(launch, row, 0, h, cx);
    cy_.load(launch, row, 0, h, tanh_c);
    apply(Kernel::tanh, tanh_c, h);
    for (int64_t e = 0; e < h; ++e) {
      const float i = gates[e], f = gates[h + e], g = gates[2 * h + e], o = gates[3 * h + e],
                  t = tanh_c[e];
      const float d = dc[e] + dhy[e] * o * (1 - t * t);
      gates[e] = d * g * i * (1 - i);
      gates[h + e] = d * cx[e] * f * (1 - f);
      gates[2 * h + e] = d * i * (1 - g * g);
      gates[3 * h + e] = dhy[e] * t * o * (1 - o);
      dc[e] = d * f;
    }
    dgates_.store(launch, row, 0, 4 * h, gates);
    dcx_.store(launch, row, 0, h, dc);
  }

  Rows dhy_, dcy_, cx_, cy_, workspace_, dgates_, dcx_;
};

class GruCell final : public CellOp {
 public:
  explicit GruCell(const OpRequest& r)
      : input_(rows(r, 0)),
        hidden_(rows(r, 1)),
        hx_(rows(r, 2)),
        input_bias_(rows(r, 3)),
        hidden_bias_(rows(r, 4)),
        hy_(rows(r, 5)),
        workspace_(rows(r, 6)) {
    size(*r.operand(2));
  }

 private:
  void run_row(const Launch& launch, int64_t row, float* m) const override {
    float *r = m, *z = m + h, *n_gate = m + 2 * h, *hx = m + 3 * h, *hidden_n = m + 4 * h,
          *buffer = m + 5 * h;
    sum(launch, row, 0, 2 * h, {&input_, &hidden_, &input_bias_, &hidden_bias_}, r, buffer);
    apply(Kernel::sigmoid, r, 2 * h);
    sum(launch, row, 2 * h, h, {&hidden_, &hidden_bias_}, hidden_n, buffer);
    sum(launch, row, 2 * h, h, {&input_, &input_bias_}, n_gate, buffer);
    for (int64_t e = 0; e < h; ++e) n_gate[e] += r[e] * hidden_n[e];
    apply(Kernel::tanh, n_gate, h);
    hx_.load(launch, row, 0, h, hx);
    workspace_.store(launch, row, 0, 5 * h, m);
    for (int64_t e = 0; e < h; ++e) hx[e] = n_gate[e] + z[e] * (hx[e] - n_gate[e]);
    hy_.store(launch, row, 0, h, hx);
  }

  Rows input_, hidden_, hx_, input_bias_, hidden_bias_, hy_, workspace_;
};

class GruCellGrad final : public CellOp {
 public:
  explicit GruCellGrad(const OpRequest& r)
      : dhy_(rows(r, 0)),
        workspace_(rows(r, 1)),
        dinput_(rows(r, 2)),
        dhidden_(rows(r, 3)),
        dhx_(rows(r, 4)) {
    size(*r.operand(4));
  }

 private:
  void run_row(const Launch& launch, int64_t row, float* m) const override {
    float *saved = m, *dhy = m + 5 * h, *gates = m + 6 * h, *dhidden_n = m + 9 * h,
          *dhx = m + 10 * h, *buffer = m + 11 * h;
    workspace_.load(launch, row, 0, 5 * h, saved);
    sum(launch, row, 0, h, {&dhy_}, dhy, buffer);
    for (int64_t e = 0; e < h; ++e) {
      const float r = saved[e], z = saved[h + e], n_gate = saved[2 * h + e], hx = saved[3 * h + e];
      const float hidden_n = saved[4 * h + e];
      const float dn = dhy[e] * (1 - z) * (1 - n_gate * n_gate);
      gates[e] = dn * hidden_n * r * (1 - r);
      gates[h + e] = dhy[e] * (hx - n_gate) * z * (1 - z);
      gates[2 * h + e] = dn;
      dhidden_n[e] = dn * r;
      dhx[e] = dhy[e] * z;
    }
    dinput_.store(launch, row, 0, 3 * h, gates);
    dhidden_.store(launch, row, 0, 2 * h, gates);
    dhidden_.store(launch, row, 2 * h, h, dhidden_n);
    dhx_.store(launch, row, 0, h, dhx);
  }

  Rows dhy_, workspace_, dinput_, dhidden_, dhx_;
};

template <class Cell>
Prepared make(const OpRequest& request, Refusal& refusal) {
  for (uint32_t i = 1; i < request.info().operand_count; ++i)
    if (dtype_of(request.info().operands[i]) != dtype_of(request.info().operands[0]))
      return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + i,
                    text(op_name(request.id()), ": all operands must have one dtype"));
  return std::make_unique<Cell>(request);
}

constexpr KernelEntry kOps[] = {
    {XHAL_OP_lstm_cell, make<LstmCell>},
    {XHAL_OP_lstm_cell_grad, make<LstmCellGrad>},
    {XHAL_OP_gru_cell, make<GruCell>},
    {XHAL_OP_gru_cell_grad, make<GruCellGrad>},
};

}  // namespace

std::span<const KernelEntry> recurrent_ops() { return kOps; }

}  // namespace xhal::cpu
