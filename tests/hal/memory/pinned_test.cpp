// SPDX-License-Identifier: Apache-2.0
// Pinned and registered host memory: registered with the context that uses it, within its bounds,
// and with no lock held while the plugin registers it. The plugin "faulty" refuses every host
// address that was not registered with the stream's own context.
#include <sys/wait.h>
#include <unistd.h>

#include "../faulty/faulty_test.hpp"

namespace xhal::test {
namespace {

struct Pinned {
  explicit Pinned(uint64_t size) { check(xhal_host_alloc(size, &memory)); }
  ~Pinned() { (void)xhal_host_free(memory); }
  uint64_t address() const { return address_of(memory); }
  uint8_t* bytes() const { return static_cast<uint8_t*>(memory); }
  void* memory = nullptr;
};

class PinnedTest : public FaultyTest {
 protected:
  static std::vector<uint8_t> pattern(size_t size) {
    std::vector<uint8_t> bytes(size);
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i * 7 + 1);
    return bytes;
  }
};

TEST_F(PinnedTest, HostRegisterMayAskForSharedMemory) {
  std::atomic<xhal_status> answered{XHAL_NOT_READY};
  board().before("host_register", [&](const Call& call) {
    int32_t fd = -1;
    uint64_t offset = 0, size = 0;
    answered = call.host->shared_memory(reinterpret_cast<void*>(call.src), &fd, &offset, &size);
    return XHAL_OK;
  });
  const auto d = open_device("faulty:0");
  const auto stream = d.stream();
  const auto memory = alloc(d, 4096);
  const Pinned pinned(4096);
  within_deadline("xhal_stream_copy while host_register asks for shared memory", [&] {
    EXPECT_OK(xhal_stream_copy(stream.get(), memory, pinned.address(), 4096));
  });
  EXPECT_EQ(answered, XHAL_OK) << "the memory of xhal_host_alloc is shared memory";
}

// A plugin's driver may take its time, or call back: others go on with pinned memory meanwhile.
TEST_F(PinnedTest, HostRegisterMayUsePinnedMemoryItself) {
  board().before("host_register", [&](const Call& call) {
    xhal_pointer_info info{};
    EXPECT_EQ(call.host->pointer_query(call.src, &info), XHAL_OK);
    std::async(std::launch::async, [] {
      const Pinned another(4096);
      xhal_pointer_info found{};
      EXPECT_OK(xhal_pointer_query(another.address(), &found));
      EXPECT_EQ(found.kind, static_cast<uint32_t>(XHAL_MEMORY_HOST));
    }).get();
    return XHAL_OK;
  });
  const auto d = open_device("faulty:0");
  const auto stream = d.stream();
  const auto memory = alloc(d, 4096);
  const Pinned pinned(4096);
  within_deadline("pinned memory of another thread while a plugin registers some", [&] {
    EXPECT_OK(xhal_stream_copy(stream.get(), memory, pinned.address(), 4096));
  });
}

TEST_F(PinnedTest, PinnedMemoryIsRegisteredWithTheContextThatUsesIt) {
  const auto d = open_device("faulty:0");
  auto* const context = context_in(d);
  const auto stream = stream_in(context);
  const auto memory = alloc_in(context, 4096);
  const Pinned to(4096), from(4096);
  const auto data = pattern(4096);
  std::copy(data.begin(), data.end(), from.bytes());
  board().record();
  ASSERT_OK(xhal_stream_copy(stream.get(), memory, from.address(), 4096));
  ASSERT_OK(xhal_stream_copy(stream.get(), to.address(), memory, 4096));
  ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  EXPECT_EQ(std::memcmp(to.bytes(), data.data(), data.size()), 0);
  for (const auto& call : board().calls("host_register")) EXPECT_EQ(call.context, context);
  EXPECT_FALSE(board().calls("host_register").empty());
}

TEST_F(PinnedTest, OnePinnedBlockServesTwoContextsAndTwoDevices) {
  const auto first = open_device("faulty:0"), second = open_device("faulty:1");
  auto* const further = context_in(first);
  const Pinned pinned(4096);
  const auto data = pattern(4096);
  std::copy(data.begin(), data.end(), pinned.bytes());
  for (auto* context : {first.context(), further, second.context()}) {
    const auto stream = stream_in(context);
    const auto memory = alloc_in(context, 4096);
    ASSERT_OK(xhal_stream_copy(stream.get(), memory, pinned.address(), 4096));
    EXPECT_EQ(read(stream.get(), memory, 4096), data);
  }
}

TEST_F(PinnedTest, ACopyMayNotLeaveItsPinnedBlock) {
  const auto d = open_device("faulty:0");
  const auto stream = d.stream();
  const auto memory = alloc(d, 64 << 20);
  const Pinned pinned(4096);
  board().record();
  EXPECT_EQ(xhal_stream_copy(stream.get(), memory, pinned.address(), 32 << 20),
            XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_THAT(error_text(), HasSubstr("leaves its allocation"));
  EXPECT_EQ(xhal_stream_copy(stream.get(), pinned.address(), memory, 32 << 20),
            XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(xhal_stream_copy(stream.get(), memory, pinned.address() + 4000, 4096),
            XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_TRUE(board().calls("stream_copy").empty());
  EXPECT_OK(xhal_stream_copy(stream.get(), memory, pinned.address() + 4000, 96));
}

TEST_F(PinnedTest, RegisteredHostMemoryIsNotBounced) {
  const auto d = open_device("faulty:0");
  const auto stream = d.stream();
  const auto memory = alloc(d, 8192);
  auto data = pattern(8192);
  uint64_t seen_at = 0;
  ASSERT_OK(xhal_host_register(d.context(), data.data(), data.size(), &seen_at));
  board().record();
  ASSERT_OK(xhal_stream_copy(stream.get(), memory, address_of(data.data()), 8192));
  ASSERT_OK(xhal_stream_copy(stream.get(), memory, address_of(data.data()) + 4096, 64));
  auto copies = board().calls("stream_copy");
  ASSERT_EQ(copies.size(), 2u);
  EXPECT_EQ(copies[0].src, seen_at);
  EXPECT_EQ(copies[1].src, seen_at + 4096) << "an address inside the range";
  EXPECT_TRUE(board().calls("host_register").empty()) << "it is registered already";
  EXPECT_EQ(xhal_stream_copy(stream.get(), memory, address_of(data.data()) + 4096, 8192),
            XHAL_ERR_INVALID_ARGUMENT)
      << "it leaves the registered range";

  ASSERT_OK(xhal_host_unregister(d.context(), data.data()));
  board().record();
  ASSERT_OK(xhal_stream_copy(stream.get(), memory, address_of(data.data()), 8192));
  copies = board().calls("stream_copy");
  ASSERT_FALSE(copies.empty());
  EXPECT_NE(copies[0].src, seen_at) << "the device does not know it any more";
  EXPECT_EQ(read(stream.get(), memory, 8192), data);
}

TEST_F(PinnedTest, ARangeIsRegisteredOnceAndUnregisteredByItsStart) {
  const auto d = open_device("faulty:0");
  std::vector<uint8_t> data(8192);
  uint64_t seen_at = 0;
  ASSERT_OK(xhal_host_register(d.context(), data.data(), data.size(), &seen_at));
  EXPECT_EQ(xhal_host_register(d.context(), data.data(), data.size(), &seen_at),
            XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_EQ(xhal_host_unregister(d.context(), data.data() + 4096), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_OK(xhal_host_unregister(d.context(), data.data()));
  EXPECT_EQ(xhal_host_unregister(d.context(), data.data()), XHAL_ERR_INVALID_ARGUMENT);
}

TEST_F(PinnedTest, AFailedOpenOfAnotherDeviceLeavesPinnedMemoryAlone) {
  board().before("device_open", [](const Call& call) {
    return call.ordinal == 1 ? XHAL_ERR_UNSUPPORTED : XHAL_OK;
  });
  const auto d = open_device("faulty:0");
  const auto stream = d.stream();
  const auto memory = alloc(d, 4096);
  const Pinned pinned(4096);
  EXPECT_THROW(open_device("faulty:1"), Error);
  xhal_pointer_info info{};
  ASSERT_OK(xhal_pointer_query(pinned.address(), &info));
  EXPECT_EQ(info.kind, static_cast<uint32_t>(XHAL_MEMORY_HOST));
  board().record();
  ASSERT_OK(xhal_stream_copy(stream.get(), memory, pinned.address(), 4096));
  const auto registered = board().calls("host_register");
  ASSERT_EQ(registered.size(), 1u);
  EXPECT_LE(registered[0].src, pinned.address());
  EXPECT_GT(registered[0].src + registered[0].size, pinned.address())
      << "the block itself, not a buffer in its place";
}

// ---- captures: what a graph copies must stay the graph's -------------------------------------

TEST_F(PinnedTest, ACapturedCopyThatWouldNeedABounceBufferIsRefusedAndSaysToPin) {
  const auto d = open_device("faulty:0");
  const auto stream = d.stream();
  const auto memory = alloc(d, 4096);
  std::vector<uint8_t> host(4096);
  ASSERT_OK(xhal_stream_begin_capture(stream.get(), nullptr));
  EXPECT_EQ(xhal_stream_copy(stream.get(), memory, address_of(host.data()), 4096),
            XHAL_ERR_CAPTURE);
  EXPECT_THAT(error_text(), HasSubstr("pin"));
  xhal_graph* graph = nullptr;
  EXPECT_EQ(xhal_stream_end_capture(stream.get(), &graph), XHAL_ERR_CAPTURE);
  EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon)) << "the stream is usable";
}

// A program that copies into its stack, waits, is refused and goes on must not get a graph that
// writes there at every launch.
TEST_F(PinnedTest, WaitingInACaptureSpoilsIt) {
  const auto d = open_device("faulty:0");
  const auto stream = d.stream();
  const auto memory = alloc(d, 64);
  const Pinned pinned(64);
  ASSERT_OK(xhal_stream_begin_capture(stream.get(), nullptr));
  ASSERT_OK(xhal_stream_copy(stream.get(), pinned.address(), memory, 64));
  EXPECT_EQ(xhal_stream_synchronize(stream.get(), kSoon), XHAL_ERR_CAPTURE);
  EXPECT_EQ(last_error_info().device, "faulty:0");
  EXPECT_EQ(last_error_info().operation, "xhal_stream_synchronize");
  xhal_graph* graph = nullptr;
  EXPECT_EQ(xhal_stream_end_capture(stream.get(), &graph), XHAL_ERR_CAPTURE);
  EXPECT_THAT(error_text(), HasSubstr("xhal_stream_synchronize"));
  EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon)) << "the stream is usable";
}

TEST_F(PinnedTest, ACapturedCopyOfPinnedMemoryMayBeReplayedForEver) {
  const auto d = open_device("faulty:0");
  const auto stream = d.stream();
  const auto memory = alloc(d, 4096);
  const Pinned pinned(4096);
  ASSERT_OK(xhal_stream_begin_capture(stream.get(), nullptr));
  ASSERT_OK(xhal_stream_copy(stream.get(), memory, pinned.address(), 4096));
  xhal_graph* graph = nullptr;
  ASSERT_OK(xhal_stream_end_capture(stream.get(), &graph));
  for (uint8_t round = 1; round < 5; ++round) {
    std::memset(pinned.bytes(), round, 4096);
    ASSERT_OK(xhal_graph_launch(stream.get(), graph));
    EXPECT_EQ(read(stream.get(), memory, 4096), std::vector<uint8_t>(4096, round));
  }
  EXPECT_OK(xhal_graph_destroy(graph));
}

TEST_F(PinnedTest, AChildOfAForkWritesToItsOwnMemory) {
  const Pinned before(64), after(4032);
  std::memset(before.bytes(), 0x11, 64);
  std::memset(after.bytes(), 0x22, 4032);
  const pid_t child = fork();
  if (child == 0) {
    const bool sees = before.bytes()[63] == 0x11 && after.bytes()[4031] == 0x22;
    std::memset(before.bytes(), 0xcc, 64);
    void* own = nullptr;
    const bool took = xhal_host_alloc(4032, &own) == XHAL_OK;
    if (took) std::memset(own, 0xcc, 4032);
    const bool gave = xhal_host_free(before.memory) == XHAL_OK && xhal_host_free(own) == XHAL_OK;
    _exit(sees && took && gave && own != after.memory ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(std::vector<uint8_t>(before.bytes(), before.bytes() + 64),
            std::vector<uint8_t>(64, 0x11));
  EXPECT_EQ(after.bytes()[0], 0x22);
}

}  // namespace
}  // namespace xhal::test
