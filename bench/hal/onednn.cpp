// SPDX-License-Identifier: Apache-2.0
#include "onednn.hpp"

#include <fmt/core.h>
#include <omp.h>

#include <condition_variable>
#include <cstring>
#include <dnnl.hpp>
#include <functional>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "measure/cores.hpp"
#include "measure/measure.hpp"

namespace xhal::bench {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;

memory::data_type type_of(Format format) {
  return format == Format::bf16 ? memory::data_type::bf16 : memory::data_type::f32;
}

#if DNNL_VERSION_MAJOR >= 3
dnnl::matmul::primitive_desc matmul_of(const dnnl::engine& engine, const memory::desc& a,
                                       const memory::desc& b, const memory::desc& c) {
  return {engine, a, b, c};
}
dnnl::softmax_forward::primitive_desc softmax_of(const dnnl::engine& engine, const memory::desc& in,
                                                 int axis) {
  return {engine, dnnl::prop_kind::forward_inference, dnnl::algorithm::softmax_accurate, in, in,
          axis};
}
#else
dnnl::matmul::primitive_desc matmul_of(const dnnl::engine& engine, const memory::desc& a,
                                       const memory::desc& b, const memory::desc& c) {
  return {dnnl::matmul::desc(a, b, c), engine};
}
dnnl::softmax_forward::primitive_desc softmax_of(const dnnl::engine& engine, const memory::desc& in,
                                                 int axis) {
  return {dnnl::softmax_forward::desc(dnnl::prop_kind::forward_inference, in, axis), engine};
}
#endif

}  // namespace

struct OneDnn::Part {
  explicit Part(unsigned t) : threads(static_cast<int>(t)), thread([this] { serve(); }) {}
  ~Part() {
    call(nullptr);
    thread.join();
  }

  // Runs `body` on this primitive's thread and returns when it has.
  void call(std::function<void()> body) {
    std::unique_lock lock(mutex);
    job = std::move(body);
    ready = true;
    changed.notify_all();
    changed.wait(lock, [&] { return !ready; });
  }
  void serve() {
    omp_set_num_threads(threads);
    std::unique_lock lock(mutex);
    for (bool more = true; more;) {
      changed.wait(lock, [&] { return ready; });
      more = job != nullptr;
      if (more) job();
      ready = false;
      changed.notify_all();
    }
  }
  // Once more before every sample, which also wakes the team.
  static void bind_team() {
#pragma omp parallel
    bind_this_thread(cpu_of(static_cast<unsigned>(omp_get_thread_num())));
  }

  int threads;
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::primitive primitive;
  std::unordered_map<int, memory> arguments;

  std::mutex mutex;
  std::condition_variable changed;
  std::function<void()> job;
  bool ready = false;
  std::thread thread;  // last: it uses the rest
};

OneDnn OneDnn::matmul(int64_t n, Format format, unsigned threads) {
  OneDnn result;
  result.part_ = std::make_shared<Part>(threads);
  auto& p = *result.part_;
  const memory::desc square({n, n}, type_of(format), Tag::ab);
  p.call([&] { p.primitive = dnnl::matmul(matmul_of(p.engine, square, square, square)); });
  for (const int argument : {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST}) {
    memory m(square, p.engine);
    std::memset(m.get_data_handle(), 0x3f, square.get_size());  // 0.75
    p.arguments.emplace(argument, m);
  }
  return result;
}

OneDnn OneDnn::softmax(int64_t rows, int64_t columns, float* src, float* dst, unsigned threads) {
  OneDnn result;
  result.part_ = std::make_shared<Part>(threads);
  auto& p = *result.part_;
  const memory::desc desc({rows, columns}, memory::data_type::f32, Tag::ab);
  p.call([&] { p.primitive = dnnl::softmax_forward(softmax_of(p.engine, desc, 1)); });
  p.arguments.emplace(DNNL_ARG_SRC, memory(desc, p.engine, src));
  p.arguments.emplace(DNNL_ARG_DST, memory(desc, p.engine, dst));
  return result;
}

std::string OneDnn::version() {
  const auto* v = dnnl::version();
  return fmt::format("oneDNN {}.{}.{}", v->major, v->minor, v->patch);
}

double OneDnn::ns_per_run(uint32_t count) {
  auto& p = *part_;
  double ns = 0;
  p.call([&] {
    Part::bind_team();
    ns = ns_per_call(count, [&] {
      p.primitive.execute(p.stream, p.arguments);
      p.stream.wait();
    });
  });
  return ns;
}

}  // namespace xhal::bench
