// SPDX-License-Identifier: Apache-2.0
// dnnl.cpp: primitives of oneDNN 2.6 and 3.x behind one interface.
#include "dnnl.hpp"

#include <array>
#include <atomic>
#include <utility>

#include "dnnl_internal.hpp"

// Declared here because omp.h belongs to a compiler and comes only with some.
extern "C" {
int omp_get_max_threads(void);
void omp_set_num_threads(int);
}

namespace xhal::cpu {
namespace {

using dnnl::memory;

memory::desc matrix(int64_t rows, int64_t columns, DType type, bool transposed, int64_t stride) {
  const auto strides = transposed ? memory::dims{1, stride} : memory::dims{stride, 1};
  return {{rows, columns}, dnnl_type(type), strides};
}

void append_activation(dnnl::post_ops& ops, Activation activation) {
  if (activation == Activation::none) return;
  const auto algorithm = activation == Activation::relu   ? dnnl::algorithm::eltwise_relu
                         : activation == Activation::gelu ? dnnl::algorithm::eltwise_gelu_erf
                                                          : dnnl::algorithm::eltwise_gelu_tanh;
#if DNNL_VERSION_MAJOR >= 3
  ops.append_eltwise(algorithm, 0.0f, 0.0f);
#else
  ops.append_eltwise(1.0f, algorithm, 0.0f, 0.0f);
#endif
}

bool has_isa(dnnl::cpu_isa wanted) {
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto bits = static_cast<unsigned>(wanted);
  return (isa & bits) == bits;
}

}  // namespace

static std::atomic<uint64_t> next_number{1};

const dnnl::engine& dnnl_engine() {
  static const auto* const e = new dnnl::engine(dnnl::engine::kind::cpu, 0);
  return *e;
}

const dnnl::stream& dnnl_stream() {
  thread_local const dnnl::stream s(dnnl_engine());
  return s;
}

memory::data_type dnnl_type(DType type) {
  switch (type) {
    case DType::f32:
      return memory::data_type::f32;
    case DType::bf16:
      return memory::data_type::bf16;
    default:
      return memory::data_type::undef;
  }
}

struct DnnlKernel::Impl {
  // Never used twice, unlike an address.
  const uint64_t number = next_number.fetch_add(1, std::memory_order_relaxed);
  dnnl::primitive primitive;
  memory::desc descs[slot_count];
  int arguments[slot_count] = {};  // DNNL_ARG_*, 0 = not used
  uint64_t scratch_bytes = 0;

  void add(Slot slot, int argument, const memory::desc& desc) {
    descs[slot] = desc;
    arguments[slot] = argument;
  }
  void add_scratch(const memory::desc& desc) {
    scratch_bytes = desc.get_size();
    if (scratch_bytes != 0) add(scratch, DNNL_ARG_SCRATCHPAD, desc);
  }
};

DnnlKernel::DnnlKernel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DnnlKernel::~DnnlKernel() = default;

uint64_t DnnlKernel::scratch_bytes() const { return impl_->scratch_bytes; }

std::shared_ptr<const DnnlKernel> DnnlKernel::matmul(const MatmulSpec& s, std::string& why) try {
  const SingleThread guard;
  const auto src_desc = matrix(s.m, s.k, s.in, s.src_transposed, s.src_stride);
  const auto weights_desc = matrix(s.k, s.n, s.in, s.weights_transposed, s.weights_stride);
  const auto dst_desc = matrix(s.m, s.n, s.out, false, s.dst_stride);
  memory::desc bias_desc;
  if (s.bias != DType::other) bias_desc = matrix(1, s.n, s.bias, false, s.n);

  dnnl::post_ops ops;
  if (s.accumulate) ops.append_sum(1.0f);
  append_activation(ops, s.activation);
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  attr.set_post_ops(ops);

  const auto pd = dnnl_describe<dnnl::matmul>(attr, src_desc, weights_desc, bias_desc, dst_desc);
  auto impl = std::make_unique<Impl>();
  impl->primitive = dnnl::matmul(pd);
  impl->add(src, DNNL_ARG_SRC, src_desc);
  impl->add(weights, DNNL_ARG_WEIGHTS, weights_desc);
  impl->add(dst, DNNL_ARG_DST, dst_desc);
  if (s.bias != DType::other) impl->add(bias, DNNL_ARG_BIAS, bias_desc);
  impl->add_scratch(pd.scratchpad_desc());
  return std::make_shared<DnnlKernel>(std::move(impl));
} catch (const dnnl::error& e) {
  why = e.what();
  return nullptr;
}

struct DnnlKernel::Session::State {
  uint64_t kernel = 0;  // its number
  const Impl* impl = nullptr;
  memory memories[slot_count];
  dnnl_exec_arg_t arguments[slot_count];
  int count = 0;

  void use(const Impl& given) {
    kernel = given.number;
    impl = &given;
    count = 0;
    for (int slot = 0; slot < slot_count; ++slot) {
      if (given.arguments[slot] == 0) continue;
      memories[slot] = memory(given.descs[slot], dnnl_engine(), nullptr);
      arguments[count++] = {given.arguments[slot], memories[slot].get()};
    }
  }
};

DnnlKernel::Session::State& DnnlKernel::Session::state_for(const Impl& impl) {
  constexpr size_t kKept = 16;
  thread_local std::array<State, kKept> states;
  thread_local size_t oldest = 0;
  for (State& state : states)
    if (state.kernel == impl.number) return state;
  State& state = states[std::exchange(oldest, (oldest + 1) % kKept)];
  state.use(impl);
  return state;
}

DnnlKernel::Session::Session(const DnnlKernel& kernel) : state_(state_for(*kernel.impl_)) {}

void DnnlKernel::Session::set(Slot slot, const void* address) {
  if (state_.impl->arguments[slot] != 0)
    dnnl_memory_set_data_handle(state_.memories[slot].get(), const_cast<void*>(address));
}

bool DnnlKernel::Session::run() {
  return dnnl_primitive_execute(state_.impl->primitive.get(), dnnl_stream().get(), state_.count,
                                state_.arguments) == dnnl_success;
}

SingleThread::SingleThread() : before_(omp_get_max_threads()) {
  if (before_ != 1) omp_set_num_threads(1);
}
SingleThread::~SingleThread() {
  if (before_ != 1) omp_set_num_threads(before_);
}

bool dnnl_has_bf16() {
  static const bool yes = has_isa(dnnl::cpu_isa::avx512_core_bf16);
  return yes;
}
bool dnnl_has_avx512() {
  static const bool yes = has_isa(dnnl::cpu_isa::avx512_core);
  return yes;
}

}  // namespace xhal::cpu
