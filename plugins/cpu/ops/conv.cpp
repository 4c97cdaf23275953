// SPDX-License-Identifier: Apache-2.0
// conv.cpp: convolutions and their gradients, cut into tasks by images and channels.
//
// Every operator is one of the primitives of an untransposed convolution y = conv(x, weights); for
// a transposed one, x and y change places. Tasks are made from the shapes only. Gradients of the
// weights are summed over tasks in a fixed order.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "conv_tensor.hpp"
#include "dnnl.hpp"
#include "dnnl_conv.hpp"
#include "scratch.hpp"

namespace xhal::cpu {
namespace {

using Kind = ConvSpec::Kind;

// [0, total) in pieces of `size`, the last one perhaps smaller.
struct Cut {
  int64_t total = 0, size = 1;
  int64_t count() const { return total == 0 ? 0 : (total + size - 1) / size; }
  int64_t last() const { return total - (count() - 1) * size; }
  int64_t length(int64_t i) const { return i == count() - 1 ? last() : size; }
};

class ConvOp final : public Op {
 public:
  ConvSpec spec;  // of the whole convolution
  ConvTensor x, y, weights, bias, dbias;
  bool has_bias = false, has_dbias = false, dbias_from_x = false;

  bool plan(std::string& why);
  xhal_status run(const Launch& launch) const override;

 private:
  struct Memory;

  void cut_tasks();
  bool make_kernel(bool last_images, bool last_channels, std::string& why);
  // Channels (or groups, if there are several) of one cut, counted in elements of each side.
  int64_t x_channels(int64_t cut_length) const;
  int64_t y_channels(int64_t cut_length) const;
  bool run_task(const Memory& m, int64_t images_at, int64_t channels_at, char* scratch) const;
  bool pack(const Memory& m, int64_t channels_at) const;
  bool finish_weights(const Launch& launch, const Memory& m) const;

  const DnnlConv& kernel(int64_t images_at, int64_t channels_at) const {
    return *kernels_[images_at == images_.count() - 1][channels_at == channels_.count() - 1];
  }
  char* weights_at(char* base, int64_t channels_at) const {
    const int dim = spec.groups > 1 ? 0 : cuts_x_ ? 2 : 1;
    return base + channels_at * channels_.size * spec.weights_strides[static_cast<size_t>(dim)] *
                      static_cast<int64_t>(size_of(spec.type));
  }

