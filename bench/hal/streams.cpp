// SPDX-License-Identifier: Apache-2.0
// streams.cpp: submitting and waiting on the cpu plugin, beside a mutex, PoCL, a bare futex and a
// bare hand-over between cores.
#include <fmt/core.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <fstream>
#include <iterator>
#include <thread>

#include "bench.hpp"
#include "measure/mutex.hpp"
#include "pocl.hpp"

namespace xhal::bench {
namespace {

// Longer than any thread of the two sides spins before it goes to sleep.
constexpr auto kUntilAsleep = std::chrono::milliseconds(2);

void futex_wait(std::atomic<uint32_t>& word, uint32_t seen) {
  while (word.load(std::memory_order_acquire) == seen)
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}
void futex_wake(std::atomic<uint32_t>& word) {
  word.fetch_add(1, std::memory_order_release);
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

// Two threads that wake each other and do nothing else: the least any worker thread can cost. The
// other one is bound to a processor.
class FutexEcho {
 public:
  explicit FutexEcho(int cpu)
      : thread_([this, cpu] {
          bind_this_thread(cpu);
          for (uint32_t seen = 0; !stop_; ++seen) {
            futex_wait(ask_, seen);
            futex_wake(answer_);
          }
        }) {}
  ~FutexEcho() {
    stop_ = true;
    futex_wake(ask_);
    thread_.join();
  }
  void round_trip() {
    const uint32_t seen = answer_;
    futex_wake(ask_);
    futex_wait(answer_, seen);
  }

 private:
  std::atomic<uint32_t> ask_{0}, answer_{0};
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// An operator on one element: the smallest real one.
class SmallOp {
 public:
  explicit SmallOp(const Device& device)
      : memory_(device, 512),
        address_(memory_.address()),
        op_(prepare(device.context(), XHAL_OP_fill, {{tensor(XHAL_CODE_FLOAT, 32, {1})}})) {}
  void launch(const Stream& stream) {
    check(xhal_op_launch(stream.get(), op_.get(), &address_, 1, &value_, 1, 0));
  }

 private:
  Memory memory_;
  uint64_t address_;
  Op op_;
  xhal_scalar value_ = scalar(1.0);
};

// The plugin's own empty kernel; kernels are always run by a worker thread.
class EmptyKernel {
 public:
  explicit EmptyKernel(const Device& device) {
    std::ifstream file(XHAL_BENCH_NOP_KERNEL, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    xhal_module_info info{};
    info.struct_size = sizeof info;
    info.format = str("elf-so");
    info.name = str("nop");
    info.bytes = bytes.data();
    info.size_bytes = bytes.size();
    xhal_module* module = nullptr;
    check(xhal_module_load(device.context(), &info, &module));
    module_.reset(module);
    check(xhal_module_kernel(module, str("nop"), &kernel_));
    grid_.struct_size = sizeof grid_;
    for (int i = 0; i < 3; ++i) grid_.groups[i] = grid_.group_size[i] = 1;
  }
  void launch(const Stream& stream) const {
    check(xhal_kernel_launch(stream.get(), kernel_, &grid_, nullptr, 0));
  }

 private:
  Module module_;
  xhal_kernel* kernel_ = nullptr;
  xhal_grid grid_{};
};

// Holds a stream until it is opened: what is submitted behind it stays queued.
struct Gate {
  static void wait(void* self, xhal_status) { static_cast<Gate*>(self)->open.wait(false); }
  void release() {
    open = true;
    open.notify_all();
  }
  std::atomic<bool> open{false};
};

void submit_rows(Bench& bench, const Device& device) {
  const auto stream = device.stream();
  SmallOp op(device);
  const Pocl* pocl = bench.pocl();
  MutexPair mutex;
  constexpr uint32_t kBatch = 256;

  const auto inline_submit = [&] { return ns_per_call(kBatch, [&] { op.launch(stream); }); };
  const auto queued_submit = [&] {
    Gate gate;
    check(xhal_stream_host_call(stream.get(), Gate::wait, &gate, 0));
    const double ns = ns_per_call(kBatch, [&] { op.launch(stream); });
    gate.release();
    check(xhal_stream_synchronize(stream.get(), XHAL_FOREVER));
    return ns;
  };
  const auto pocl_idle = [&] {
    const double ns = ns_per_call(kBatch, [&] { pocl->enqueue(); });
    pocl->finish();
    return ns;
  };
  const auto pocl_queued = [&] {
    cl_int status = CL_SUCCESS;
    const cl_event gate = clCreateUserEvent(pocl->context(), &status);
    check_cl(status, "clCreateUserEvent");
    pocl->enqueue(nullptr, &gate);
    const double ns = ns_per_call(kBatch, [&] { pocl->enqueue(); });
    check_cl(clSetUserEventStatus(gate, CL_COMPLETE), "clSetUserEventStatus");
    pocl->finish();
    clReleaseEvent(gate);
    return ns;
  };
  const auto unit = [&](double limit) {
    return Peer{.name = kMutexPair,
                .sample = [&] { return mutex.sample(kBatch); },
                .goal = Goal::ratio_at_most(limit)};
  };
  bench.measure(
      {.metric = "stream submit, idle stream (runs inline)",
       .unit = "ns",
       .note = "ours includes running it: `fill` of one element"},
      bench.effort(300), inline_submit,
      {unit(5), bench.pocl_peer(pocl_idle, "PoCL's empty kernel is only enqueued, ours has run")});
  bench.measure({.metric = "stream submit, behind running work", .unit = "ns"}, bench.effort(300),
                queued_submit, {unit(8), bench.pocl_peer(pocl_queued)});
}

// Round trips of our side, told apart by where the worker was: a wake across cores costs several
// times that of one on the same core, and which it is the scheduler decides.
struct Trips {
  std::vector<double> same_core, other_core;
  double share_other() const {
    const auto all = static_cast<double>(same_core.size() + other_core.size());
    return all == 0 ? 0 : static_cast<double>(other_core.size()) / all;
  }
};

double round_trip(const Stream& stream, Trips& trips) {
  int cpu = -1;
  const double us =
      ns_per_call(1,
                  [&] {
                    check(xhal_stream_host_call(
                        stream.get(),
                        [](void* user, xhal_status) { *static_cast<int*>(user) = sched_getcpu(); },
                        &cpu, 0));
                    check(xhal_stream_synchronize(stream.get(), XHAL_FOREVER));
                  }) /
      1e3;
  (cpu == cpu_of(0) ? trips.same_core : trips.other_core).push_back(us);
  return us;
}

void asleep_rows(Bench& bench, const Device& device) {
  const std::string name = "submit + wait, worker asleep, ";
  const char* const places[] = {"woken on another core", "woken on the same core"};
  if (!bench.wants(name + places[0]) && !bench.wants(name + places[1])) return;
  const auto stream = device.stream();
  FutexEcho same(cpu_of(0)), other(cpu_of(1));
  Trips trips;
  const auto after_sleep = [](auto&& body) {
    std::this_thread::sleep_for(kUntilAsleep);
    return body();
  };
  const auto echo = [&](FutexEcho& peer) {
    return after_sleep([&] { return ns_per_call(1, [&] { peer.round_trip(); }) / 1e3; });
  };
  std::vector<std::vector<double>> samples;
  fmt::print(stderr, "  submit + wait, worker asleep\n");
  samples = interleave({[&] { return after_sleep([&] { return round_trip(stream, trips); }); },
                        [&] { return echo(other); }, [&] { return echo(same); }},
                       bench.effort(600, 6'000'000'000));
  const auto add = [&](const char* where, std::vector<double> ours, std::vector<double> peer) {
    Row row{.metric = name + where,
            .unit = "us",
            .peer = "bare futex round trip",
            .goal = Goal::ratio_at_most(1.2)};
    if (ours.empty() || 20 * ours.size() < samples[0].size()) {
      row.not_here = fmt::format("the worker was there in {} of {} round trips only", ours.size(),
                                 samples[0].size());
    } else {
      row.samples = std::move(ours);
      row.peer_samples = std::move(peer);
    }
    bench.add(std::move(row));
  };
  add(places[0], trips.other_core, samples[1]);
  add(places[1], trips.same_core, samples[2]);
}

// One after the other without a pause, so that a worker may still spin; whether it does so beside
// this thread or wants its core is the plugin's and the scheduler's doing, and part of the figure.
void spinning_row(Bench& bench, const Device& device) {
  Row row{.metric = "submit + wait, back to back (worker spinning)",
          .unit = "ns",
          .peer = "cache line from core to core",
          .goal = Goal::ratio_at_most(8)};
  if (!bench.wants(row.metric)) return;
  if (allowed_cpus().size() < 2) {
    row.not_here = "there is one processor only, so nobody can spin beside this thread";
    return bench.add(std::move(row));
  }
  fmt::print(stderr, "  {}\n", row.metric);
  const auto stream = device.stream();
  Trips trips;
  const Sample ours = [&] {
    bind_this_thread(cpu_of(0));  // the other side has unbound it
    std::vector<double> times;
    for (int i = 0; i < 64; ++i) times.push_back(1e3 * round_trip(stream, trips));
    return median(times);
  };
  try {
    auto samples = interleave({ours, cache_line_hop_sample_ns}, bench.effort(100));
    row.samples = std::move(samples[0]);
    row.peer_samples = std::move(samples[1]);
    row.note = fmt::format("{:.0f} % of the round trips met the worker on another core",
                           100 * trips.share_other());
  } catch (const std::exception& error) {
    row.failed = error.what();
  }
  bind_this_thread(cpu_of(0));
  bench.report().add(std::move(row));
}

void pocl_round_trip_rows(Bench& bench, const Device& device) {
  const auto stream = device.stream();
  const EmptyKernel kernel(device);
  const Pocl* pocl = bench.pocl();
  const Row asleep{.metric = "empty kernel + wait, worker asleep", .unit = "us", .peer = "PoCL"};
  const Row busy{.metric = "empty kernel + wait, back to back", .unit = "us", .peer = "PoCL"};
  if (pocl == nullptr) {
    bench.fail(asleep, bench.why_no_pocl());
    bench.fail(busy, bench.why_no_pocl());
    return;
  }
  const auto ours = [&] {
    kernel.launch(stream);
    check(xhal_stream_synchronize(stream.get(), XHAL_FOREVER));
  };
  const auto theirs = [&] {
    pocl->enqueue();
    pocl->finish();
  };
  const auto once = [&](auto&& body) {
    std::this_thread::sleep_for(kUntilAsleep);
    return ns_per_call(1, body) / 1e3;
  };
  const auto one_by_one = [](auto&& body) {
    std::vector<double> times;
    for (int i = 0; i < 64; ++i) times.push_back(ns_per_call(1, body) / 1e3);
    return median(times);
  };
  bench.measure(
      asleep, bench.effort(300, 4'000'000'000), [&] { return once(ours); },
      [&] { return once(theirs); });
  bench.measure(
      busy, bench.effort(300), [&] { return one_by_one(ours); },
      [&] { return one_by_one(theirs); });
}

void round_trip_rows(Bench& bench, const Device& device) {
  bind_this_thread(cpu_of(0));
  try {
    asleep_rows(bench, device);
    spinning_row(bench, device);
    pocl_round_trip_rows(bench, device);
  } catch (...) {
    unbind_this_thread();
    throw;
  }
  unbind_this_thread();
}

}  // namespace

void bench_streams(Bench& bench) {
  const Session session;
  const auto device = open_device("cpu");
  submit_rows(bench, device);
  round_trip_rows(bench, device);
}

}  // namespace xhal::bench
