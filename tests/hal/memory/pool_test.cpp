// SPDX-License-Identifier: Apache-2.0
// The caching allocator: whose a block is and when, with threads, callbacks, streams that end, and
// little memory. Captures and contexts: pools_test.cpp.
#include <algorithm>
#include <atomic>
#include <future>
#include <mutex>
#include <random>
#include <thread>

#include "../hal_test.hpp"

namespace xhal::test {
namespace {

constexpr uint64_t kMiB = 1 << 20;

class PoolBlocks : public HalTest {
 protected:
  Device& card() { return device("template"); }
  static uint64_t block(const Pool& pool, xhal_stream* stream, uint64_t size) {
    uint64_t address = 0;
    check(xhal_pool_alloc(pool.get(), stream, size, str("block"), &address));
    return address;
  }
  static void give_back(const Pool& pool, uint64_t address) {
    check(xhal_pool_free(pool.get(), address, nullptr, 0));
  }
  static xhal_pool_stats stats(const Pool& pool) {
    xhal_pool_stats s{};
    s.struct_size = sizeof s;
    check(xhal_pool_query(pool.get(), &s));
    return s;
  }
  static Timeline timeline() {
    xhal_timeline* t = nullptr;
    check(xhal_timeline_create(0, &t));
    return Timeline(t);
  }
};

// Which bytes are somebody's: of a block that is out, or that waits for an event.
class Claims {
 public:
  bool add(uint64_t address, uint64_t size) {
    const std::lock_guard lock(mutex_);
    auto next = ranges_.lower_bound(address);
    if (next != ranges_.end() && next->first < address + size) return false;
    if (next != ranges_.begin() && std::prev(next)->second > address) return false;
    ranges_.emplace(address, address + size);
    return true;
  }
  void remove(uint64_t address) {
    const std::lock_guard lock(mutex_);
    ranges_.erase(address);
  }

