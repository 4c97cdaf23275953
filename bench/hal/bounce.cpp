// SPDX-License-Identifier: Apache-2.0
// bounce.cpp: copies between host memory that nobody has pinned and a device that the host cannot
// touch and that takes pinned memory only: libxhal moves the bytes through pinned memory.
//
// The empty plugin is that device. Its memory is an ordinary mapping that it does not call visible,
// so the same bytes can be moved by memcpy beside it, to the same place.
#include <fmt/format.h>

#include <cstring>
#include <memory>

#include "bench.hpp"

namespace xhal::bench {
namespace {

// Moves bytes and waits until they are there.
void move(const Stream& stream, uint64_t to, uint64_t from, uint64_t bytes) {
  check(xhal_stream_copy(stream.get(), to, from, bytes));
  check(xhal_stream_synchronize(stream.get(), XHAL_FOREVER));
}

uint64_t address_of(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

void large_rows(Bench& bench, const Device& device, const Stream& stream) {
  const uint64_t bytes = bench.size(256 << 20, 32 << 20);
  const Memory memory(device, bytes);
  const auto host = std::make_unique_for_overwrite<char[]>(bytes);
  std::memset(host.get(), 1, bytes);
  std::memset(memory.host<char>(), 1, bytes);
  const auto rate = [&](auto&& body) { return static_cast<double>(bytes) / ns_per_call(1, body); };
  const auto row = [&](const char* way) {
    return Row{.metric = fmt::format("copy {} MiB, unpinned host memory {}", bytes >> 20, way),
               .unit = "GB/s",
               .peer = "memcpy, 1 thread",
               .goal = Goal::ratio_at_least(0.8)};
  };
  const Effort effort = bench.effort(40, 6'000'000'000);
  bench.measure(
      row("to device"), effort,
      [&] { return rate([&] { move(stream, memory.address(), address_of(host.get()), bytes); }); },
      [&] { return rate([&] { std::memcpy(memory.host<char>(), host.get(), bytes); }); });
  bench.measure(
      row("from device"), effort,
      [&] { return rate([&] { move(stream, address_of(host.get()), memory.address(), bytes); }); },
      [&] { return rate([&] { std::memcpy(host.get(), memory.host<char>(), bytes); }); });
}

void small_rows(Bench& bench, const Device& device, const Stream& stream) {
  constexpr uint64_t kBytes = 4;
  const Memory memory(device, 4096);
  uint32_t host = 1;
  void* pinned = nullptr;
  check(xhal_host_alloc(4096, &pinned));
  const auto us = [&](auto&& body) { return ns_per_call(64, body) / 1e3; };
  const auto row = [&](const char* way) {
    return Row{.metric = fmt::format("copy 4 B, unpinned host memory {}", way),
               .unit = "us",
               .peer = "pinned memory",
               .goal = Goal::value_at_most(3)};
  };
  bench.measure(
      row("to device"), bench.effort(300),
      [&] { return us([&] { move(stream, memory.address(), address_of(&host), kBytes); }); },
      [&] { return us([&] { move(stream, memory.address(), address_of(pinned), kBytes); }); });
  bench.measure(
      row("from device"), bench.effort(300),
      [&] { return us([&] { move(stream, address_of(&host), memory.address(), kBytes); }); },
      [&] { return us([&] { move(stream, address_of(pinned), memory.address(), kBytes); }); });
  check(xhal_host_free(pinned));
}

}  // namespace

void bench_bounce(Bench& bench) {
  const Session session;
  const auto device = open_device("nop");
  const auto stream = device.stream();
  large_rows(bench, device, stream);
  small_rows(bench, device, stream);
}

}  // namespace xhal::bench
