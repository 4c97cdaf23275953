// SPDX-License-Identifier: Apache-2.0
// Memory runs out inside libxcoll: at every single allocation of a call, in whatever thread, the
// call ends with an error and so does everything after it; nothing hangs and nothing is terminated.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "ranks.hpp"

namespace {

// Allocations that still succeed; negative: all do.
std::atomic<int64_t> allocations_left{-1};

}  // namespace

void* operator new(std::size_t bytes) {
  int64_t left = allocations_left.load();
  while (left >= 0 && !allocations_left.compare_exchange_weak(left, left - 1)) {
  }
  if (left == 0) throw std::bad_alloc();
  if (void* memory = std::malloc(bytes ? bytes : 1)) return memory;
  throw std::bad_alloc();
}
// Not inlined: GCC would take free() for a mistake.
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace xcoll::testing {
namespace {

struct Attempt {
  xcoll_comm* comm;
  float* data;
};

struct Way {
  const char* name;
  xcoll_status (*call)(const Attempt&);
};

constexpr uint64_t kCount = 4096;

xcoll_op make_op(xcoll_kind kind, float* data, int32_t tag) {
  xcoll_op op{};
  op.struct_size = sizeof(op);
  op.kind = kind;
  op.send = op.recv = data;
  op.count = kCount;
  op.dtype = XCOLL_F32;
  op.tag = tag;
  return op;
}

xcoll_status submit_and_wait(const Attempt& attempt, const xcoll_op* ops, uint64_t n) {
  xcoll_request* request = nullptr;
  xcoll_status status = xcoll_submit(attempt.comm, ops, n, nullptr, &request);
  if (request) status = xcoll_request_wait(request, UINT64_MAX);
  xcoll_request_free(request);
  return status;
}

const Way kWays[] = {
    {"Call",
     [](const Attempt& attempt) {
       return xcoll_all_reduce(attempt.comm, attempt.data, attempt.data, kCount, XCOLL_F32,
                               XCOLL_SUM, nullptr);
     }},
    {"Request",
     [](const Attempt& attempt) {
       const xcoll_op op = make_op(XCOLL_ALL_REDUCE, attempt.data, 0);
       return submit_and_wait(attempt, &op, 1);
     }},
    {"MessagesPutAside",
     [](const Attempt& attempt) {
       float* data = attempt.data;
       const xcoll_op ops[] = {make_op(XCOLL_RECV, data, 2), make_op(XCOLL_SEND, data + kCount, 1),
                               make_op(XCOLL_SEND, data + 2 * kCount, 2),
                               make_op(XCOLL_BARRIER, nullptr, 0)};
       return submit_and_wait(attempt, ops, 4);
     }},
};

class MemoryTest : public ::testing::TestWithParam<Way> {};

TEST_P(MemoryTest, EveryFailedAllocationIsAnErrorOfTheCallAndNothingHangs) {
  const Way& way = GetParam();
  std::vector<float> data(3 * kCount);
  bool had_enough = false;
  for (int64_t allowed = 0; !had_enough; ++allowed) {
    ASSERT_LT(allowed, 200) << "no end of allocations";
    xcoll_unique_id id;
    ASSERT_XCOLL(XCOLL_OK, xcoll_unique_id_create(&id));
    const Comm comm(Rank{0, 1, id});
    allocations_left = allowed;
    const xcoll_status status = way.call({comm, data.data()});
    had_enough = allocations_left.exchange(-1) > 0;
    const xcoll_status next = xcoll_barrier(comm, nullptr);
    if (status == XCOLL_OK) continue;
    SCOPED_TRACE(allowed);
    if (status == XCOLL_ERR_OUT_OF_MEMORY) {  // refused: the communicator is as it was
      EXPECT_EQ(next, XCOLL_OK) << xcoll_last_error();
      continue;
    }
    EXPECT_EQ(xcoll_status_name(status), std::string("XCOLL_ERR_RANK_FAILED"));
    EXPECT_EQ(next, status);
    EXPECT_THAT(xcoll_last_error(), ::testing::HasSubstr("out of host memory"));
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, MemoryTest, ::testing::ValuesIn(kWays),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace xcoll::testing
