// SPDX-License-Identifier: Apache-2.0
// Structures of every size, with every kind of tail and chain, at the end of the readable memory:
// the two-number rule decides, nobody reads or writes past struct_size.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "../../../conformance/harness/guard_page.hpp"
#include "mutate.hpp"
#include "xhal/struct_check.hpp"
#include "xhal/xhal.hpp"

namespace xhal::fuzz {
namespace {

struct Structure {
  const char* name;
  uint32_t first, today;
  bool chained;
  std::function<xhal_status(void*)> call;
};

template <class T>
concept Chained = requires(T t) {
  t.next;
};

template <class T, class Call>
Structure structure(const char* name, Call call) {
  return {name, structs::kFirstSize<T>, sizeof(T), Chained<T>,
          [call](void* memory) { return call(static_cast<T*>(memory)); }};
}

// Mostly near the two numbers; sometimes what an uninitialised word may be.
uint32_t any_size(Random& random, const Structure& s) {
  if (random.one_in(4)) return static_cast<uint32_t>(random.edge(s.today));
  return static_cast<uint32_t>(random.below(s.today + 80));
}

constexpr uint8_t kUntouched = 0xA5;

// A structure of some size at the end of readable memory, filled with one byte.
struct Attempt {
  Attempt(Random& random, const Structure& s, uint8_t fill)
      : size(any_size(random, s)),
        sized(size >= s.first && size <= structs::kLargestSize),
        bytes(sized ? size : std::max<size_t>(4, std::min<size_t>(size, 64))),
        memory(page.end(bytes)) {
    std::memset(memory, fill, bytes);
    std::memcpy(memory, &size, sizeof size);
  }
  test::GuardPage page;
  const uint32_t size;
  const bool sized;
  const size_t bytes;
  unsigned char* const memory;
};

class StructureFuzz : public testing::Test {
 protected:
  StructureFuzz() : device_(0), stream_(device_.stream()), pool_(device_.pool()) {
    const uint32_t group = 1;
    xhal_tensor_desc operand{};
    operand.code = XHAL_CODE_FLOAT;
    operand.bits = 32;
    operand.lanes = 1;
    operand.ndim = 1;
    operand.sizes[0] = operand.strides[0] = 1;
    xhal_op_info info{};
    info.struct_size = sizeof info;
    info.id = XHAL_OP_fill;
    info.group_count = info.operand_count = 1;
    info.group_sizes = &group;
    info.operands = &operand;
    check(xhal_op_prepare(device_.context(), &info, &op_));
  }
  ~StructureFuzz() override { xhal_op_destroy(op_); }

  std::vector<Structure> inputs() {
    auto* context = device_.context();
    auto* device = device_.get();
    return {structure<xhal_init_info>("init",
                                      [](auto* info) {
                                        const auto s = xhal_init(info);
                                        if (s == XHAL_OK) check(xhal_shutdown());
                                        return s;
                                      }),
            structure<xhal_device_open_info>("device_open",
                                             [](auto* info) {
                                               xhal_device* d = nullptr;
                                               xhal_context* c = nullptr;
                                               const auto s = xhal_device_open(info, &d, &c);
                                               if (s == XHAL_OK) check(xhal_device_close(d));
                                               return s;
                                             }),
            structure<xhal_context_info>("context_create",
                                         [device](auto* info) {
                                           xhal_context* c = nullptr;
                                           const auto s = xhal_context_create(device, info, &c);
                                           if (s == XHAL_OK) check(xhal_context_destroy(c));
                                           return s;
                                         }),
            structure<xhal_memory_info>("memory_alloc",
                                        [context](auto* info) {
                                          uint64_t address = 0;
                                          return xhal_memory_alloc(context, info, &address);
                                        }),
            structure<xhal_stream_info>("stream_create",
                                        [context](auto* info) {
                                          xhal_stream* stream = nullptr;
                                          const auto s = xhal_stream_create(context, info, &stream);
                                          if (s == XHAL_OK) check(xhal_stream_destroy(stream));
                                          return s;
                                        }),
            structure<xhal_pool_info>("pool_create",
                                      [context](auto* info) {
                                        xhal_pool* pool = nullptr;
                                        const auto s = xhal_pool_create(context, info, &pool);
                                        if (s == XHAL_OK) check(xhal_pool_destroy(pool));
                                        return s;
                                      }),
            structure<xhal_op_info>("op_prepare",
                                    [context](auto* info) {
                                      xhal_op* op = nullptr;
                                      return xhal_op_prepare(context, info, &op);
                                    }),
            structure<xhal_module_info>("module_load", [context](auto* info) {
              xhal_module* module = nullptr;
              return xhal_module_load(context, info, &module);
            })};
  }
  std::vector<Structure> outputs() {
    return {structure<xhal_pool_stats>(
                "pool_query", [this](auto* stats) { return xhal_pool_query(pool_.get(), stats); }),
            structure<xhal_op_properties>(
                "op_query", [this](auto* out) { return xhal_op_query(op_, out, nullptr, 0); }),
            structure<xhal_error>("last_error", [this](auto* error) {
              (void)xhal_stream_fill(stream_.get(), 0, 1, 0, 3);  // something to tell
              return xhal_last_error(error);
            })};
  }