  bool empty_ = false;
  Cut images_, channels_;
  bool cuts_x_ = false, cuts_y_ = false;  // the channels of x or y are cut (both: the groups are)
  std::shared_ptr<const DnnlConv> kernels_[2][2];
  uint64_t packed_bytes_ = 0;  // of the weights of one cut of channels
  uint64_t scratch_bytes_ = 0;
  int areas_ = 1;
};

struct ConvOp::Memory {
  char *x, *y, *weights;  // as the kernels take them: given, or staged
  float* bias;            // f32, or the sums of each task
  char* packed;           // weights of each cut of channels, or of each task
  char* areas;
};

int64_t ConvOp::x_channels(int64_t length) const {
  if (spec.groups > 1) return length * (spec.x_channels / spec.groups);
  return cuts_x_ ? length : spec.x_channels;
}
int64_t ConvOp::y_channels(int64_t length) const {
  if (spec.groups > 1) return length * (spec.y_channels / spec.groups);
  return cuts_y_ ? length : spec.y_channels;
}

// About eight tasks: by images, and where there are few of them by the channels that are produced.
void ConvOp::cut_tasks() {
  constexpr int64_t kTasks = 8, kLeastChannels = 32;
  const bool sums = spec.kind == Kind::backward_weights;
  int64_t parts = std::min<int64_t>(spec.n, sums ? kTasks : 2 * kTasks);
  if (flops < 2e6) parts = 1;
  if (sums) {  // each part has its own copy of the gradient
    constexpr double kMostBytes = 32 << 20;
    const double one = 4.0 * static_cast<double>(element_count(weights.desc));
    parts = std::clamp<int64_t>(static_cast<int64_t>(kMostBytes / std::max(one, 1.0)), 1, parts);
  }
  images_ = {spec.n, (spec.n + parts - 1) / parts};

  const int64_t wanted = flops < 16e6 ? 1 : kTasks / images_.count();
  const bool produces_x = spec.kind == Kind::backward_data || spec.kind == Kind::transposed_forward;
  cuts_x_ = spec.groups > 1 || produces_x;
  cuts_y_ = spec.groups > 1 || !produces_x;
  const int64_t total = spec.groups > 1 ? spec.groups
                        : produces_x    ? spec.x_channels
                                        : spec.y_channels;
  int64_t size = wanted <= 1 ? total : (total + wanted - 1) / wanted;
  if (spec.groups == 1)
    size = std::min(total, (size + kLeastChannels - 1) / kLeastChannels * kLeastChannels);
  channels_ = {total, size};
}

bool ConvOp::make_kernel(bool last_images, bool last_channels, std::string& why) {
  const int64_t length = last_channels ? channels_.last() : channels_.size;
  ConvSpec s = spec;
  s.n = last_images ? images_.last() : images_.size;
  s.groups = spec.groups > 1 ? length : 1;
  s.x_channels = x_channels(length);
  s.y_channels = y_channels(length);
  const DnnlConv* like = nullptr;
  if (last_images && images_.count() > 1) like = kernels_[0][last_channels].get();
  auto& made = kernels_[last_images][last_channels];
  made = DnnlConv::make(s, like, why);
  if (made == nullptr) return false;
  scratch_bytes_ = std::max(scratch_bytes_, align64(made->scratch_bytes()));
  packed_bytes_ = std::max(packed_bytes_, made->packed_weights_bytes());
  return true;
}

bool ConvOp::plan(std::string& why) {
  empty_ = spec.n == 0;
  for (int i = 0; i < spec.spatial; ++i) {
    const auto d = static_cast<size_t>(i);
    empty_ |= spec.x_size[d] == 0 || spec.y_size[d] == 0;
  }
  if (empty_) return true;
  spec.bias = has_bias || (has_dbias && !dbias_from_x);
  cut_tasks();
  for (const bool last_images : {false, true})
    for (const bool last_channels : {false, true}) {
      // With one cut in a direction, it is the last one.
      if ((!last_images && images_.count() == 1) || (!last_channels && channels_.count() == 1))
        continue;
      if (!make_kernel(last_images, last_channels, why)) return false;
    }
  const int64_t tasks = images_.count() * channels_.count();
  areas_ = ScratchAreas::count_for(tasks);
  const bool sums = spec.kind == Kind::backward_weights;
  workspace_bytes = x.staged_bytes() + y.staged_bytes() + weights.staged_bytes() +
                    static_cast<uint64_t>(sums ? tasks : channels_.count()) * packed_bytes_ +
                    static_cast<uint64_t>(areas_) * scratch_bytes_;
  const int64_t biases = has_bias    ? spec.x_channels + spec.y_channels
                         : spec.bias ? images_.count() * spec.y_channels
                                     : 0;
  workspace_bytes += align64(static_cast<uint64_t>(biases) * sizeof(float));
  return true;
}

bool ConvOp::pack(const Memory& m, int64_t channels_at) const {
  if (packed_bytes_ == 0) return true;
  return kernel(0, channels_at)
      .pack_weights(weights_at(m.weights, channels_at),
                    m.packed + static_cast<uint64_t>(channels_at) * packed_bytes_);
}

bool ConvOp::run_task(const Memory& m, int64_t images_at, int64_t channels_at,
                      char* scratch) const {
  const int64_t image = images_at * images_.size, first = channels_at * channels_.size;
  const auto item = static_cast<int64_t>(size_of(spec.type));
  const int64_t x_first = cuts_x_ ? x_channels(first) : 0,
                y_first = cuts_y_ ? y_channels(first) : 0;
  char* const x_at = m.x + (image * spec.x_strides[0] + x_first * spec.x_strides[1]) * item;
  char* const y_at = m.y + (image * spec.y_strides[0] + y_first * spec.y_strides[1]) * item;
  const bool sums = spec.kind == Kind::backward_weights;
  char* w = weights_at(m.weights, channels_at);
  if (sums || packed_bytes_ != 0)
    w = m.packed +
        static_cast<uint64_t>(sums ? images_at * channels_.count() + channels_at : channels_at) *
            packed_bytes_;
  float* const b = sums ? m.bias + images_at * spec.y_channels + y_first
                        : m.bias + (spec.kind == Kind::transposed_forward ? x_first : y_first);
  return kernel(images_at, channels_at).run(x_at, w, y_at, b, scratch);
}

// The gradient of the weights is the sum of its parts, in order, in the primitive's layout.
bool ConvOp::finish_weights(const Launch& launch, const Memory& m) const {
  const int64_t cuts = channels_.count();
  const auto floats = static_cast<int64_t>(packed_bytes_ / sizeof(float));
  auto* const packed = reinterpret_cast<float*>(m.packed);
  for (int64_t cut = 0; cut < cuts; ++cut)
    launch.pool.parallel_for(floats, 16384, [&](int64_t begin, int64_t end) {
      float* const sum = packed + cut * floats;
      for (int64_t part = 1; part < images_.count(); ++part) {
        const float* const more = packed + (part * cuts + cut) * floats;
        for (int64_t i = begin; i < end; ++i) sum[i] += more[i];
      }
    });
  bool fine = true;
  for (int64_t cut = 0; cut < cuts; ++cut)
    fine = kernel(0, cut).unpack_weights(packed + cut * floats, weights_at(m.weights, cut)) && fine;
  if (has_dbias && !dbias_from_x) {
    for (int64_t part = 1; part < images_.count(); ++part)
      for (int64_t c = 0; c < spec.y_channels; ++c) m.bias[c] += m.bias[part * spec.y_channels + c];
    dbias.store_dense(launch, m.bias);
  }
  return fine;
}

xhal_status ConvOp::run(const Launch& launch) const {
  if (has_dbias && (dbias_from_x || empty_)) (dbias_from_x ? x : y).sum_channels(launch, dbias);
  const bool makes_x = spec.kind == Kind::backward_data || spec.kind == Kind::transposed_forward;
  const bool makes_weights = spec.kind == Kind::backward_weights;
  const ConvTensor& result = makes_weights ? weights : makes_x ? x : y;
  if (empty_) {
    result.fill_zero(launch);
    return XHAL_OK;
  }

  Memory m;
  char* at = static_cast<char*>(launch.workspace);
  const auto take = [&at](uint64_t bytes) { return std::exchange(at, at + align64(bytes)); };
  m.x = x.stage(launch, take(x.staged_bytes()), !makes_x);
  m.y = y.stage(launch, take(y.staged_bytes()), makes_x || makes_weights);
  m.weights = weights.stage(launch, take(weights.staged_bytes()), !makes_weights);
  const int64_t tasks = images_.count() * channels_.count();
  m.packed = take(static_cast<uint64_t>(makes_weights ? tasks : channels_.count()) * packed_bytes_);
  m.areas = take(static_cast<uint64_t>(areas_) * scratch_bytes_);
  m.bias = reinterpret_cast<float*>(at);
  if (has_bias) bias.load_dense(launch, m.bias);

  std::atomic<bool> fine{true};
  if (!makes_weights)
    launch.pool.parallel_for(channels_.count(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t cut = begin; cut < end; ++cut)
        if (!pack(m, cut)) fine = false;
    });
  ScratchAreas scratch(m.areas, scratch_bytes_, areas_);
  launch.pool.parallel_for(tasks, 1, [&](int64_t begin, int64_t end) {
    const ScratchAreas::Loan area(scratch);
    for (int64_t task = begin; task < end; ++task)
      if (!run_task(m, task / channels_.count(), task % channels_.count(), area.data()))
        fine = false;
  });
  if (makes_weights && !finish_weights(launch, m)) fine = false;
  if (!fine) {
    *launch.error =
        "conv: oneDNN could not run its convolution primitive; the usual cause is a lack of memory";
    return XHAL_ERR_DEVICE;
  }
  result.unstage(launch, makes_weights ? m.weights : makes_x ? m.x : m.y);
  return XHAL_OK;
}

struct Attributes {
  std::array<int64_t, 3> stride, padding, dilation, output_padding;
  bool transposed;
  int64_t groups;
};

bool read_attributes(const OpRequest& request, int spatial, std::string_view name, Attributes& a,
                     Refusal& refusal) {
  const auto read = [&](std::string_view what, int64_t otherwise, int64_t least,
                        std::array<int64_t, 3>& to) {
    const auto given = request.attribute_ints(what);
    to.fill(otherwise);
    const bool fits =
        given.empty() || given.size() == 1 || given.size() == static_cast<size_t>(spatial);
    for (size_t i = 0; fits && !given.empty() && i < static_cast<size_t>(spatial); ++i)
      to[i] = given[given.size() == 1 ? 0 : i];
    // Beyond INT32_MAX the catalogue does not compare sizes.
    if (fits &&
        std::all_of(to.begin(), to.end(), [&](int64_t x) { return x >= least && x <= INT32_MAX; }))
      return true;
    refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0,
           text(name, ": `", what, "` must have one value for each of the ", spatial,
                " spatial dimensions, at least ", least));
    return false;
  };
  a.transposed = request.attribute_int("transposed") != 0;
  a.groups = request.attribute_int("groups");
  if (a.groups < 1) {
    refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 0, text(name, ": `groups` must be at least 1"));
    return false;
  }
  return read("stride", 1, 1, a.stride) && read("padding", 0, 0, a.padding) &&
         read("dilation", 1, 1, a.dilation) && read("output_padding", 0, 0, a.output_padding);
}

