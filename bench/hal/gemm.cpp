// SPDX-License-Identifier: Apache-2.0
// gemm.cpp: matrix products of the cpu plugin, beside what the processor can do and beside oneDNN
// called directly with the same number of threads.
#include <fmt/core.h>

#include <cstring>

#include "bench.hpp"
#include "onednn.hpp"

namespace xhal::bench {
namespace {

// Threads of the other side spin for some milliseconds after their work (libgomp's default), on the
// cores this side needs: each sample waits until they sleep.
constexpr uint64_t kSettleNs = 12'000'000;

// Every element is made of this byte: 0.75 in both formats.
constexpr int kByte = 0x3f;

// n x n products of our side.
class Gemm {
 public:
  Gemm(const Device& device, int64_t n, Format format)
      : stream_(device.stream()),
        bytes_(static_cast<uint64_t>(n * n) * (format == Format::f32 ? 4 : 2)),
        a_(device, bytes_),
        b_(device, bytes_),
        c_(device, bytes_) {
    const auto desc = format == Format::f32 ? tensor(XHAL_CODE_FLOAT, 32, {n, n})
                                            : tensor(XHAL_CODE_BFLOAT, 16, {n, n});
    op_ = prepare(device.context(), XHAL_OP_gemm, {{desc}, {desc}, {}, {}, {desc}});
    workspace_ = workspace_of(device, op_);
    for (const Memory* m : {&a_, &b_, &c_}) std::memset(m->host<char>(), kByte, bytes_);
  }
  void run() {
    const uint64_t addresses[] = {a_.address(), b_.address(), c_.address()};
    check(
        xhal_op_launch(stream_.get(), op_.get(), addresses, 3, nullptr, 0, workspace_->address()));
    check(xhal_stream_synchronize(stream_.get(), XHAL_FOREVER));
  }

 private:
  Stream stream_;
  uint64_t bytes_;
  Memory a_, b_, c_;
  Op op_;
  std::unique_ptr<Memory> workspace_;
};

}  // namespace

void bench_gemm(Bench& bench) {
  const Session session;
  const auto device = open_device("cpu");
  const unsigned threads = compute_units(device);
  Team team(threads);
  for (const Format format : {Format::f32, Format::bf16}) {
    const char* name = format == Format::f32 ? "f32" : "bf16";
    for (const int64_t n : {512, 1024, 2048}) {
      if (bench.quick() && n > 512) continue;
      const double operations =
          2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
      // As many products in a row as take some milliseconds, so that a sample is not
      // mostly waking up.
      const uint32_t products = n >= 2048 ? 1 : n >= 1024 ? 4 : 16;
      const auto rate = [&](auto&& body) { return operations / ns_per_call(products, body); };
      const Row row{.metric = fmt::format("gemm {} {}", name, n), .unit = "GFLOP/s"};
      Effort effort = bench.effort(25, 5'000'000'000);
      effort.settle_ns = kSettleNs;
      Row peak = row, direct = row;
      peak.peer = "peak of " + peak_instruction(format);
      peak.goal = Goal::ratio_at_least(0.85);
      const bool no_peak = peak_instruction(format).empty();
      if (no_peak) {
        peak.peer = "peak";
        peak.not_here = "the processor has no multiply-add of bf16 (AVX-512 bf16 or AMX)";
        bench.add(peak);
      }
      direct.peer = OneDnn::version() + " direct";
      try {
        Gemm gemm(device, n, format);
        auto peer = OneDnn::matmul(n, format, threads);
        const auto ours = [&] { return rate([&] { gemm.run(); }); };
        if (!no_peak)
          bench.measure(peak, effort, ours, [&] { return peak_gflops(team, format, 5'000'000); });
        bench.measure(direct, effort, ours, [&] { return operations / peer.ns_per_run(products); });
      } catch (const std::exception& error) {
        if (!no_peak) bench.fail(peak, error.what());
        bench.fail(direct, error.what());
      }
    }
  }
}

}  // namespace xhal::bench
