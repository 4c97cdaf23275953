// SPDX-License-Identifier: Apache-2.0
// dnnl_conv.cpp: convolution primitives and the changes of layout around them.
#include "dnnl_conv.hpp"

#include <cstring>
#include <utility>

#include "dnnl.hpp"
#include "dnnl_internal.hpp"
#include "scratch.hpp"

namespace xhal::cpu {
namespace {

using dnnl::memory;
using Kind = ConvSpec::Kind;

// An image or the weights: as the caller has it and as the primitive wants it.
struct Side {
  memory::desc given, wanted;
  int argument = 0;
  bool is_result = false;
  dnnl::reorder change;  // from given to wanted, or back for a result
  bool changes = false;
  uint64_t offset = 0;  // of the changed copy in the scratch memory

  void plan_change() {
    changes = given != wanted;
    if (!changes) return;
    const auto& from = is_result ? wanted : given;
    const auto& to = is_result ? given : wanted;
    change = dnnl::reorder(dnnl::reorder::primitive_desc(dnnl_engine(), from, dnnl_engine(), to));
  }
  bool run_change(void* from, void* to) const {
    const memory source(is_result ? wanted : given, dnnl_engine(), from);
    const memory target(is_result ? given : wanted, dnnl_engine(), to);
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, source.get()}, {DNNL_ARG_TO, target.get()}};
    return dnnl_primitive_execute(change.get(), dnnl_stream().get(), 2, args) == dnnl_success;
  }
};

memory::dims dims_of(const ConvSpec& s, const std::array<int64_t, 3>& sizes) {
  return {sizes.begin(), sizes.begin() + s.spatial};
}

memory::dims image_dims(const ConvSpec& s, int64_t channels, const std::array<int64_t, 3>& size) {
  memory::dims dims{s.n, channels};
  dims.insert(dims.end(), size.begin(), size.begin() + s.spatial);
  return dims;
}

memory::desc given_image(const ConvSpec& s, const memory::dims& dims,
                         const std::array<int64_t, 5>& strides) {
  return {dims, dnnl_type(s.type), memory::dims(strides.begin(), strides.begin() + 2 + s.spatial)};
}

memory::desc wanted_image(const ConvSpec& s, const memory::dims& dims) {
  constexpr memory::format_tag kLast[] = {memory::format_tag::nwc, memory::format_tag::nhwc,
                                          memory::format_tag::ndhwc};
  return {dims, dnnl_type(s.type),
          s.channels_last ? kLast[s.spatial - 1] : memory::format_tag::any};
}

struct Weights {
  memory::dims dims;
  memory::desc given;
};

// A transposed convolution has its inputs and outputs the other way round.
Weights given_weights(const ConvSpec& s) {
  const bool swapped = s.kind == Kind::transposed_forward;
  memory::dims dims, strides;
  if (s.groups > 1) {
    dims.push_back(s.groups);
    strides.push_back(s.weights_strides[0]);
  }
  const int64_t y = s.y_channels / s.groups, x = s.x_channels / s.groups;
  dims.insert(dims.end(), {swapped ? x : y, swapped ? y : x});
  strides.insert(strides.end(),
                 {s.weights_strides[swapped ? 2 : 1], s.weights_strides[swapped ? 1 : 2]});
  for (int i = 0; i < s.spatial; ++i) {
    dims.push_back(s.kernel[static_cast<size_t>(i)]);
    strides.push_back(s.weights_strides[static_cast<size_t>(3 + i)]);
  }
  return {dims, memory::desc(dims, dnnl_type(s.type), strides)};
}

}  // namespace

struct DnnlConv::Impl {
  dnnl::primitive primitive;
  Side x, y, weights;
  memory::desc bias, scratchpad;
  int bias_argument = 0;
  uint64_t scratchpad_offset = 0, scratch_bytes = 0;

  Impl(const ConvSpec& s, const Impl* like);
};

