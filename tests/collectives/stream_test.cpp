// SPDX-License-Identifier: Apache-2.0
// Collectives in the order of a stream: on a device whose memory the host sees (template), and on
// one in another process whose memory it does not (remote); on the cpu plugin both ways.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <numeric>
#include <optional>
#include <thread>
#include <xhal/xhal.hpp>

#include "elements.hpp"
#include "ranks.hpp"

namespace xcoll::testing {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSoon = 60'000'000'000;

#define EXPECT_XHAL(call) EXPECT_EQ(call, XHAL_OK) << xhal::last_error_info().text
#define ASSERT_XHAL(call) ASSERT_EQ(call, XHAL_OK) << xhal::last_error_info().text

// A rank's device with memory for some vectors.
class Card {
 public:
  explicit Card(const std::string& plugin) : device_(open(plugin)) {}

  static bool exists(const std::string& plugin) {
    const xhal::Session session;
    for (const xhal_device_info& info : xhal::devices()) {
      if (info.plugin == plugin) return true;
    }
    return false;
  }

  xhal::Stream stream() const { return device_.stream(); }
  xhal_context* context() const { return device_.context(); }

  void* alloc(uint64_t bytes) const {
    xhal_memory_info info{};
    info.struct_size = sizeof(info);
    info.kind = XHAL_MEMORY_DEVICE;
    info.size_bytes = std::max<uint64_t>(bytes, 1);
    uint64_t address = 0;
    EXPECT_XHAL(xhal_memory_alloc(device_.context(), &info, &address));
    return reinterpret_cast<void*>(address);
  }

 private:
  static xhal::Device open(const std::string& plugin) {
    for (const xhal_device_info& info : xhal::devices()) {
      if (info.plugin == plugin) return xhal::Device(info.index);
    }
    throw std::runtime_error("no device of plugin " + plugin);
  }

  xhal::Session session_;
  xhal::Device device_;
};

void copy(xhal_stream* stream, void* to, const void* from, uint64_t bytes) {
  EXPECT_XHAL(xhal_stream_copy(stream, reinterpret_cast<uint64_t>(to),
                               reinterpret_cast<uint64_t>(from), bytes));
}

// Holds a stream until it is opened.
class Hold {
 public:
  explicit Hold(xhal_stream* stream) {
    xhal_timeline* timeline = nullptr;
    EXPECT_XHAL(xhal_timeline_create(0, &timeline));
    timeline_.reset(timeline);
    EXPECT_XHAL(xhal_stream_wait(stream, timeline, 1));
  }
  void open() { EXPECT_XHAL(xhal_timeline_signal(timeline_.get(), 1)); }
  void abandon() { timeline_.reset(); }

 private:
  xhal::Timeline timeline_;
};

struct Setting {
  const char* name;
  const char* plugin;
  bool guard;
};

class StreamTest : public ::testing::TestWithParam<std::tuple<Setting, Where>> {
 protected:
  void SetUp() override {
    const Setting& setting = std::get<0>(GetParam());
    if (setting.guard) ::setenv("XHAL_CPU_GUARD", "1", 1);
    if (!Card::exists(setting.plugin)) GTEST_SKIP() << "no plugin " << setting.plugin;
  }

