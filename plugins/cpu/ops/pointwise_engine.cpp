// SPDX-License-Identifier: Apache-2.0
// pointwise_engine.cpp: a loop nest that brings strided, broadcast and narrower operands to a
// kernel on dense runs of one computing type, block by block, and its results back.
#include "pointwise_engine.hpp"

#include <algorithm>

#include "convert.hpp"
#include "iterate.hpp"

namespace xhal::cpu {
namespace {

template <class T>
struct Lane {
  static constexpr size_t kBlock = 4096 / sizeof(T);
  static constexpr size_t kBroadcast = 64 / sizeof(T);
};

template <class T>
T from_scalar(const Scalar& s) {
  if constexpr (std::is_floating_point_v<T>) {
    return static_cast<T>(s.as_double());
  } else {
    return s.as_int();
  }
}

constexpr DType native(float) { return DType::f32; }
constexpr DType native(double) { return DType::f64; }
constexpr DType native(int64_t) { return DType::i64; }

// f32 work of this many elements is worth a second thread.
constexpr int64_t kGrain = 32768;

bool is_expensive(Kernel k) {
  switch (k) {
    case Kernel::exp:
    case Kernel::expm1:
    case Kernel::log:
    case Kernel::log1p:
    case Kernel::log2:
    case Kernel::sin:
    case Kernel::cos:
    case Kernel::tanh:
    case Kernel::sigmoid:
    case Kernel::erf:
    case Kernel::gelu:
    case Kernel::gelu_tanh:
    case Kernel::silu:
    case Kernel::div_floor:
    case Kernel::remainder:
    case Kernel::fmod:
    case Kernel::pow:
    case Kernel::gelu_grad:
    case Kernel::gelu_tanh_grad:
    case Kernel::silu_grad:
    case Kernel::swiglu:
    case Kernel::swiglu_grad:
      return true;
    default:
      return false;
  }
}

template <class T>
class PointwiseOp final : public Op {
 public:
  PointwiseOp(const PointwiseSpec& spec, const OpRequest& request, PointwiseFn<T> kernel)
      : kernel_(kernel),
        inputs_(spec.inputs),
        outputs_(spec.outputs),
        grain_(is_expensive(spec.kernel) ? kGrain / 4 : kGrain) {
    const int64_t* strides[kMaxIterated];
    int views = 0;
    const xhal_tensor_desc& out = *request.operand(spec.first_output);
    for (int o = 0; o < outputs_; ++o) add(request, spec.first_output + o, out_[o], strides, views);
    for (int k = 0; k < inputs_; ++k) {
      const PointwiseInput& input = spec.input[k];
      const xhal_tensor_desc* t = input.group < 0 ? nullptr : request.operand(input.group);
      if (t != nullptr) {
        add(request, input.group, in_[k], strides, views);
        continue;
      }
      in_[k].scalar = input.scalar;
      in_[k].constant = static_cast<T>(input.constant);
      if constexpr (std::is_same_v<T, int64_t>) {
        if (std::isinf(input.constant))
          in_[k].constant = input.constant < 0 ? INT64_MIN : INT64_MAX;
      }
    }
    for (int p = 0; p < kMaxParams; ++p) {
      param_scalar_[p] = spec.param[p].scalar;
      param_constant_[p] = static_cast<T>(spec.param[p].constant);
    }
    plan_ = plan_iteration(out.ndim, out.sizes, {strides, static_cast<size_t>(views)});
    for (int o = 0; o < outputs_; ++o) classify(out_[o], true);
    for (int k = 0; k < inputs_; ++k) classify(in_[k], false);
    flat_ = plan_.ndim <= 1;
    for (int k = 0; k < inputs_; ++k)
      flat_ &= in_[k].view < 0 || in_[k].direct || in_[k].stride == 0;
    for (int o = 0; o < outputs_; ++o) flat_ &= out_[o].direct;
    gathers_rows_ = plan_.ndim > 1 && plan_.inner() < 32;
    if constexpr (std::is_same_v<T, float>) {
      if (outputs_ == 1 && out_[0].stride == 1 &&
          plan_.inner() >= static_cast<int64_t>(Lane<T>::kBlock) &&
          worth_streaming(plan_.count * out_[0].size))
        stream_ = streamer<T>(out_[0].type);
    }
  }

