// SPDX-License-Identifier: Apache-2.0
// memory.cpp: moving and filling memory, and the pool.
#include <fmt/core.h>

#include <cstring>

#include "bench.hpp"
#include "measure/mutex.hpp"
#include "pocl.hpp"

namespace xhal::bench {
namespace {

double gigabytes_per_second(uint64_t bytes, uint64_t ns) {
  return static_cast<double>(bytes) / static_cast<double>(ns);
}

// `body(from, size)` on every thread of the team for its part of `bytes`, in whole pages.
template <class Body>
void in_parts(Team& team, uint64_t bytes, Body&& body) {
  const uint64_t part = (bytes / team.size() + 4095) & ~uint64_t{4095};
  team.run([&](unsigned i) {
    const uint64_t from = std::min(bytes, part * i);
    body(from, std::min(part, bytes - from));
  });
}

void bandwidth_rows(Bench& bench, const Device& device) {
  const uint64_t bytes = bench.size(256 << 20, 32 << 20);
  const auto stream = device.stream();
  // Both sides use the same memory, so that pages and their placement are no difference.
  const Memory from(device, bytes), to(device, bytes);
  std::memset(from.host<char>(), 1, bytes);
  std::memset(to.host<char>(), 1, bytes);
  Team alone(1), team(compute_units(device));

  const auto timed = [&](auto&& body) {
    const uint64_t begin = now_ns();
    body();
    return gigabytes_per_second(bytes, now_ns() - begin);
  };
  const auto copy = [&] {
    return timed([&] {
      check(xhal_stream_copy(stream.get(), to.address(), from.address(), bytes));
      check(xhal_stream_synchronize(stream.get(), XHAL_FOREVER));
    });
  };
  const auto fill = [&](uint64_t pattern, uint32_t pattern_bytes) {
    return timed([&] {
      check(xhal_stream_fill(stream.get(), to.address(), bytes, pattern, pattern_bytes));
      check(xhal_stream_synchronize(stream.get(), XHAL_FOREVER));
    });
  };
  const auto memcpy_by = [&](Team& threads) {
    return timed([&] {
      in_parts(threads, bytes, [&](uint64_t at, uint64_t size) {
        std::memcpy(to.host<char>() + at, from.host<char>() + at, size);
      });
    });
  };
  const auto memset_by = [&](Team& threads) {
    return timed([&] {
      in_parts(threads, bytes,
               [&](uint64_t at, uint64_t size) { std::memset(to.host<char>() + at, 0x5a, size); });
    });
  };
  const auto size = fmt::format("{} MiB", bytes >> 20);
  const auto row = [&](std::string metric, std::string peer) {
    return Row{.metric = std::move(metric),
               .unit = "GB/s",
               .peer = std::move(peer),
               .goal = Goal::ratio_at_least(0.95)};
  };
  const auto threads = fmt::format(", {} threads", team.size());
  const Effort effort = bench.effort(40, 6'000'000'000);
  bench.measure(row("copy " + size, "memcpy, 1 thread"), effort, copy,
                [&] { return memcpy_by(alone); });
  bench.measure(row("copy " + size, "memcpy" + threads), effort, copy,
                [&] { return memcpy_by(team); });
  bench.measure(
      row("fill " + size, "memset, 1 thread"), effort, [&] { return fill(0x5a, 1); },
      [&] { return memset_by(alone); });
  bench.measure(
      row("fill " + size, "memset" + threads), effort, [&] { return fill(0x5a, 1); },
      [&] { return memset_by(team); });
  bench.measure(
      row("fill " + size + ", 4 B pattern", "memset" + threads), effort,
      [&] { return fill(0x3f800000, 4); }, [&] { return memset_by(team); });
}

void pool_row(Bench& bench, const Device& device) {
  constexpr uint64_t kBytes = 1 << 20;
  constexpr uint32_t kPairs = 256;
  const auto stream = device.stream();
  const auto pool = device.pool();
  const Pocl* pocl = bench.pocl();
  MutexPair mutex;
  // A framework's pool is never empty: other blocks are out while this one comes and goes.
  std::vector<uint64_t> others(32);
  for (auto& address : others)
    check(xhal_pool_alloc(pool.get(), stream.get(), kBytes, {}, &address));
  const auto ours = [&] {
    return ns_per_call(kPairs, [&] {
      uint64_t address = 0;
      check(xhal_pool_alloc(pool.get(), stream.get(), kBytes, {}, &address));
      check(xhal_pool_free(pool.get(), address, nullptr, 0));
    });
  };
  const auto pocl_buffer = [&] {
    return ns_per_call(kPairs, [&] {
      cl_int status = CL_SUCCESS;
      const cl_mem buffer =
          clCreateBuffer(pocl->context(), CL_MEM_READ_WRITE, kBytes, nullptr, &status);
      check_cl(status, "clCreateBuffer");
      clReleaseMemObject(buffer);
    });
  };
  bench.measure(
      {.metric = "pool alloc + free, 1 MiB", .unit = "ns"}, bench.effort(300), ours,
      {{.name = kMutexPair,
        .sample = [&] { return mutex.sample(kPairs); },
        .goal = Goal::ratio_at_most(4)},
       bench.pocl_peer(pocl_buffer, "PoCL's buffer gets its memory later, when it is first used")});
  for (const auto address : others) check(xhal_pool_free(pool.get(), address, nullptr, 0));
}

}  // namespace

void bench_memory(Bench& bench) {
  const Session session;
  const auto device = open_device("cpu");
  bandwidth_rows(bench, device);
  pool_row(bench, device);
}

}  // namespace xhal::bench