  static void run(const std::function<void(const Rank&, const Card&)>& body, int32_t ranks = 2) {
    const auto& [setting, where] = GetParam();
    // The device of ranks that are threads belongs to the thread that outlives them.
    std::optional<Card> shared;
    if (where == Where::kThreads) shared.emplace(setting.plugin);
    run_ranks(ranks, where, [&](const Rank& rank) { body(rank, Card(setting.plugin)); });
  }
};

TEST_P(StreamTest, AnAllReduceSeesEarlierWorkAndLaterWorkSeesIt) {
  run([](const Rank& rank, const Card& card) {
    const Comm comm(rank);
    const xhal::Stream stream = card.stream();
    for (const uint64_t count : {uint64_t{1}, uint64_t{2'000}, uint64_t{300'000}}) {
      std::vector<float> in(count), out(count);
      float* device = static_cast<float*>(card.alloc(count * sizeof(float)));
      for (int round = 0; round < 20; ++round) {
        std::iota(in.begin(), in.end(), static_cast<float>(rank.rank + round));
        copy(stream.get(), device, in.data(), count * sizeof(float));
        ASSERT_XCOLL(XCOLL_OK, xcoll_all_reduce(comm, device, device, count, XCOLL_F32, XCOLL_SUM,
                                                stream.get()));
        copy(stream.get(), out.data(), device, count * sizeof(float));
        ASSERT_XHAL(xhal_stream_synchronize(stream.get(), kSoon));
        for (uint64_t i = 0; i < count; ++i) {
          ASSERT_EQ(out[i], 2.0f * static_cast<float>(i) + 2.0f * static_cast<float>(round) + 1.0f);
        }
      }
    }
  });
}

TEST_P(StreamTest, ManyOperationsInFlightKeepTheirOrder) {
  run([](const Rank& rank, const Card& card) {
    const Comm comm(rank);
    const xhal::Stream stream = card.stream();
    constexpr uint64_t kCount = 30'000;
    const std::vector<int64_t> ones(kCount, 1);
    std::vector<int64_t> out(kCount);
    auto* device = static_cast<int64_t*>(card.alloc(kCount * 8));
    copy(stream.get(), device, ones.data(), kCount * 8);
    for (int i = 0; i < 12; ++i) {
      const uint64_t count = i % 2 ? kCount : 3;
      ASSERT_XCOLL(XCOLL_OK, xcoll_all_reduce(comm, device, device, count, XCOLL_I64, XCOLL_SUM,
                                              stream.get()));
    }
    copy(stream.get(), out.data(), device, kCount * 8);
    ASSERT_XHAL(xhal_stream_synchronize(stream.get(), kSoon));
    EXPECT_EQ(out[0], 1 << 12);
    EXPECT_EQ(out[kCount - 1], 1 << 6);
    ASSERT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
  });
}

TEST_P(StreamTest, ASubmissionDoesNotWaitForTheStreamOrForOtherRanks) {
  Gate submitted;
  run([&](const Rank& rank, const Card& card) {
    const Comm comm(rank);
    const xhal::Stream stream = card.stream();
    Hold hold(stream.get());
    const float one = 1;
    float out = 0;
    auto* device = static_cast<float*>(card.alloc(sizeof(float)));
    copy(stream.get(), device, &one, sizeof(float));
    // Rank 1 begins only when rank 0 has come back from its submission.
    if (!rank.is(0)) submitted.wait();
    xcoll_request* request = nullptr;
    xcoll_op op{};
    op.struct_size = sizeof(op);
    op.kind = XCOLL_ALL_REDUCE;
    op.send = op.recv = device;
    op.count = 1;
    op.dtype = XCOLL_F32;
    ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, &op, 1, stream.get(), &request));
    copy(stream.get(), &out, device, sizeof(float));
    if (rank.is(0)) submitted.open();
    EXPECT_EQ(xcoll_request_test(request), XCOLL_NOT_READY);
    hold.open();
    ASSERT_XHAL(xhal_stream_synchronize(stream.get(), kSoon));
    EXPECT_XCOLL(XCOLL_OK, xcoll_request_wait(request, UINT64_MAX));
    EXPECT_EQ(out, 2);
    xcoll_request_free(request);
  });
}