DnnlConv::Impl::Impl(const ConvSpec& s, const Impl* like) {
  const auto x_dims = image_dims(s, s.x_channels, s.x_size),
             y_dims = image_dims(s, s.y_channels, s.y_size);
  const Weights w = given_weights(s);
  const auto weights_type =
      s.kind == Kind::backward_weights ? memory::data_type::f32 : dnnl_type(s.type);
  const auto x_any = wanted_image(s, x_dims), y_any = wanted_image(s, y_dims);
  const memory::desc w_any = like != nullptr
                                 ? like->weights.wanted
                                 : memory::desc(w.dims, weights_type, memory::format_tag::any);
  if (s.bias) {
    const int64_t channels = s.kind == Kind::transposed_forward ? s.x_channels : s.y_channels;
    bias = {{channels}, memory::data_type::f32, memory::format_tag::a};
  }
  const auto strides = dims_of(s, s.stride), padding = dims_of(s, s.padding);
  auto dilation = dims_of(s, s.dilation);
  for (auto& d : dilation) d -= 1;

  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  constexpr auto kTraining = dnnl::prop_kind::forward_training;
  constexpr auto kDirect = dnnl::algorithm::convolution_direct;
  const auto forward = [&](const memory::desc& weights_desc, const memory::desc& bias_desc) {
    return dnnl_describe<dnnl::convolution_forward>(attr, kTraining, kDirect, x_any, weights_desc,
                                                    bias_desc, y_any, strides, dilation, padding,
                                                    padding);
  };
  const memory::desc hint_weights(w.dims, dnnl_type(s.type), memory::format_tag::any);
  switch (s.kind) {
    case Kind::forward: {
      const auto pd = forward(w_any, bias);
      primitive = dnnl::convolution_forward(pd);
      x.wanted = pd.src_desc(), weights.wanted = pd.weights_desc(), y.wanted = pd.dst_desc();
      x.argument = DNNL_ARG_SRC, weights.argument = DNNL_ARG_WEIGHTS, y.argument = DNNL_ARG_DST;
      bias_argument = DNNL_ARG_BIAS;
      y.is_result = true;
      scratchpad = pd.scratchpad_desc();
      break;
    }
    case Kind::backward_data: {
      const auto pd = dnnl_describe_backward<dnnl::convolution_backward_data>(
          attr, forward(hint_weights, {}), kDirect, x_any, w_any, y_any, strides, dilation, padding,
          padding);
      primitive = dnnl::convolution_backward_data(pd);
      x.wanted = pd.diff_src_desc(), weights.wanted = pd.weights_desc(),
      y.wanted = pd.diff_dst_desc();
      x.argument = DNNL_ARG_DIFF_SRC, weights.argument = DNNL_ARG_WEIGHTS,
      y.argument = DNNL_ARG_DIFF_DST;
      x.is_result = true;
      scratchpad = pd.scratchpad_desc();
      break;
    }
    case Kind::backward_weights: {
      const auto pd = dnnl_describe_backward<dnnl::convolution_backward_weights>(
          attr, forward(hint_weights, {}), kDirect, x_any, w_any, bias, y_any, strides, dilation,
          padding, padding);
      primitive = dnnl::convolution_backward_weights(pd);
      x.wanted = pd.src_desc(), weights.wanted = pd.diff_weights_desc(),
      y.wanted = pd.diff_dst_desc();
      x.argument = DNNL_ARG_SRC, weights.argument = DNNL_ARG_DIFF_WEIGHTS,
      y.argument = DNNL_ARG_DIFF_DST;
      bias_argument = DNNL_ARG_DIFF_BIAS;
      weights.is_result = true;
      scratchpad = pd.scratchpad_desc();
      break;
    }
    case Kind::transposed_forward: {
      const auto pd = dnnl_describe<dnnl::deconvolution_forward>(
          attr, kTraining, dnnl::algorithm::deconvolution_direct, y_any, w_any, bias, x_any,
          strides, dilation, padding, padding);
      primitive = dnnl::deconvolution_forward(pd);
      y.wanted = pd.src_desc(), weights.wanted = pd.weights_desc(), x.wanted = pd.dst_desc();
      y.argument = DNNL_ARG_SRC, weights.argument = DNNL_ARG_WEIGHTS, x.argument = DNNL_ARG_DST;
      bias_argument = DNNL_ARG_BIAS;
      x.is_result = true;
      scratchpad = pd.scratchpad_desc();
      break;
    }
  }
  if (!s.bias) bias_argument = 0;
  x.given = given_image(s, x_dims, s.x_strides);
  y.given = given_image(s, y_dims, s.y_strides);
  weights.given = w.given;
  for (Side* side : {&x, &y, &weights}) side->plan_change();
  for (Side* side : {&x, &y}) {
    side->offset = scratch_bytes;
    if (side->changes) scratch_bytes += align64(side->wanted.get_size());
  }
  scratchpad_offset = scratch_bytes;
  scratch_bytes += align64(scratchpad.get_size());
}

