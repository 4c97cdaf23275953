// SPDX-License-Identifier: Apache-2.0
// rows.cpp: the fused kernels of the cpu plugin that only memory limits, beside memcpy.
#include <fmt/core.h>

#include <cstring>

#include "bench.hpp"
#include "onednn.hpp"

namespace xhal::bench {
namespace {

constexpr uint64_t kSettleNs = 12'000'000;  // see gemm.cpp
constexpr int64_t kColumns = 4096;

xhal_tensor_desc f32(const std::vector<int64_t>& sizes) {
  return tensor(XHAL_CODE_FLOAT, 32, sizes);
}

// One operator on prepared memory.
struct Case {
  std::string name;
  Op op;
  std::vector<uint64_t> addresses;
  std::vector<xhal_scalar> scalars;
  uint64_t bytes;  // read and written, each operand once
  std::unique_ptr<Memory> workspace{};
};

class Rows {
 public:
  Rows(const Device& device, int64_t rows)
      : rows_(rows),
        bytes_(static_cast<uint64_t>(rows * kColumns) * 4),
        device_(device),
        context_(device.context()),
        stream_(device.stream()),
        in_(device, bytes_),
        out_(device, bytes_),
        first_(device, bytes_),
        second_(device, bytes_),
        small_(device, 64 << 10) {
    auto* values = in_.host<float>();
    for (int64_t i = 0; i < rows_ * kColumns; ++i)
      values[i] = static_cast<float>(i % 17) * 0.25f - 2.0f;
    for (const Memory* m : {&out_, &first_, &second_, &small_})
      std::memset(m->host<char>(), 0, m->size_bytes());
  }

  std::vector<Case> cases() {
    const auto big = f32({rows_, kColumns}), row = f32({kColumns}), flat = f32({rows_ * kColumns}),
               one = f32({});
    const uint64_t in = in_.address(), out = out_.address(), m = first_.address(),
                   v = second_.address();
    const uint64_t weight = small_.address(), bias = weight + kColumns * 4,
                   step = bias + kColumns * 4;
    const auto op = [&](uint32_t id, const std::vector<std::vector<xhal_tensor_desc>>& groups) {
      return prepare(context_, id, groups);
    };
    std::vector<Case> list;
    list.push_back({"softmax", op(XHAL_OP_softmax, {{big}, {big}}), {in, out}, {}, 2 * bytes_});
    list.push_back({"layer_norm",
                    op(XHAL_OP_layer_norm, {{big}, {row}, {row}, {big}, {}, {}}),
                    {in, weight, bias, out},
                    {},
                    2 * bytes_});
    list.push_back({"gelu", op(XHAL_OP_gelu, {{big}, {big}}), {in, out}, {}, 2 * bytes_});
    // Parameter, two moments and the gradient are read, all but the gradient written.
    list.push_back(
        {"adamw",
         op(XHAL_OP_multi_adamw,
            {{flat}, {flat}, {flat}, {flat}, {}, {one}, {}, {flat}, {flat}, {flat}, {}, {one}}),
         {out, in, m, v, step, out, m, v, step},
         {},
         7 * bytes_});
    for (auto& c : list) c.workspace = workspace_of(device_, c.op);
    return list;
  }

  void run(const Case& c) {
    check(xhal_op_launch(stream_.get(), c.op.get(), c.addresses.data(),
                         static_cast<uint32_t>(c.addresses.size()), c.scalars.data(),
                         static_cast<uint32_t>(c.scalars.size()), c.workspace->address()));
    check(xhal_stream_synchronize(stream_.get(), XHAL_FOREVER));
  }
  void memcpy_by(Team& team) {
    const uint64_t part = bytes_ / team.size();
    team.run([&](unsigned i) {
      std::memcpy(out_.host<char>() + part * i, in_.host<char>() + part * i, part);
    });
  }
  float* in() { return in_.host<float>(); }
  float* out() { return out_.host<float>(); }
  int64_t rows() const { return rows_; }
  uint64_t bytes() const { return bytes_; }

 private:
  int64_t rows_;
  uint64_t bytes_;
  const Device& device_;
  xhal_context* context_;
  Stream stream_;
  Memory in_, out_, first_, second_, small_;
};

}  // namespace

void bench_rows(Bench& bench) {
  const Session session;
  const auto device = open_device("cpu");
  const unsigned threads = compute_units(device);
  Rows rows(device, static_cast<int64_t>(bench.size(4096, 512)));
  Team team(threads);
  const auto rate = [](uint64_t bytes, auto&& body) {
    return static_cast<double>(bytes) / ns_per_call(1, body);
  };
  Effort effort = bench.effort(40, 3'000'000'000);
  effort.settle_ns = kSettleNs;
  const auto size = fmt::format(" f32, {} MiB", rows.bytes() >> 20);

  const auto cases = rows.cases();
  for (const auto& c : cases) {
    bench.measure(
        {.metric = c.name + size,
         .unit = "GB/s",
         .peer = fmt::format("memcpy, {} threads", threads),
         .goal = Goal::ratio_at_least(0.8)},
        effort, [&] { return rate(c.bytes, [&] { rows.run(c); }); },
        [&] { return rate(2 * rows.bytes(), [&] { rows.memcpy_by(team); }); });
  }
  auto peer = OneDnn::softmax(rows.rows(), kColumns, rows.in(), rows.out(), threads);
  bench.measure(
      {.metric = "softmax" + size, .unit = "GB/s", .peer = OneDnn::version() + " direct"}, effort,
      [&] { return rate(2 * rows.bytes(), [&] { rows.run(cases[0]); }); },
      [&] { return static_cast<double>(2 * rows.bytes()) / peer.ns_per_run(1); });
}

}  // namespace xhal::bench