TEST_P(StreamTest, EveryKindWorksOnDeviceMemory) {
  run(
      [](const Rank& rank, const Card& card) {
        const Comm comm(rank);
        const xhal::Stream stream = card.stream();
        const auto n = static_cast<uint64_t>(rank.size);
        for (const uint64_t count : {uint64_t{5}, uint64_t{20'001}}) {
          const uint64_t bytes = count * 4;
          std::vector<Bytes> inputs;
          for (int32_t r = 0; r < rank.size; ++r) {
            inputs.push_back(input_of(r, count * n, XCOLL_I32));
          }
          const Bytes& mine = inputs[static_cast<size_t>(rank.rank)];
          const Bytes sum = reduced(inputs, XCOLL_I32, XCOLL_SUM);
          auto* send = static_cast<unsigned char*>(card.alloc(bytes * n));
          auto* recv = static_cast<unsigned char*>(card.alloc(bytes * n));
          const auto expect = [&](const Bytes& expected, const void* device) {
            Bytes out(expected.size());
            copy(stream.get(), out.data(), device, out.size());
            ASSERT_XHAL(xhal_stream_synchronize(stream.get(), kSoon));
            ASSERT_EQ(difference(expected, out.data(), XCOLL_I32), "equal");
            copy(stream.get(), send, mine.data(), mine.size());
            // The copy reads `mine`, which ends with this round.
            ASSERT_XHAL(xhal_stream_synchronize(stream.get(), kSoon));
          };
          const auto me = static_cast<uint64_t>(rank.rank);
          Bytes gathered, transposed;
          for (const Bytes& input : inputs) {
            const Bytes share = part(input, 0, count, XCOLL_I32);
            const Bytes own = part(input, me * count, count, XCOLL_I32);
            gathered.insert(gathered.end(), share.begin(), share.end());
            transposed.insert(transposed.end(), own.begin(), own.end());
          }

          copy(stream.get(), send, mine.data(), mine.size());
          ASSERT_XCOLL(XCOLL_OK,
                       xcoll_all_gather(comm, send, recv, count, XCOLL_I32, stream.get()));
          expect(gathered, recv);
          ASSERT_XCOLL(XCOLL_OK, xcoll_reduce_scatter(comm, send, send + bytes * me, count,
                                                      XCOLL_I32, XCOLL_SUM, stream.get()));
          expect(part(sum, me * count, count, XCOLL_I32), send + bytes * me);
          ASSERT_XCOLL(XCOLL_OK,
                       xcoll_broadcast(comm, send, recv, count, XCOLL_I32, 1, stream.get()));
          expect(part(inputs[1], 0, count, XCOLL_I32), recv);
          ASSERT_XCOLL(XCOLL_OK, xcoll_reduce(comm, send, recv, count, XCOLL_I32, XCOLL_SUM, 0,
                                              stream.get()));
          expect(part(rank.is(0) ? sum : inputs[1], 0, count, XCOLL_I32), recv);
          ASSERT_XCOLL(XCOLL_OK,
                       xcoll_all_to_all(comm, send, recv, count, XCOLL_I32, stream.get()));
          expect(transposed, recv);
          ASSERT_XCOLL(XCOLL_OK, xcoll_gather(comm, send, recv, count, XCOLL_I32, 0, stream.get()));
          expect(rank.is(0) ? gathered : transposed, recv);
          ASSERT_XCOLL(XCOLL_OK,
                       xcoll_scatter(comm, send, recv, count, XCOLL_I32, 1, stream.get()));
          expect(part(inputs[1], me * count, count, XCOLL_I32), recv);
          ASSERT_XCOLL(XCOLL_OK, xcoll_barrier(comm, stream.get()));
        }
      },
      3);
}

TEST_P(StreamTest, AReceiveOnOneStreamDoesNotHoldUpASendOnAnother) {
  run([](const Rank& rank, const Card& card) {
    const Comm comm(rank);
    const xhal::Stream receiving = card.stream(), sending = card.stream();
    constexpr uint64_t kCount = 100'000;
    const Bytes mine = input_of(rank.rank, kCount, XCOLL_F32);
    const Bytes theirs = input_of(1 - rank.rank, kCount, XCOLL_F32);
    auto* in = static_cast<float*>(card.alloc(kCount * 4));
    auto* out = static_cast<float*>(card.alloc(kCount * 4));
    Bytes got(theirs.size());
    ASSERT_XCOLL(XCOLL_OK,
                 xcoll_recv(comm, out, kCount, XCOLL_F32, 1 - rank.rank, receiving.get()));
    copy(receiving.get(), got.data(), out, got.size());
    copy(sending.get(), in, mine.data(), mine.size());
    ASSERT_XCOLL(XCOLL_OK, xcoll_send(comm, in, kCount, XCOLL_F32, 1 - rank.rank, sending.get()));
    ASSERT_XHAL(xhal_stream_synchronize(receiving.get(), kSoon));
    ASSERT_XHAL(xhal_stream_synchronize(sending.get(), kSoon));
    EXPECT_EQ(difference(theirs, got.data(), XCOLL_F32), "equal");
  });
}

TEST_P(StreamTest, TwoStreamsMayShareACommunicator) {
  run([](const Rank& rank, const Card& card) {
    const Comm comm(rank);
    const xhal::Stream streams[] = {card.stream(), card.stream()};
    constexpr uint64_t kCount = 10'000;
    auto* device = static_cast<int32_t*>(card.alloc(2 * kCount * 4));
    std::vector<int32_t> in(2 * kCount, rank.rank + 1), out(2 * kCount);
    for (int i = 0; i < 2; ++i) {
      const uint64_t begin = static_cast<uint64_t>(i) * kCount;
      copy(streams[i].get(), device + begin, in.data() + begin, kCount * 4);
    }
    for (int round = 0; round < 10; ++round) {
      const int i = round % 2;
      int32_t* data = device + static_cast<uint64_t>(i) * kCount;
      ASSERT_XCOLL(XCOLL_OK, xcoll_all_reduce(comm, data, data, kCount, XCOLL_I32, XCOLL_SUM,
                                              streams[i].get()));
    }
    for (int i = 0; i < 2; ++i) {
      const uint64_t begin = static_cast<uint64_t>(i) * kCount;
      copy(streams[i].get(), out.data() + begin, device + begin, kCount * 4);
      ASSERT_XHAL(xhal_stream_synchronize(streams[i].get(), kSoon));
    }
    EXPECT_THAT(out, ::testing::Each(3 * 16));
  });
}

TEST_P(StreamTest, ACallWithoutStreamGoesInBetween) {
  run([](const Rank& rank, const Card& card) {
    const Comm comm(rank);
    const xhal::Stream stream = card.stream();
    auto* device = static_cast<int32_t*>(card.alloc(4));
    copy(stream.get(), device, &rank.rank, 4);
    ASSERT_XCOLL(XCOLL_OK,
                 xcoll_all_reduce(comm, device, device, 1, XCOLL_I32, XCOLL_MAX, stream.get()));
    int32_t host = 1;
    ASSERT_XCOLL(XCOLL_OK, xcoll_all_reduce(comm, &host, &host, 1, XCOLL_I32, XCOLL_SUM, nullptr));
    EXPECT_EQ(host, 2);
    copy(stream.get(), &host, device, 4);
    ASSERT_XHAL(xhal_stream_synchronize(stream.get(), kSoon));
    EXPECT_EQ(host, 1);
  });
}

// Pairs of calls that do not match: rank 0 makes the first, rank 1 the second.
struct Disagreement {
  const char* name;
  xcoll_op usual, odd;
};

xcoll_op call(xcoll_kind kind, uint64_t count, xcoll_dtype dtype = XCOLL_F32,
              xcoll_reduction reduction = XCOLL_SUM, int32_t root = 0) {
  xcoll_op op{};
  op.struct_size = sizeof(op);
  op.kind = kind;
  op.count = count;
  op.dtype = dtype;
  op.reduction = reduction;
  op.peer = root;
  return op;
}

const Disagreement kDisagreements[] = {
    {"length", call(XCOLL_ALL_REDUCE, 4), call(XCOLL_ALL_REDUCE, 3)},
    {"large length", call(XCOLL_ALL_REDUCE, 50'000), call(XCOLL_ALL_REDUCE, 40'000)},
    {"type", call(XCOLL_ALL_REDUCE, 4), call(XCOLL_ALL_REDUCE, 4, XCOLL_I32)},
    {"reduction", call(XCOLL_ALL_REDUCE, 4), call(XCOLL_ALL_REDUCE, 4, XCOLL_F32, XCOLL_MAX)},
    {"root", call(XCOLL_BROADCAST, 4), call(XCOLL_BROADCAST, 4, XCOLL_F32, XCOLL_SUM, 1)},
    {"kind", call(XCOLL_ALL_REDUCE, 4), call(XCOLL_ALL_GATHER, 4)},
    {"barrier", call(XCOLL_ALL_REDUCE, 4), call(XCOLL_BARRIER, 0)},
};

TEST_P(StreamTest, AMismatchIsAnErrorOfTheCallOrOfTheStreamOnEveryRank) {
  for (const Disagreement& disagreement : kDisagreements) {
    SCOPED_TRACE(disagreement.name);
    run([&](const Rank& rank, const Card& card) {
      const Comm comm(rank);
      const xhal::Stream stream = card.stream();
      xcoll_op op = rank.is(0) ? disagreement.usual : disagreement.odd;
      op.send = card.alloc(op.count * 4);
      op.recv = card.alloc(op.count * 8);
      // Both are in the same call at the same time, so that either may find it.
      ASSERT_XCOLL(XCOLL_OK, xcoll_barrier(comm, nullptr));
      const xcoll_status called = xcoll_submit(comm, &op, 1, stream.get(), nullptr);
      const xhal_status streamed = xhal_stream_synchronize(stream.get(), kSoon);
      EXPECT_TRUE(called == XCOLL_ERR_MISMATCH || streamed < 0)
          << xcoll_status_name(called) << " and " << xhal_status_name(streamed);
      if (called != XCOLL_OK) {
        EXPECT_XCOLL(XCOLL_ERR_MISMATCH, called);
      }
      EXPECT_XCOLL(XCOLL_ERR_MISMATCH, xcoll_comm_async_error(comm));
      EXPECT_THAT(xcoll_last_error(), HasSubstr("mismatch in collective #2"));
    });
  }
}

TEST_P(StreamTest, ACallBehindAStreamThatIsHeldEndsAtItsDeadline) {
  run(
      [](const Rank& rank, const Card& card) {
        const Comm comm(rank, 300);
        const xhal::Stream stream = card.stream();
        Hold hold(stream.get());
        auto* device = static_cast<float*>(card.alloc(4));
        ASSERT_XCOLL(XCOLL_OK,
                     xcoll_all_reduce(comm, device, device, 1, XCOLL_F32, XCOLL_SUM, stream.get()));
        EXPECT_XCOLL(XCOLL_ERR_TIMEOUT, xcoll_barrier(comm, nullptr));
        EXPECT_THAT(xcoll_last_error(), HasSubstr("all-reduce #1 (f32 x 1, sum)"));
        EXPECT_THAT(xcoll_last_error(), HasSubstr("stream has not come to it"));
        hold.open();
        EXPECT_LT(xhal_stream_synchronize(stream.get(), kSoon), 0);
      },
      1);
}

TEST_P(StreamTest, ADeadlineFailsTheStreamWhichCanRecover) {
  Gate over;
  run([&](const Rank& rank, const Card& card) {
    const Comm comm(rank, 300);
    if (rank.is(1)) {
      over.wait();
      return;
    }
    const xhal::Stream stream = card.stream();
    auto* device = static_cast<int32_t*>(card.alloc(4));
    const int32_t seven = 7;
    int32_t out = 0;
    ASSERT_XCOLL(XCOLL_OK,
                 xcoll_all_reduce(comm, device, device, 1, XCOLL_I32, XCOLL_SUM, stream.get()));
    EXPECT_LT(xhal_stream_synchronize(stream.get(), kSoon), 0);
    EXPECT_XCOLL(XCOLL_ERR_TIMEOUT, xcoll_comm_async_error(comm));
    EXPECT_THAT(xcoll_last_error(), HasSubstr("rank 1"));
    over.open();
    ASSERT_XHAL(xhal_stream_recover(stream.get()));
    copy(stream.get(), device, &seven, 4);
    copy(stream.get(), &out, device, 4);
    ASSERT_XHAL(xhal_stream_synchronize(stream.get(), kSoon));
    EXPECT_EQ(out, 7);
  });
}

TEST_P(StreamTest, AFailedStreamIsAStickyErrorOnEveryRank) {
  Gate submitted;
  run([&](const Rank& rank, const Card& card) {
    const Comm comm(rank);
    const xhal::Stream stream = card.stream();
    auto* device = static_cast<int32_t*>(card.alloc(4));
    std::optional<Hold> hold;
    if (rank.is(1)) hold.emplace(stream.get());
    xcoll_request* request = nullptr;
    xcoll_op op{};
    op.struct_size = sizeof(op);
    op.kind = XCOLL_ALL_REDUCE;
    op.send = op.recv = device;
    op.count = 1;
    op.dtype = XCOLL_I32;
    ASSERT_XCOLL(XCOLL_OK, xcoll_submit(comm, &op, 1, stream.get(), &request));
    if (rank.is(0)) submitted.open();
    if (rank.is(1)) {
      submitted.wait();
      hold->abandon();
    }
    EXPECT_XCOLL(XCOLL_ERR_DEVICE, xcoll_request_wait(request, UINT64_MAX));
    EXPECT_THAT(xcoll_last_error(), HasSubstr("the stream of rank 1"));
    EXPECT_EQ(comm.failure().culprit, 1);
    EXPECT_LT(xhal_stream_synchronize(stream.get(), kSoon), 0);
    if (rank.is(0)) {  // its own stream is whole: it fails because of the collective, and says so
      xhal_error error{};
      error.struct_size = sizeof(error);
      ASSERT_XHAL(xhal_last_error(&error));
      EXPECT_EQ(error.status, XHAL_ERR_DEPENDENCY);
      EXPECT_EQ(error.cause, XHAL_ERR_DEVICE);
      EXPECT_THAT(std::string(error.cause_text.data, error.cause_text.size),
                  HasSubstr("the stream of rank 1"));
    }
    xcoll_request_free(request);
  });
}

TEST_P(StreamTest, DestroyingTheCommunicatorFailsAStreamThatWaitsForIt) {
  run([](const Rank& rank, const Card& card) {
    const xhal::Stream stream = card.stream();
    auto* device = static_cast<int32_t*>(card.alloc(4));
    std::optional<Hold> hold;
    {
      const Comm comm(rank);
      if (rank.is(0)) {
        hold.emplace(stream.get());
        ASSERT_XCOLL(XCOLL_OK,
                     xcoll_all_reduce(comm, device, device, 1, XCOLL_I32, XCOLL_SUM, stream.get()));
      }
    }
    if (rank.is(0)) {
      hold->open();
      EXPECT_LT(xhal_stream_synchronize(stream.get(), kSoon), 0);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Devices, StreamTest,
                         ::testing::Combine(::testing::Values(Setting{"Template", "template",
                                                                      false},
                                                              Setting{"Remote", "remote", false},
                                                              Setting{"Cpu", "cpu", false},
                                                              Setting{"CpuGuard", "cpu", true}),
                                            ::testing::Values(Where::kProcesses, Where::kThreads)),
                         [](const auto& info) {
                           return std::get<0>(info.param).name + name_of(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace xcoll::testing