 private:
  std::mutex mutex_;
  std::map<uint64_t, uint64_t> ranges_;
};

struct Program {
  uint32_t seed;
  uint64_t limit_bytes;
};
class PoolProgram : public PoolBlocks, public testing::WithParamInterface<Program> {};

// One thread's life: it allocates for its own stream or for none, frees at once or behind events of
// two timelines that it raises later, and trims now and then.
void live(const Pool& pool, xhal_stream* stream, uint32_t seed, Claims& claims,
          std::atomic<uint64_t>& allocated, std::atomic<uint64_t>& overlaps) {
  std::mt19937 random(seed);
  const auto below = [&](uint64_t n) { return random() % n; };
  struct Out {
    uint64_t address, size;
  };
  struct Waiting {
    uint64_t address, first, second;  // values of the two timelines
  };
  Timeline timelines[2];
  uint64_t planned[2] = {}, reached[2] = {};
  for (auto& t : timelines) {
    xhal_timeline* made = nullptr;
    check(xhal_timeline_create(0, &made));
    t.reset(made);
  }
  std::vector<Out> out;
  std::vector<Waiting> waiting;
  const auto raise = [&](int which, uint64_t value) {
    reached[which] = value;
    // No claim on what becomes free by this, before it does.
    std::erase_if(waiting, [&](const Waiting& w) {
      if (w.first > reached[0] || w.second > reached[1]) return false;
      claims.remove(w.address);
      return true;
    });
    check(xhal_timeline_signal(timelines[which].get(), value));
  };
  for (int step = 0; step < 3000; ++step) {
    const auto choice = below(10);
    if (choice < 5 && out.size() < 60) {
      const uint64_t size = 1 + (below(8) == 0 ? below(3 * kMiB) : below(40'000));
      uint64_t address = 0;
      const auto status = xhal_pool_alloc(pool.get(), below(4) == 0 ? nullptr : stream, size,
                                          str("program"), &address);
      if (status == XHAL_ERR_OUT_OF_MEMORY) {
        if (!out.empty()) {
          claims.remove(out.back().address);
          check(xhal_pool_free(pool.get(), out.back().address, nullptr, 0));
          out.pop_back();
        }
        continue;
      }
      check(status);
      ++allocated;
      if (!claims.add(address, size)) ++overlaps;
      out.push_back({address, size});
    } else if (choice < 9 && !out.empty()) {
      std::swap(out[below(out.size())], out.back());
      const Out b = out.back();
      out.pop_back();
      if (below(2) == 0) {
        claims.remove(b.address);
        check(xhal_pool_free(pool.get(), b.address, nullptr, 0));
        continue;
      }
      Waiting w{b.address, 0, 0};
      std::vector<xhal_event> events;
      for (int i = 0; i < 2; ++i) {
        if (below(2) == 0) continue;
        auto& value = i == 0 ? w.first : w.second;
        value = reached[i] + below(20);  // in no order
        planned[i] = std::max(planned[i], value);
        events.push_back({timelines[i].get(), value, 0, 0});
      }
      if (w.first <= reached[0] && w.second <= reached[1])
        claims.remove(b.address);
      else
        waiting.push_back(w);
      check(xhal_pool_free(pool.get(), b.address, events.data(),
                           static_cast<uint32_t>(events.size())));
    } else if (choice == 9) {
      const auto which = static_cast<int>(below(2));
      if (planned[which] > reached[which])
        raise(which, reached[which] + 1 + below(planned[which] - reached[which]));
      if (below(50) == 0) check(xhal_pool_trim(pool.get(), 4 * kMiB));
    }
  }
  for (int i = 0; i < 2; ++i) raise(i, std::max<uint64_t>(planned[i], 1));
  for (const auto& b : out) {
    claims.remove(b.address);
    check(xhal_pool_free(pool.get(), b.address, nullptr, 0));
  }
}

TEST_P(PoolProgram, NoByteIsHandedOutTwiceAndTheCountersAddUp) {
  const auto pool = card().pool(GetParam().limit_bytes);
  Claims claims;
  std::atomic<uint64_t> allocated{0}, overlaps{0};
  std::vector<Stream> streams;
  for (int i = 0; i < 4; ++i) streams.push_back(card().stream());
  {
    std::vector<std::future<void>> threads;
    for (uint32_t i = 0; i < 4; ++i) {
      threads.push_back(std::async(std::launch::async, [&, i] {
        live(pool, streams[i].get(), GetParam().seed * 4 + i, claims, allocated, overlaps);
      }));
    }
    for (auto& t : threads) t.get();
  }
  EXPECT_EQ(overlaps, 0u);
  auto s = stats(pool);
  EXPECT_EQ(s.used_bytes, 0u);
  EXPECT_EQ(s.requested_bytes, 0u);
  EXPECT_EQ(s.pending_bytes, 0u);
  EXPECT_EQ(s.allocation_count, allocated);
  EXPECT_EQ(s.free_count, allocated);
  if (GetParam().limit_bytes != 0) {
    EXPECT_LE(s.reserved_peak_bytes, GetParam().limit_bytes);
  }
  ASSERT_OK(xhal_pool_trim(pool.get(), 0));
  s = stats(pool);
  EXPECT_EQ(s.reserved_bytes, 0u) << "a piece was not joined, or is still somebody's";
  EXPECT_EQ(s.slab_count, 0u);
}
INSTANTIATE_TEST_SUITE_P(Seeds, PoolProgram,
                         testing::Values(Program{1, 0}, Program{2, 64 * kMiB},
                                         Program{3, 44 * kMiB}, Program{4, 24 * kMiB}),
                         [](const auto& info) { return "Seed" + std::to_string(info.param.seed); });

TEST_F(PoolBlocks, ABlockWithSeveralEventsWaitsForAllOfThem) {
  const auto pool = card().pool(2 * kMiB);
  const auto stream = card().stream();
  const auto first = timeline(), second = timeline();
  const auto address = block(pool, stream.get(), kMiB), other = block(pool, stream.get(), kMiB);
  const xhal_event events[] = {{first.get(), 1, 0, 0}, {second.get(), 1, 0, 0}};
  ASSERT_OK(xhal_pool_free(pool.get(), address, events, 2));
  for (const auto* t : {&second, &first}) {
    uint64_t early = 0;
    EXPECT_EQ(xhal_pool_alloc(pool.get(), stream.get(), kMiB, str(""), &early),
              XHAL_ERR_OUT_OF_MEMORY);
    EXPECT_EQ(stats(pool).pending_bytes, kMiB);
    ASSERT_OK(xhal_timeline_signal(t->get(), 1));
  }
  give_back(pool, block(pool, stream.get(), kMiB));
  give_back(pool, other);
  EXPECT_EQ(stats(pool).pending_bytes, 0u);
}

TEST_F(PoolBlocks, AnAllocationForNoStreamWaitsWithoutKeepingOthersOut) {
  const auto pool = card().pool(2 * kMiB);
  const auto stream = card().stream();
  const auto address = block(pool, stream.get(), kMiB);
  const auto other = block(pool, stream.get(), kMiB / 2);
  Gate gate(stream.get());
  give_back(pool, address);
  auto waiting = std::async(std::launch::async, [&] { return block(pool, nullptr, kMiB); });
  while (stats(pool).retry_count == 0) std::this_thread::yield();
  for (int i = 0; i < 100; ++i) give_back(pool, block(pool, stream.get(), 4096));
  EXPECT_EQ(waiting.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  gate.open();
  give_back(pool, waiting.get());
  give_back(pool, other);
}

TEST_F(PoolBlocks, CallbacksMayAllocateFreeAndTrim) {
  struct Work {
    const Pool* pool;
    uint64_t address;
    std::atomic<int> calls{0}, failures{0};
    void run() {
      uint64_t more = 0;
      failures += xhal_pool_free(pool->get(), address, nullptr, 0) != XHAL_OK;
      failures += xhal_pool_alloc(pool->get(), nullptr, 8192, {}, &more) != XHAL_OK;
      failures += xhal_pool_free(pool->get(), more, nullptr, 0) != XHAL_OK;
      failures += xhal_pool_trim(pool->get(), 0) != XHAL_OK;
      ++calls;
    }
  };
  const auto pool = card().pool();
  const auto first = card().stream(), second = card().stream();
  Work notified{&pool, block(pool, first.get(), kMiB / 2)};
  Work called{&pool, block(pool, first.get(), kMiB / 2)};
  give_back(pool, block(pool, first.get(), kMiB / 4));
  xhal_timeline* t = nullptr;
  ASSERT_OK(xhal_stream_timeline(first.get(), &t));
  uint64_t next = 0;
  xhal_event event{};
  ASSERT_OK(xhal_event_record(first.get(), 0, &event));
  next = event.value + 1;  // what the pool records itself, when it takes a block of this stream
  const auto run = [](void* user, xhal_status) { static_cast<Work*>(user)->run(); };
  ASSERT_OK(xhal_timeline_notify(t, next, run, &notified));
  ASSERT_OK(xhal_stream_host_call(second.get(), run, &called, 0));
  ASSERT_OK(xhal_pool_trim(pool.get(), 0));
  ASSERT_OK(xhal_event_record(first.get(), 0, &event));
  ASSERT_OK(xhal_stream_synchronize(first.get(), kSoon));
  ASSERT_OK(xhal_stream_synchronize(second.get(), kSoon));
  while (notified.calls + called.calls < 2) std::this_thread::yield();
  EXPECT_EQ(notified.failures + called.failures, 0);
}

TEST_F(PoolBlocks, BlocksOfStreamsThatEndedAreAnybodys) {
  const auto pool = card().pool();
  for (int i = 0; i < 2000; ++i) {
    const auto stream = card().stream();
    give_back(pool, block(pool, stream.get(), kMiB));
  }
  EXPECT_EQ(stats(pool).slab_allocation_count, 1u);
  const auto kept = card().stream();
  uint64_t address = 0;
  {
    const auto ends = card().stream();
    address = block(pool, ends.get(), kMiB);
  }
  give_back(pool, address);  // after its stream
  give_back(pool, block(pool, nullptr, 2 * kMiB - 512 * 2048));
  ASSERT_OK(xhal_pool_trim(pool.get(), 0));
  EXPECT_EQ(stats(pool).reserved_bytes, 0u);
}

TEST_F(PoolBlocks, ThreadsThatAreShortOfMemoryAtOnceAreAllServed) {
  const auto pool = card().pool(8 * kMiB);
  std::atomic<int> failures{0};
  std::vector<Stream> streams;
  for (int i = 0; i < 4; ++i) streams.push_back(card().stream());
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int k = 0; k < 500; ++k) {
        // Two small slabs or pieces of them are enough for all four, whoever has them now.
        uint64_t address = 0;
        if (xhal_pool_alloc(pool.get(), streams[static_cast<size_t>(i)].get(), kMiB / 2, {},
                            &address) != XHAL_OK) {
          ++failures;
          continue;
        }
        xhal_pool_free(pool.get(), address, nullptr, 0);
        if (k % 8 == i) xhal_pool_trim(pool.get(), 0);
      }
    });
  }
  threads.clear();
  EXPECT_EQ(failures, 0);
  EXPECT_LE(stats(pool).reserved_peak_bytes, 8 * kMiB);
}

TEST_F(PoolBlocks, ErrorsNameTheDeviceAndTheContext) {
  const auto pool = card().pool(2 * kMiB);
  uint64_t address = 0;
  ASSERT_EQ(xhal_pool_alloc(pool.get(), nullptr, 8 * kMiB, str("large"), &address),
            XHAL_ERR_OUT_OF_MEMORY);
  xhal_error error{};
  error.struct_size = sizeof error;
  ASSERT_OK(xhal_last_error(&error));
  EXPECT_EQ(std::string(error.device.data, error.device.size), "template:0");
  EXPECT_NE(error.context, 0u);
  ASSERT_EQ(xhal_pool_free(pool.get(), 512, nullptr, 0), XHAL_ERR_INVALID_ARGUMENT);
  ASSERT_OK(xhal_last_error(&error));
  EXPECT_EQ(std::string(error.device.data, error.device.size), "template:0");
}

TEST_F(PoolBlocks, UnknownFlagsAreRefused) {
  xhal_pool_info info{};
  info.struct_size = sizeof info;
  info.flags = 1u << 20;
  xhal_pool* pool = nullptr;
  EXPECT_EQ(xhal_pool_create(card().context(), &info, &pool), XHAL_ERR_UNKNOWN_FIELD);
}

class ObservedPool : public PoolBlocks {
 protected:
  struct Seen {
    std::mutex mutex;
    std::vector<std::pair<uint32_t, uint64_t>> records;  // kind, size
    std::vector<std::string> tags;
    static void add(void* user, const xhal_pool_record* r) {
      auto& seen = *static_cast<Seen*>(user);
      const std::lock_guard lock(seen.mutex);
      seen.records.emplace_back(r->kind, r->size_bytes);
      seen.tags.emplace_back(r->tag.data == nullptr ? "" : r->tag.data, r->tag.size);
    }
  };
};

TEST_F(ObservedPool, EverythingThatHappensIsTold) {
  Seen seen;
  const auto pool = card().pool(2 * kMiB);
  ASSERT_OK(xhal_pool_observe(pool.get(), Seen::add, &seen));
  give_back(pool, block(pool, nullptr, 1000));
  uint64_t address = 0;
  EXPECT_EQ(xhal_pool_alloc(pool.get(), nullptr, 8 * kMiB, str("large"), &address),
            XHAL_ERR_OUT_OF_MEMORY);
  ASSERT_OK(xhal_pool_observe(pool.get(), nullptr, nullptr));
  give_back(pool, block(pool, nullptr, 1000));
  using Record = std::pair<uint32_t, uint64_t>;
  EXPECT_THAT(
      seen.records,
      testing::ElementsAre(Record{XHAL_POOL_SLAB_ALLOC, 2 * kMiB}, Record{XHAL_POOL_ALLOC, 1024},
                           Record{XHAL_POOL_FREE, 1024}, Record{XHAL_POOL_SLAB_FREE, 2 * kMiB},
                           Record{XHAL_POOL_OUT_OF_MEMORY, 8 * kMiB}));
  EXPECT_THAT(seen.tags, testing::ElementsAre("", "block", "block", "", "large"));
}

TEST_F(ObservedPool, AnObserverMayUseThePoolButNotReplaceItself) {
  struct Own {
    xhal_pool* pool;
    int depth = 0;
    xhal_status replaced = XHAL_OK;
  } own;
  const auto pool = card().pool();
  own.pool = pool.get();
  const auto callback = [](void* user, const xhal_pool_record*) {
    auto& o = *static_cast<Own*>(user);
    if (o.depth++ > 0) return;
    o.replaced = xhal_pool_observe(o.pool, nullptr, nullptr);
    uint64_t address = 0;
    if (xhal_pool_alloc(o.pool, nullptr, 4096, {}, &address) == XHAL_OK)
      xhal_pool_free(o.pool, address, nullptr, 0);
  };
  ASSERT_OK(xhal_pool_observe(pool.get(), callback, &own));
  give_back(pool, block(pool, nullptr, 4096));
  EXPECT_EQ(own.replaced, XHAL_ERR_BUSY);
  EXPECT_GE(own.depth, 4);
  ASSERT_OK(xhal_pool_observe(pool.get(), nullptr, nullptr));
}

TEST_F(ObservedPool, NoCallOfAReplacedObserverIsRunningAfterwards) {
  struct Slow {
    std::promise<void> entered;
    std::future<void> leave;
    std::atomic<bool> inside{false}, once{false};
  } slow;
  std::promise<void> leave;
  slow.leave = leave.get_future();
  const auto pool = card().pool();
  const auto callback = [](void* user, const xhal_pool_record*) {
    auto& s = *static_cast<Slow*>(user);
    if (s.once.exchange(true)) return;
    s.inside = true;
    s.entered.set_value();
    s.leave.wait();
    s.inside = false;
  };
  ASSERT_OK(xhal_pool_observe(pool.get(), callback, &slow));
  std::jthread user([&] { give_back(pool, block(pool, nullptr, 4096)); });
  slow.entered.get_future().wait();
  auto replaced = std::async(std::launch::async, [&] {
    check(xhal_pool_observe(pool.get(), nullptr, nullptr));
    return slow.inside.load();
  });
  give_back(pool, block(pool, nullptr, 4096));  // others go on meanwhile
  leave.set_value();
  EXPECT_FALSE(replaced.get());
}

}  // namespace
}  // namespace xhal::test