// The three operators: which group holds the image on the input's side, on the output's side,
// and the weights.
struct Roles {
  std::string_view name;
  uint32_t in, out, weights;
};

Prepared prepare(const OpRequest& request, Refusal& refusal, const Roles& roles, Kind plain,
                 Kind transposed) {
  const auto& in = *request.operand(roles.in);
  const auto& out = *request.operand(roles.out);
  const auto& w = *request.operand(roles.weights);
  const auto invalid = [&](uint32_t group, const std::string& why) {
    return refuse(refusal, XHAL_ERR_INVALID_ARGUMENT, 1 + request.first_operand(group),
                  text(roles.name, ": ", why));
  };
  if (in.ndim < 3 || in.ndim > 5)
    return refuse(
        refusal, XHAL_ERR_UNSUPPORTED, 1 + request.first_operand(roles.in),
        text(roles.name, ": images must be [n, channels] and one to three spatial dimensions"));
  if (w.ndim != in.ndim)
    return invalid(roles.weights, "images and weights must have as many dimensions");
  const int spatial = static_cast<int>(in.ndim) - 2;
  Attributes a;
  if (!read_attributes(request, spatial, roles.name, a, refusal)) return nullptr;
  const DType type = dtype_of(in);
  if (dtype_of(out) != type || dtype_of(w) != type)
    return invalid(roles.weights, "images and weights must have one dtype");

  const auto& xt = a.transposed ? out : in;
  const auto& yt = a.transposed ? in : out;
  auto op = std::make_unique<ConvOp>();
  ConvSpec& s = op->spec;
  s.kind = a.transposed ? transposed : plain;
  s.spatial = spatial;
  s.n = in.sizes[0];
  s.groups = a.groups;
  s.x_channels = xt.sizes[1];
  s.y_channels = yt.sizes[1];
  s.stride = a.stride, s.padding = a.padding, s.dilation = a.dilation;
  // Both kinds of weights are [y channels, x channels / groups, ...].
  if (s.x_channels == 0 || s.y_channels == 0)
    return refuse(refusal, XHAL_ERR_UNSUPPORTED, 1, text(roles.name, ": images without channels"));
  if (s.x_channels % a.groups != 0 || s.y_channels % a.groups != 0)
    return invalid(roles.in, "`groups` must divide the channels of both images");
  if (w.sizes[0] != s.y_channels || w.sizes[1] != s.x_channels / a.groups)
    return invalid(roles.weights, "the weights do not fit the channels of the images and `groups`");
  for (int i = 0; i < spatial; ++i) {
    const auto d = static_cast<size_t>(i);
    s.x_size[d] = xt.sizes[2 + i];
    s.y_size[d] = yt.sizes[2 + i];
    s.kernel[d] = w.sizes[2 + i];
    if (s.kernel[d] < 1) return invalid(roles.weights, "the kernel is empty");
    if (std::max(in.sizes[2 + i], s.kernel[d]) > INT32_MAX)
      return refuse(refusal, XHAL_ERR_UNSUPPORTED, 1 + request.first_operand(roles.in),
                    text(roles.name, ": spatial dimensions of more than 2^31 - 1"));
    if (out.sizes[2 + i] == 0)
      return invalid(roles.out, text("nothing is left of spatial dimension ", i));
    if (a.transposed && a.output_padding[d] >= s.stride[d])
      return refuse(refusal, XHAL_ERR_UNSUPPORTED, 0,
                    text(roles.name, ": `output_padding` must be smaller than `stride`"));
  }

  s.type = type == DType::bf16 && dnnl_has_bf16() ? DType::bf16 : DType::f32;
  op->x = ConvTensor(xt, request.first_operand(a.transposed ? roles.out : roles.in), s.type);
  op->y = ConvTensor(yt, request.first_operand(a.transposed ? roles.in : roles.out), s.type);
  op->weights = ConvTensor(w, request.first_operand(roles.weights), s.type);
  const auto image_strides = [](const ConvTensor& t) {
    std::array<int64_t, 5> strides{};
    std::copy_n(t.used_strides().begin(), t.desc.ndim, strides.begin());
    return strides;
  };
  s.x_strides = image_strides(op->x);
  s.y_strides = image_strides(op->y);
  s.channels_last = op->x.channels_last() || op->y.channels_last();
  const auto& ws = op->weights.used_strides();
  s.weights_strides = {s.y_channels / a.groups * ws[0], ws[0], ws[1], ws[2], ws[3], ws[4]};

  const int64_t bias_group = plain == Kind::forward ? 2 : plain == Kind::backward_weights ? 3 : -1;
  if (const auto* b = bias_group < 0 ? nullptr : request.operand(static_cast<uint32_t>(bias_group));
      b != nullptr) {
    ConvTensor& t = plain == Kind::forward ? op->bias : op->dbias;
    t = ConvTensor(*b, request.first_operand(static_cast<uint32_t>(bias_group)), DType::f32);
    op->has_bias = plain == Kind::forward;
    op->has_dbias = !op->has_bias;
    op->dbias_from_x = a.transposed;
  }

  double k = static_cast<double>(s.x_channels / a.groups);
  for (int i = 0; i < spatial; ++i) k *= static_cast<double>(s.kernel[static_cast<size_t>(i)]);
  op->flops = 2 * k * static_cast<double>(element_count(yt));
  for (const auto* t : {&in, &out, &w})
    op->bytes += static_cast<double>(element_count(*t)) * static_cast<double>(size_of(type));
  std::string why;
  if (!op->plan(why))
    return refuse(refusal, XHAL_ERR_UNSUPPORTED, 0,
                  text(roles.name, ": oneDNN has no primitive for this request: ", why));
  return op;
}

Prepared prepare_conv(const OpRequest& request, Refusal& refusal) {
  return prepare(request, refusal, {"conv", 0, 3, 1}, Kind::forward, Kind::transposed_forward);
}
Prepared prepare_conv_grad_input(const OpRequest& request, Refusal& refusal) {
  return prepare(request, refusal, {"conv_grad_input", 2, 0, 1}, Kind::backward_data,
                 Kind::forward);
}
Prepared prepare_conv_grad_weight(const OpRequest& request, Refusal& refusal) {
  return prepare(request, refusal, {"conv_grad_weight", 1, 0, 2}, Kind::backward_weights,
                 Kind::backward_weights);
}

constexpr KernelEntry kOps[] = {
    {XHAL_OP_conv, prepare_conv},
    {XHAL_OP_conv_grad_input, prepare_conv_grad_input},
    {XHAL_OP_conv_grad_weight, prepare_conv_grad_weight},
};

}  // namespace

std::span<const KernelEntry> conv_ops() { return kOps; }

}  // namespace xhal::cpu