  Session session_;
  Device device_;
  Stream stream_;
  Pool pool_;
  xhal_op* op_ = nullptr;
};

TEST_F(StructureFuzz, InputsAreJudgedByTheirSizeTailAndChain) {
  for (const auto& s : inputs()) {
    for (uint64_t seed = 0; seed < 1'000 && !HasFailure(); ++seed) {
      SCOPED_TRACE(std::string(s.name) + " seed " + std::to_string(seed));
      Random random(seed);
      const Attempt attempt(random, s, 0);
      const auto& [page, size, sized, bytes, memory] = attempt;
      bool tail = false, chain = false, broken = false, broken_later = false;
      xhal_chain links[3] = {};
      if (sized && size > s.today && random.one_in(2)) {
        memory[s.today + random.below(size - s.today)] =
            static_cast<uint8_t>(1 + random.below(255));
        tail = true;
      }
      if (sized && s.chained && random.one_in(2)) {
        const uint64_t count = 1 + random.below(3);
        for (uint64_t i = 0; i < count; ++i) {
          const bool known = random.one_in(3), small = random.one_in(6);
          links[i].struct_size = small ? static_cast<uint32_t>(random.below(16)) : sizeof links[i];
          links[i].type = static_cast<uint32_t>(random.next() | XHAL_STRUCT_IGNORABLE);
          if (known) links[i].type &= ~XHAL_STRUCT_IGNORABLE;
          broken_later |= chain && small;
          if (!chain && !broken) {
            broken = small;
            chain = known && !small;
          }
          if (i + 1 < count) links[i].next = &links[i + 1];
        }
        if (!chain && !broken && random.one_in(4)) {
          links[count - 1].next = &links[0];
          chain = true;
        }
        const xhal_chain* first = links;
        std::memcpy(memory + 8, &first, sizeof first);
      }
      const auto status = s.call(memory);
      if (!sized || (broken && !tail)) {
        EXPECT_EQ(status, XHAL_ERR_STRUCT_SIZE) << size;
      } else if (tail) {
        EXPECT_EQ(status, XHAL_ERR_UNKNOWN_FIELD) << size;
      } else if (chain && broken_later && status == XHAL_ERR_STRUCT_SIZE) {
        // Who hands the chain on looks only at its links, all of them, before the last reader does.
      } else if (chain && status == XHAL_ERR_INVALID_ARGUMENT) {
        // The rest of it was wrong as well, and was looked at first.
      } else if (chain) {
        EXPECT_EQ(status, XHAL_ERR_UNKNOWN_STRUCT) << size;
      } else {
        for (const auto other :
             {XHAL_ERR_STRUCT_SIZE, XHAL_ERR_UNKNOWN_FIELD, XHAL_ERR_UNKNOWN_STRUCT})
          EXPECT_NE(status, other) << size;
      }
    }
  }
}

TEST_F(StructureFuzz, OutputsAreWrittenAsFarAsTheyReachAndZeroedBeyond) {
  for (const auto& s : outputs()) {
    for (uint64_t seed = 0; seed < 1'000 && !HasFailure(); ++seed) {
      SCOPED_TRACE(std::string(s.name) + " seed " + std::to_string(seed));
      Random random(seed);
      const Attempt attempt(random, s, kUntouched);
      const auto& [page, size, sized, bytes, memory] = attempt;
      const auto status = s.call(memory);
      EXPECT_EQ(status, sized ? XHAL_OK : XHAL_ERR_STRUCT_SIZE) << size;
      uint32_t kept = 0;
      std::memcpy(&kept, memory, sizeof kept);
      EXPECT_EQ(kept, size);
      for (size_t i = s.today; sized && i < size; ++i) EXPECT_EQ(memory[i], 0) << i;
      for (size_t i = 4; !sized && i < bytes; ++i) EXPECT_EQ(memory[i], kUntouched) << i;
    }
  }
}

}  // namespace
}  // namespace xhal::fuzz