  // Chooses among kernels by the value of the scalar that stands for input 1.
  PointwiseFn<T> (*choose)(double exponent, PointwiseFn<T> otherwise) = nullptr;
  std::unique_ptr<Op> when_fractional;  // runs instead when a scalar input is not an integer

  xhal_status run(const Launch& launch) const override {
    if (plan_.count == 0) return XHAL_OK;
    if (when_fractional != nullptr)
      for (int k = 0; k < inputs_; ++k)
        if (in_[k].scalar >= 0 && is_fractional(launch.scalars[in_[k].scalar]))
          return when_fractional->run(launch);

    State state;
    state.kernel = kernel_;
    if (choose != nullptr && in_[1].scalar >= 0)
      state.kernel = choose(launch.scalars[in_[1].scalar].as_double(), kernel_);
    for (int p = 0; p < kMaxParams; ++p)
      state.params[p] = param_scalar_[p] < 0 ? param_constant_[p]
                                             : from_scalar<T>(launch.scalars[param_scalar_[p]]);
    state.stream = stream_ != nullptr;  // not in place: those lines are in the caches already
    for (int k = 0; k < inputs_; ++k)
      if (in_[k].view >= 0)
        state.stream &= launch.pointers[in_[k].position] != launch.pointers[out_[0].position];
    for (int k = 0; k < inputs_; ++k) {
      const Operand& in = in_[k];
      if (in.view >= 0) {
        state.in[k] = at(launch.pointers[in.position], plan_.offsets[in.view], in);
        if (flat_ && !state.stream && in.stride == 0) {
          T value;
          in.load(state.in[k], 0, 1, &value);
          fill_broadcast(state, k, value);
        }
        continue;
      }
      fill_broadcast(state, k,
                     in.scalar < 0 ? in.constant : from_scalar<T>(launch.scalars[in.scalar]));
    }
    for (int o = 0; o < outputs_; ++o)
      state.out[o] = at(launch.pointers[out_[o].position], plan_.offsets[out_[o].view], out_[o]);

    if (plan_.count <= grain_) {
      run_range(state, 0, plan_.count);
    } else {
      launch.pool.parallel_for(plan_.count, grain_,
                               [&](int64_t begin, int64_t end) { run_range(state, begin, end); });
    }
    return XHAL_OK;
  }

 private:
  struct Operand {
    LoadFn<T> load = nullptr;
    StoreFn<T> store = nullptr;
    int64_t stride = 0;     // in the innermost dimension
    uint32_t position = 0;  // among the launch's pointers
    int view = -1;          // among the plan's operands; -1: not a tensor
    int scalar = -1;
    uint8_t size = 0;  // of an element, in bytes
    DType type{};
    bool direct = false;  // the kernel can use the memory as it is
    T constant{};
  };

  struct State {
    PointwiseFn<T> kernel;
    T params[kMaxParams];
    const char* in[kMaxInputs];
    char* out[kMaxOutputs];
    bool stream;
    alignas(64) T broadcast[kMaxInputs][Lane<T>::kBroadcast];
  };

  static bool is_fractional(const Scalar& s) {
    return !s.is_int && s.f != static_cast<double>(static_cast<int64_t>(s.f));
  }

  static char* at(void* pointer, int64_t offset, const Operand& o) {
    return static_cast<char*>(pointer) + offset * o.size;
  }

  static void fill_broadcast(State& state, int k, T value) {
    for (T& lane : state.broadcast[k]) lane = value;
    state.in[k] = reinterpret_cast<const char*>(state.broadcast[k]);
  }

  void add(const OpRequest& request, uint32_t group, Operand& o, const int64_t** strides,
           int& views) {
    const xhal_tensor_desc& t = *request.operand(group);
    o.position = request.first_operand(group);
    o.type = dtype_of(t);
    o.size = static_cast<uint8_t>(size_of(o.type));
    strides[views] = t.strides;
    o.view = views++;
  }

