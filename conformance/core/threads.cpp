// SPDX-License-Identifier: Apache-2.0
// Objects are made and destroyed by any thread: what a plugin keeps of them needs a lock.
#include <barrier>
#include <mutex>
#include <thread>

#include "harness/cts.hpp"
#include "xhal/catalog.h"

namespace xhal::cts {
namespace {

// The threads begin each round together; a list without a lock then loses an object, meets one
// twice or falls apart within a few rounds. What is left of it is walked when the device is closed.
TEST(Threads, StreamsOperatorsAndContextsComeAndGoAtOnce) {
  constexpr int kThreads = 4, kRounds = 100, kOperators = 16, kRoundsOfAContext = 10;
  auto* const first = make_context();
  const bool has_contexts = first != nullptr;
  if (has_contexts) {
    EXPECT_TRUE(ok(xhal_context_destroy(first)));
  }
  std::mutex mutex;
  std::string wrong;
  const auto expect = [&](xhal_status status, const char* what) {
    if (status == XHAL_OK) return true;
    const auto text = last_error_text();
    const std::lock_guard lock(mutex);
    if (wrong.empty()) wrong = std::string(what) + ": " + text;
    return false;
  };
  const auto context_comes_and_goes = [&] {
    xhal_context* further = nullptr;
    xhal_stream* stream = nullptr;
    uint64_t address = 0;
    if (!expect(xhal_context_create(device(), nullptr, &further), "xhal_context_create")) return;
    expect(allocate_in(further, 4096, &address), "xhal_memory_alloc");
    if (expect(xhal_stream_create(further, nullptr, &stream), "xhal_stream_create"))
      expect(xhal_stream_destroy(stream), "xhal_stream_destroy");
    expect(xhal_context_destroy(further), "xhal_context_destroy");
  };
  std::barrier together(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < kRounds; ++round) {
        xhal_stream* stream = nullptr;
        std::vector<xhal_op*> operators(kOperators);
        together.arrive_and_wait();
        expect(xhal_stream_create(context(), nullptr, &stream), "xhal_stream_create");
        for (auto& op : operators)
          expect(prepare_operator(XHAL_OP_fill, {floats_of(4)}, &op), "xhal_op_prepare");
        if (t % 2 == 0) std::reverse(operators.begin(), operators.end());
        for (auto* op : operators)
          if (op != nullptr) expect(xhal_op_destroy(op), "xhal_op_destroy");
        if (stream != nullptr) expect(xhal_stream_destroy(stream), "xhal_stream_destroy");
        if (has_contexts && round % kRoundsOfAContext == 0) context_comes_and_goes();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, "") << "4 threads made and destroyed streams, operators and contexts";
  close_device();
  const Stream still_works;
  EXPECT_TRUE(still_works.finishes());
}

}  // namespace
}  // namespace xhal::cts
