// SPDX-License-Identifier: Apache-2.0
#include "cores.hpp"

#include <sched.h>

#include <atomic>
#include <barrier>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <stdexcept>
#include <thread>

#include "measure.hpp"

namespace xhal::bench {
namespace {

cpu_set_t process_cpus() {
  static const cpu_set_t set = [] {
    cpu_set_t s;
    CPU_ZERO(&s);
    sched_getaffinity(0, sizeof s, &s);
    return s;
  }();
  return set;
}

struct alignas(128) Line {
  std::atomic<uint32_t> turn{0};
};

// Plays `count` round trips as player 0 or 1. Gives up when the other one has been off its core for
// long: then the time says nothing about the cores.
bool play(Line& line, uint32_t player, uint32_t count) {
  const uint64_t deadline = now_ns() + 50'000'000;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t mine = 2 * i + player;
    for (uint32_t spins = 0; line.turn.load(std::memory_order_acquire) != mine; ++spins) {
      if (spins % 4096 == 4095 && now_ns() > deadline) return false;
    }
    line.turn.store(mine + 1, std::memory_order_release);
  }
  return true;
}

}  // namespace

std::vector<int> allowed_cpus() {
  const cpu_set_t set = process_cpus();
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

void bind_this_thread(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
}

void unbind_this_thread() {
  const cpu_set_t set = process_cpus();
  sched_setaffinity(0, sizeof set, &set);
}

int cpu_of(unsigned thread) {
  static const auto cpus = allowed_cpus();
  return cpus[thread % cpus.size()];
}

double load_average() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : std::nan("");
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

namespace {

// Half of a round trip; nothing when one of the two was off its core for long.
std::optional<double> try_hop_ns(uint32_t trips) {
  const auto cpus = allowed_cpus();
  Line line;
  std::atomic<bool> ready{false};
  std::thread other([&] {
    bind_this_thread(cpus[1]);
    ready = true;
    play(line, 1, trips);
  });
  bind_this_thread(cpus[0]);
  while (!ready) std::this_thread::yield();
  const uint64_t begin = now_ns();
  const bool whole = play(line, 0, trips);
  const double hop = static_cast<double>(now_ns() - begin) / (2.0 * trips);
  other.join();
  unbind_this_thread();
  return whole ? std::optional(hop) : std::nullopt;
}

}  // namespace

double cache_line_hop_sample_ns() {
  constexpr int kAttempts = 50;
  for (int attempt = 0; attempt < kAttempts && allowed_cpus().size() > 1; ++attempt) {
    if (const auto hop = try_hop_ns(500)) return *hop;
  }
  throw std::runtime_error(
      "no cache line could be passed between two cores: there is one processor only, or other work "
      "holds the second");
}

double cache_line_hop_ns() {
  if (allowed_cpus().size() < 2) return std::nan("");
  double best = std::nan("");
  // The quickest of a few: whatever interrupts a round trip only makes it longer.
  for (int attempt = 0; attempt < 5; ++attempt) {
    const auto hop = try_hop_ns(2000);
    if (hop && !(*hop >= best)) best = *hop;
  }
  return best;
}

struct Team::Part {
  explicit Part(unsigned threads) : start(threads), end(threads) {}
  std::barrier<> start, end;
  const std::function<void(unsigned)>* body = nullptr;
  std::vector<std::thread> threads;
};

Team::Team(unsigned threads) : size_(threads == 0 ? 1 : threads), part_(new Part(size_)) {
  for (unsigned i = 1; i < size_; ++i) {
    part_->threads.emplace_back([this, i] {
      bind_this_thread(cpu_of(i));
      for (;;) {
        part_->start.arrive_and_wait();
        if (part_->body == nullptr) return;
        (*part_->body)(i);
        part_->end.arrive_and_wait();
      }
    });
  }
}

Team::~Team() {
  part_->body = nullptr;
  part_->start.arrive_and_wait();
  for (auto& thread : part_->threads) thread.join();
  delete part_;
}

void Team::run(const std::function<void(unsigned)>& body) {
  part_->body = &body;
  bind_this_thread(cpu_of(0));
  part_->start.arrive_and_wait();
  body(0);
  part_->end.arrive_and_wait();
  unbind_this_thread();
}

}  // namespace xhal::bench