  void classify(Operand& o, bool is_output) {
    if (o.view < 0) return;
    o.stride = plan_.inner_stride(o.view);
    const bool dense = o.stride == 1;
    o.direct = dense && o.type == native(T{});
    if (is_output) {
      o.store = storer<T>(o.type, dense);
    } else {
      o.load = loader<T>(o.type, dense);
    }
  }

  void run_range(const State& state, int64_t begin, int64_t end) const {
    if (flat_ && !state.stream) return run_flat(state, begin, end);
    if (gathers_rows_) return run_gathered(state, begin, end);
    run_rows(state, begin, end);
  }

  void run_flat(const State& state, int64_t begin, int64_t end) const {
    const T* in[kMaxInputs];
    size_t inc[kMaxInputs];
    T* out[kMaxOutputs];
    for (int k = 0; k < inputs_; ++k) {
      inc[k] = in_[k].direct && in_[k].stride != 0;
      in[k] = reinterpret_cast<const T*>(state.in[k]) + (inc[k] != 0 ? begin : 0);
    }
    for (int o = 0; o < outputs_; ++o) out[o] = reinterpret_cast<T*>(state.out[o]) + begin;
    state.kernel(in, inc, out, static_cast<size_t>(end - begin), state.params);
  }

  // Along the innermost dimension, in runs of at most a block.
  void run_rows(const State& state, int64_t begin, int64_t end) const {
    alignas(64) T in_block[kMaxInputs][Lane<T>::kBlock];
    alignas(64) T out_block[kMaxOutputs][Lane<T>::kBlock];
    const T* in[kMaxInputs];
    size_t inc[kMaxInputs];
    T* out[kMaxOutputs];
    const void* broadcast_of[kMaxInputs] = {};
    IterPosition position(plan_, begin);
    while (begin < end) {
      const int64_t n =
          std::min({end - begin, position.left(), static_cast<int64_t>(Lane<T>::kBlock)});
      for (int k = 0; k < inputs_; ++k) {
        const Operand& o = in_[k];
        inc[k] = 0;
        if (o.view < 0) {
          in[k] = state.broadcast[k];
          continue;
        }
        const char* from = state.in[k] + (position.offset(o.view) - plan_.offsets[o.view]) * o.size;
        if (o.stride == 0) {
          in[k] = in_block[k];
          if (broadcast_of[k] == from) continue;
          broadcast_of[k] = from;
          T value;
          o.load(from, 0, 1, &value);
          std::fill_n(in_block[k], Lane<T>::kBroadcast, value);
          continue;
        }
        inc[k] = 1;
        if (o.direct) {
          in[k] = reinterpret_cast<const T*>(from);
          continue;
        }
        in[k] = in_block[k];
        o.load(from, o.stride, static_cast<size_t>(n), in_block[k]);
      }
      char* to[kMaxOutputs];
      for (int q = 0; q < outputs_; ++q) {
        const Operand& o = out_[q];
        to[q] = state.out[q] + (position.offset(o.view) - plan_.offsets[o.view]) * o.size;
        out[q] = o.direct && !state.stream ? reinterpret_cast<T*>(to[q]) : out_block[q];
      }
      state.kernel(in, inc, out, static_cast<size_t>(n), state.params);
      for (int q = 0; q < outputs_; ++q) {
        const Operand& o = out_[q];
        if (state.stream) {
          stream_(out_block[q], static_cast<size_t>(n), to[q], 1);
        } else if (!o.direct) {
          o.store(out_block[q], static_cast<size_t>(n), to[q], o.stride);
        }
      }
      position.advance(n);
      begin += n;
    }
    if (state.stream) finish_streaming();
  }