DnnlConv::DnnlConv(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DnnlConv::~DnnlConv() = default;

std::shared_ptr<const DnnlConv> DnnlConv::make(const ConvSpec& spec, const DnnlConv* like,
                                               std::string& why) try {
  const SingleThread guard;
  auto impl = std::make_unique<Impl>(spec, like == nullptr ? nullptr : like->impl_.get());
  return std::shared_ptr<const DnnlConv>(new DnnlConv(std::move(impl)));
} catch (const dnnl::error& e) {
  why = e.what();
  return nullptr;
}

uint64_t DnnlConv::packed_weights_bytes() const {
  const Side& w = impl_->weights;
  return w.changes || w.is_result ? align64(w.wanted.get_size()) : 0;
}

bool DnnlConv::pack_weights(const void* weights, void* packed) const {
  const SingleThread guard;
  return impl_->weights.run_change(const_cast<void*>(weights), packed);
}

bool DnnlConv::unpack_weights(const void* packed, void* weights) const {
  const SingleThread guard;
  const Side& w = impl_->weights;
  if (w.changes) return w.run_change(const_cast<void*>(packed), weights);
  std::memcpy(weights, packed, w.given.get_size());
  return true;
}

uint64_t DnnlConv::scratch_bytes() const { return impl_->scratch_bytes; }

bool DnnlConv::run(void* x, void* weights, void* y, float* bias, void* scratch) const {
  const SingleThread guard;
  const Impl& m = *impl_;
  auto* const base = static_cast<char*>(scratch);
  void* const x_used = m.x.changes ? base + m.x.offset : x;
  void* const y_used = m.y.changes ? base + m.y.offset : y;
  bool fine = true;
  if (m.x.changes && !m.x.is_result) fine = m.x.run_change(x, x_used) && fine;
  if (m.y.changes && !m.y.is_result) fine = m.y.run_change(y, y_used) && fine;

  const memory mx(m.x.wanted, dnnl_engine(), x_used), my(m.y.wanted, dnnl_engine(), y_used);
  const memory mw(m.weights.wanted, dnnl_engine(), weights);
  memory ms, mb;
  dnnl_exec_arg_t args[5] = {
      {m.x.argument, mx.get()}, {m.y.argument, my.get()}, {m.weights.argument, mw.get()}};
  int count = 3;
  if (m.scratchpad.get_size() != 0) {
    ms = memory(m.scratchpad, dnnl_engine(), base + m.scratchpad_offset);
    args[count++] = {DNNL_ARG_SCRATCHPAD, ms.get()};
  }
  if (m.bias_argument != 0) {
    mb = memory(m.bias, dnnl_engine(), bias);
    args[count++] = {m.bias_argument, mb.get()};
  }
  fine = fine && dnnl_primitive_execute(m.primitive.get(), dnnl_stream().get(), count, args) ==
                     dnnl_success;
  if (m.x.changes && m.x.is_result) fine = m.x.run_change(x_used, x) && fine;
  if (m.y.changes && m.y.is_result) fine = m.y.run_change(y_used, y) && fine;
  return fine;
}

}  // namespace xhal::cpu
