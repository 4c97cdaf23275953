// SPDX-License-Identifier: Apache-2.0
// scaling.cpp: what a framework does all the time, with 10, 1,000 and 100,000 other objects there:
// a cost that grows with what a program has made is a fault, however small it begins.
//
// Every number of objects has a process of its own, for libxhal's lists are the process's, and all
// of them take their turns in one run, beside an uncontended mutex. The empty plugin carries them,
// so that what is measured is libxhal's part.
#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <memory>

#include "bench.hpp"
#include "measure/child.hpp"
#include "measure/mutex.hpp"

namespace xhal::bench {
namespace {

constexpr uint32_t kCalls = 20'000;        // of a sample, when they are cheap
constexpr uint64_t kBudgetNs = 5'000'000;  // of a sample, when they are not
constexpr uint64_t kBlockBytes = 4096;     // of every allocation
constexpr uint64_t kTouchedBytes = 64;     // of a copy or fill
constexpr size_t kUsed = 8;  // objects in use, spread over all: the rest is only there

// The empty plugin and `count` objects of one kind.
class World {
 public:
  World() : device_(open_device("nop")), stream_(device_.stream()) {}
  virtual ~World() = default;
  virtual double sample() = 0;

 protected:
  template <class Body>
  static double timed(Body&& body) {
    uint32_t turn = 0;
    return ns_per_call_within(kBudgetNs, kCalls, [&] { body(turn++ % kUsed); });
  }
  // The place of the used object `i` among `count`.
  static size_t place(size_t i, size_t count) { return i * (count - 1) / (kUsed - 1); }

  Device device_;
  Stream stream_;
};

class ManyStreams : public World {
 public:
  explicit ManyStreams(size_t count) {
    for (size_t i = 0; i < count; ++i) streams_.push_back(device_.stream());
    for (size_t i = 0; i < kUsed; ++i) used_[i] = streams_[place(i, count)].get();
  }
  double sample() override {
    xhal_event event{};
    return timed([&](size_t i) { check(xhal_event_record(used_[i], 0, &event)); });
  }

 private:
  std::vector<Stream> streams_;
  std::array<xhal_stream*, kUsed> used_{};
};

class ManyBlocks : public World {
 public:
  // `pending`: all given back, waiting for an event that does not come.
  ManyBlocks(size_t count, bool pending) : pool_(device_.pool()) {
    std::vector<uint64_t> blocks(count);
    for (auto& block : blocks) block = alloc();
    if (!pending) return;
    xhal_event event{};
    check(xhal_timeline_create(0, &event.timeline));
    for (const auto block : blocks) {
      ++event.value;
      check(xhal_pool_free(pool_.get(), block, &event, 1));
    }
  }
  double sample() override {
    return timed([&](size_t) { check(xhal_pool_free(pool_.get(), alloc(), nullptr, 0)); });
  }

 private:
  uint64_t alloc() {
    uint64_t address = 0;
    check(xhal_pool_alloc(pool_.get(), stream_.get(), kBlockBytes, {}, &address));
    return address;
  }
  Pool pool_;
};

class ManyAllocations : public World {
 public:
  ManyAllocations(size_t count, bool copies) : copies_(copies) {
    std::vector<std::unique_ptr<Memory>> all(count);
    for (auto& memory : all) memory = std::make_unique<Memory>(device_, kBlockBytes);
    for (size_t i = 0; i < kUsed; ++i) used_[i] = all[place(i, count)]->address();
    for (auto& memory : all) (void)memory.release();  // until the end of the process
  }
  double sample() override {
    if (copies_) {
      return timed([&](size_t i) {
        check(xhal_stream_copy(stream_.get(), used_[i], used_[(i + 1) % kUsed], kTouchedBytes));
      });
    }
    return timed(
        [&](size_t i) { check(xhal_stream_fill(stream_.get(), used_[i], kTouchedBytes, 0, 8)); });
  }

 private:
  bool copies_;
  std::array<uint64_t, kUsed> used_{};
};

struct Kind {
  const char *name, *call, *objects;
  double limit;  // in mutex pairs
  std::unique_ptr<World> (*make)(size_t count);
};

const Kind kKinds[] = {
    {"record", "event record", "live streams", 3,
     [](size_t n) -> std::unique_ptr<World> { return std::make_unique<ManyStreams>(n); }},
    {"blocks", "pool alloc + free", "live blocks", 4,
     [](size_t n) -> std::unique_ptr<World> { return std::make_unique<ManyBlocks>(n, false); }},
    {"pending", "pool alloc + free", "pending frees", 4,
     [](size_t n) -> std::unique_ptr<World> { return std::make_unique<ManyBlocks>(n, true); }},
    {"copy", "copy submit", "live allocations", 5,
     [](size_t n) -> std::unique_ptr<World> { return std::make_unique<ManyAllocations>(n, true); }},
    {"fill", "fill submit", "live allocations", 5,
     [](size_t n) -> std::unique_ptr<World> {
       return std::make_unique<ManyAllocations>(n, false);
     }},
};

Sample in_child(const std::string& what) {
  return Child::side(own_path(), {"--serve", "scaling:" + what}, {"XHAL_LAYERS="});
}

// The rows of one kind, all from the same turns.
void kind_rows(Bench& bench, const Kind& kind, const std::vector<size_t>& counts) {
  const auto with = [&](size_t count) { return fmt::format("{} {}", count, kind.objects); };
  std::vector<Row> rows;
  bool wanted = false;
  for (const size_t count : counts) {
    rows.push_back({.metric = fmt::format("{}, {}", kind.call, with(count)), .unit = "ns"});
    wanted |= bench.wants(rows.back().metric);
  }
  if (!wanted) return;
  fmt::print(stderr, "  {}, {}\n", kind.call, kind.objects);
  std::vector<std::vector<double>> samples(counts.size() + 1);
  std::string failed;
  try {
    std::vector<Sample> sides;
    for (const size_t count : counts)
      sides.push_back(in_child(fmt::format("{}:{}", kind.name, count)));
    sides.push_back(in_child("mutex:0"));
    samples = interleave(sides, bench.effort(100));
  } catch (const std::exception& error) {
    failed = error.what();
  }
  for (size_t i = 0; i < counts.size(); ++i) {
    Row row = rows[i];
    row.samples = samples[i];
    row.failed = failed;
    row.peer = kMutexPair;
    row.peer_samples = samples.back();
    row.goal = Goal::ratio_at_most(kind.limit);
    bench.add(row);
    if (i == 0) continue;
    row.peer = "the same with " + with(counts[0]);
    row.peer_samples = samples[0];
    row.goal = Goal::ratio_at_most(1.3);
    bench.add(row);
  }
}

}  // namespace

int serve_scaling(const std::string& what) {
  const size_t colon = what.find(':');
  const std::string name = what.substr(0, colon);
  if (name == "mutex") {
    MutexPair mutex;
    return serve([&] { return mutex.sample(kCalls); });
  }
  const SecondThread second;
  const Session session;
  for (const auto& kind : kKinds) {
    if (name != kind.name) continue;
    const auto world = kind.make(std::strtoull(what.c_str() + colon + 1, nullptr, 10));
    const int status = serve([&] { return world->sample(); });
    std::_Exit(status);  // taking 100,000 objects apart is not what is measured
  }
  return 2;
}

void bench_scaling(Bench& bench) {
  const std::vector<size_t> counts =
      bench.quick() ? std::vector<size_t>{10, 100, 1000} : std::vector<size_t>{10, 1000, 100'000};
  for (const auto& kind : kKinds) kind_rows(bench, kind, counts);
}

}  // namespace xhal::bench