  // For short rows: gathers a block's worth of them, so that the kernel runs on whole blocks.
  void run_gathered(const State& state, int64_t begin, int64_t end) const {
    alignas(64) T in_block[kMaxInputs][Lane<T>::kBlock];
    alignas(64) T out_block[kMaxOutputs][Lane<T>::kBlock];
    const T* in[kMaxInputs];
    size_t inc[kMaxInputs];
    T* out[kMaxOutputs];
    for (int k = 0; k < inputs_; ++k) {
      in[k] = in_[k].view < 0 ? state.broadcast[k] : in_block[k];
      inc[k] = in_[k].view < 0 ? 0 : 1;
    }
    for (int q = 0; q < outputs_; ++q) out[q] = out_block[q];
    IterPosition reading(plan_, begin), writing(plan_, begin);
    while (begin < end) {
      const int64_t count = std::min(end - begin, static_cast<int64_t>(Lane<T>::kBlock));
      for (int64_t done = 0; done < count;) {
        const int64_t n = std::min(count - done, reading.left());
        for (int k = 0; k < inputs_; ++k) {
          const Operand& o = in_[k];
          if (o.view < 0) continue;
          o.load(state.in[k] + (reading.offset(o.view) - plan_.offsets[o.view]) * o.size, o.stride,
                 static_cast<size_t>(n), in_block[k] + done);
        }
        reading.advance(n);
        done += n;
      }
      state.kernel(in, inc, out, static_cast<size_t>(count), state.params);
      for (int64_t done = 0; done < count;) {
        const int64_t n = std::min(count - done, writing.left());
        for (int q = 0; q < outputs_; ++q) {
          const Operand& o = out_[q];
          o.store(out_block[q] + done, static_cast<size_t>(n),
                  state.out[q] + (writing.offset(o.view) - plan_.offsets[o.view]) * o.size,
                  o.stride);
        }
        writing.advance(n);
        done += n;
      }
      begin += count;
    }
  }

  PointwiseFn<T> kernel_;
  int inputs_, outputs_;
  bool flat_ = false;  // one dimension, no conversion: a single kernel call
  bool gathers_rows_ = false;
  StoreFn<T> stream_ = nullptr;  // for outputs that no cache would hold
  int64_t grain_;
  Operand in_[kMaxInputs], out_[kMaxOutputs];
  int param_scalar_[kMaxParams];
  T param_constant_[kMaxParams];
  IterPlan plan_;
};

template <class T>
PointwiseFn<T> kernel_for(Kernel kernel) {
  if constexpr (std::is_same_v<T, float>) return float_kernel(kernel);
  if constexpr (std::is_same_v<T, double>) return double_kernel(kernel);
  if constexpr (std::is_same_v<T, int64_t>) return int_kernel(kernel);
}

template <class T>
PointwiseFn<T> choose_power(double exponent, PointwiseFn<T> otherwise) {
  Kernel k;
  if (exponent == 2) {
    k = Kernel::square;
  } else if (exponent == 3) {
    k = Kernel::cube;
  } else if (exponent == 1) {
    k = Kernel::copy;
  } else if (exponent == 0.5) {
    k = Kernel::pow_half;
  } else if (exponent == -1) {
    k = Kernel::reciprocal;
  } else {
    return otherwise;
  }
  const PointwiseFn<T> chosen = kernel_for<T>(k);
  return chosen != nullptr ? chosen : otherwise;
}

template <class T>
Prepared make(const PointwiseSpec& spec, const OpRequest& request, Refusal& refusal) {
  const PointwiseFn<T> kernel = kernel_for<T>(spec.kernel);
  if (kernel == nullptr)
    return refuse(refusal, XHAL_ERR_UNSUPPORTED, 1 + request.first_operand(spec.first_output),
                  text("`", op_name(request.id()), "` does not compute with ",
                       std::is_same_v<T, float>    ? "floats"
                       : std::is_same_v<T, double> ? "f64"
                                                   : "integers alone"));
  auto op = std::make_unique<PointwiseOp<T>>(spec, request, kernel);
  if (spec.kernel == Kernel::pow) op->choose = choose_power<T>;
  if constexpr (std::is_same_v<T, int64_t>) {
    if (spec.compares) op->when_fractional = make<float>(spec, request, refusal);
  }
  return op;
}

}  // namespace

Prepared build_pointwise(const PointwiseSpec& spec, const OpRequest& request, Refusal& refusal) {
  bool floats = false, doubles = false;
  for (uint32_t i = 0; i < request.info().operand_count; ++i) {
    const DType type = dtype_of(request.info().operands[i]);
    floats |= is_float(type);
    doubles |= type == DType::f64;
  }
  if (doubles) return make<double>(spec, request, refusal);
  return floats ? make<float>(spec, request, refusal) : make<int64_t>(spec, request, refusal);
}

}  // namespace xhal::cpu
