// SPDX-License-Identifier: Apache-2.0
// A process without memory: every allocation of a call fails in turn. The call says OUT_OF_MEMORY,
// nothing has changed, and the same call then does what it would have done.
#include <cstdlib>
#include <new>

#include "faulty/faulty_test.hpp"

namespace {

// How many allocations of this thread still succeed; below zero: all.
thread_local int allocations_left = -1;

void* allocate(size_t size, size_t alignment) noexcept {
  if (allocations_left == 0) return nullptr;
  if (allocations_left > 0) --allocations_left;
  size = (size + alignment - 1) / alignment * alignment;
  return std::aligned_alloc(alignment, size == 0 ? alignment : size);
}
void* allocate_or_throw(size_t size, size_t alignment) {
  if (void* const memory = allocate(size, alignment); memory != nullptr) return memory;
  throw std::bad_alloc();
}

}  // namespace

// Of the whole process, libxhal and its plugins with it. Not inline: GCC would compare
// malloc with delete.
void* operator new(size_t size) { return allocate_or_throw(size, alignof(std::max_align_t)); }
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  return allocate(size, alignof(std::max_align_t));
}
void* operator new(size_t size, std::align_val_t alignment) {
  return allocate_or_throw(size, static_cast<size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace xhal::test {
namespace {

constexpr int kMost = 200;  // no call makes so many

class NoMemoryTest : public FaultyDeviceTest {
 protected:
  // Calls with the first, the second, ... allocation failing until one succeeds. `undone` looks
  // after each failure whether nothing has changed.
  template <class Make>
  void until_it_succeeds(const char* what, Make&& make, std::function<void()> undone = {}) {
    for (int succeeding = 0; succeeding < kMost; ++succeeding) {
      SCOPED_TRACE(testing::Message() << what << ", allocation " << succeeding << " fails");
      allocations_left = succeeding;
      const xhal_status status = make();
      const bool all_succeeded = allocations_left != 0;
      allocations_left = -1;
      if (status == XHAL_OK) {
        // Without one it may do, if what it is for is not needed.
        if (all_succeeded) failures_ += succeeding;
        return;
      }
      ASSERT_EQ(status, XHAL_ERR_OUT_OF_MEMORY) << error_text();
      xhal_error error{};
      error.struct_size = sizeof error;
      ASSERT_EQ(xhal_last_error(&error), XHAL_OK) << "the status arrives in any case";
      EXPECT_EQ(error.status, XHAL_ERR_OUT_OF_MEMORY);
      if (undone) undone();
    }
    FAIL() << what << " never succeeds";
  }

  int failures_ = 0;
};

TEST_F(NoMemoryTest, TimelinesAreMadeAwaitedAndDestroyed) {
  xhal_timeline* t = nullptr;
  until_it_succeeds("create", [&] { return xhal_timeline_create(3, &t); });
  int called = 0;
  until_it_succeeds("notify", [&] {
    return xhal_timeline_notify(
        t, 4, [](void* user, xhal_status) { ++*static_cast<int*>(user); }, &called);
  });
  int32_t fd = -1;
  until_it_succeeds("eventfd", [&] { return xhal_timeline_eventfd(t, 4, &fd); });
  int32_t exported = -1;
  uint64_t offset = 0;
  until_it_succeeds("export", [&] { return xhal_timeline_export(t, &exported, &offset); });
  xhal_timeline* imported = nullptr;
  until_it_succeeds("import", [&] { return xhal_timeline_import(exported, offset, &imported); });
  until_it_succeeds("signal", [&] { return xhal_timeline_signal(t, 4); });
  EXPECT_EQ(called, 1) << "a refused notify is not called, an accepted one once";
  xhal_timeline* both[] = {t, imported};
  const uint64_t values[] = {4, 4};
  until_it_succeeds("wait_many",
                    [&] { return xhal_timeline_wait_many(both, values, 2, 0, kSoon, nullptr); });
  EXPECT_OK(xhal_timeline_destroy(imported));
  EXPECT_OK(xhal_timeline_destroy(t));
  ::close(fd);
  ::close(exported);
}

TEST_F(NoMemoryTest, AFailedTimelineTellsItsStatus) {
  const auto t = timeline();
  xhal_error error{};
  error.struct_size = sizeof error;
  error.status = XHAL_ERR_DEVICE;
  error.text = str("a text that is longer than what a string holds without an allocation");
  ASSERT_OK(xhal_timeline_fail(t.get(), &error));
  for (int succeeding = 0; succeeding < 4; ++succeeding) {
    allocations_left = succeeding;
    const auto queried = xhal_timeline_query(t.get(), 1, nullptr);
    allocations_left = succeeding;
    const auto waited = xhal_timeline_wait(t.get(), 1, 0);
    allocations_left = -1;
    EXPECT_EQ(queried, XHAL_ERR_DEVICE);
    EXPECT_EQ(waited, XHAL_ERR_DEVICE);
  }
}

TEST_F(NoMemoryTest, WhatIsDestroyedOrFailsNeedsNone) {
  for (int succeeding = 0; succeeding < 8; ++succeeding) {
    SCOPED_TRACE(succeeding);
    auto stream = device_->stream();
    auto t = timeline();
    ASSERT_OK(xhal_stream_wait(stream.get(), t.get(), 1));
    ASSERT_OK(xhal_stream_host_call(
        stream.get(), [](void*, xhal_status) {}, nullptr, 0));
    xhal_event event{};
    ASSERT_OK(xhal_event_record(stream.get(), 0, &event));
    allocations_left = succeeding;
    const auto destroyed = xhal_timeline_destroy(t.release());  // fails what waits for it
    const auto queried = xhal_event_query(&event);
    allocations_left = -1;
    EXPECT_OK(destroyed);
    EXPECT_LT(queried, 0);
    allocations_left = succeeding;
    const auto ended = xhal_stream_destroy(stream.release());
    allocations_left = -1;
    EXPECT_OK(ended);
  }
}

TEST_F(NoMemoryTest, AWaitThatWasRefusedKeepsNothingBack) {
  const auto t = timeline();
  until_it_succeeds(
      "stream_wait", [&] { return xhal_stream_wait(stream_.get(), t.get(), 1); },
      [&] { EXPECT_OK(xhal_stream_synchronize(stream_.get(), kSoon)); });
  const auto memory = alloc(*device_, 64);
  until_it_succeeds("fill", [&] { return xhal_stream_fill(stream_.get(), memory, 64, 0x22, 1); });
  xhal_event event{};
  until_it_succeeds("record", [&] { return xhal_event_record(stream_.get(), 0, &event); });
  ASSERT_OK(xhal_timeline_signal(t.get(), 1));
  ASSERT_OK(xhal_event_wait(&event, kSoon));
  EXPECT_EQ(read(stream_.get(), memory, 64), std::vector<uint8_t>(64, 0x22));
}

TEST_F(NoMemoryTest, PinnedMemoryIsNotLost) {
  // Of each kind of slab: small blocks, pages, a slab of its own.
  for (const uint64_t size : {uint64_t{64}, uint64_t{8192}, uint64_t{1} << 20}) {
    SCOPED_TRACE(size);
    void* memory = nullptr;
    until_it_succeeds("host_alloc", [&] { return xhal_host_alloc(size, &memory); });
    const auto device_memory = alloc(*device_, 64);
    until_it_succeeds("copy", [&] {
      return xhal_stream_copy(stream_.get(), device_memory, address_of(memory), 64);
    });
    ASSERT_OK(xhal_stream_synchronize(stream_.get(), kSoon));
    until_it_succeeds("host_free", [&] { return xhal_host_free(memory); });
    EXPECT_EQ(xhal_host_free(memory), XHAL_ERR_INVALID_ARGUMENT) << "it is free now";
  }
}

TEST_F(NoMemoryTest, ACaptureThatWasRefusedHasNotBegun) {
  const auto pool = device_->pool();
  const auto memory = alloc(*device_, 64);
  until_it_succeeds(
      "begin_capture", [&] { return xhal_stream_begin_capture(stream_.get(), pool.get()); },
      [&] {
        uint32_t capturing = 1;
        ASSERT_OK(xhal_stream_capturing(stream_.get(), &capturing));
        EXPECT_EQ(capturing, 0u);
        EXPECT_OK(xhal_stream_synchronize(stream_.get(), kSoon));
      });
  ASSERT_OK(xhal_stream_fill(stream_.get(), memory, 64, 0x31, 1));
  xhal_graph* graph = nullptr;
  ASSERT_OK(xhal_stream_end_capture(stream_.get(), &graph));
  until_it_succeeds("graph_launch", [&] { return xhal_graph_launch(stream_.get(), graph); });
  EXPECT_EQ(read(stream_.get(), memory, 64), std::vector<uint8_t>(64, 0x31));
  until_it_succeeds("graph_destroy", [&] { return xhal_graph_destroy(graph); });
}

TEST_F(NoMemoryTest, PoolsGiveAndTakeBack) {
  xhal_pool* made = nullptr;
  until_it_succeeds("pool_create",
                    [&] { return xhal_pool_create(device_->context(), nullptr, &made); });
  const Pool pool(made);
  for (const uint64_t size : {uint64_t{512}, uint64_t{3} << 20}) {
    SCOPED_TRACE(size);
    uint64_t block = 0;
    until_it_succeeds("pool_alloc", [&] {
      return xhal_pool_alloc(made, stream_.get(), size, str("a tag that needs memory itself"),
                             &block);
    });
    xhal_event event{};
    ASSERT_OK(xhal_event_record(stream_.get(), 0, &event));
    until_it_succeeds("pool_free", [&] { return xhal_pool_free(made, block, &event, 1); });
    EXPECT_EQ(xhal_pool_free(made, block, nullptr, 0), XHAL_ERR_INVALID_ARGUMENT);
  }
  until_it_succeeds("pool_trim", [&] { return xhal_pool_trim(made, 0); });
  xhal_pool_stats stats{};
  stats.struct_size = sizeof stats;
  ASSERT_OK(xhal_pool_query(made, &stats));
  EXPECT_EQ(stats.used_bytes, 0u);
}

TEST_F(NoMemoryTest, DevicesAreOpenedAndClosed) {
  stream_.reset();
  device_.reset();
  xhal_device_open_info info{};
  info.struct_size = sizeof info;
  for (const auto& d : devices()) {
    if (d.id == std::string_view("faulty:0")) info.index = d.index;
  }
  for (int round = 0; round < 2; ++round) {  // of the second everything but the device is there
    xhal_device* opened = nullptr;
    xhal_context* context = nullptr;
    until_it_succeeds("device_open", [&] { return xhal_device_open(&info, &opened, &context); });
    int32_t fd = -1;
    until_it_succeeds("device_events_fd", [&] { return xhal_device_events_fd(opened, &fd); });
    ::close(fd);
    alloc_in(context, 4096);  // what the close gives back
    until_it_succeeds("device_close", [&] { return xhal_device_close(opened); });
  }
}

TEST_F(NoMemoryTest, HostMemoryIsRegisteredOnceOrNotAtAll) {
  std::vector<char> memory(8192);
  uint64_t seen = 0;
  auto* const context = device_->context();
  until_it_succeeds("host_register", [&] {
    return xhal_host_register(context, memory.data(), memory.size(), &seen);
  });
  until_it_succeeds("host_unregister",
                    [&] { return xhal_host_unregister(context, memory.data()); });
  EXPECT_EQ(xhal_host_unregister(context, memory.data()), XHAL_ERR_INVALID_ARGUMENT);
}

TEST_F(NoMemoryTest, CopiesThroughABounceBufferArriveOrAreRefused) {
  const auto memory = alloc(*device_, 1 << 20);
  std::vector<uint8_t> host(1 << 20, 0x5c);
  until_it_succeeds("copy to the device", [&] {
    return xhal_stream_copy(stream_.get(), memory, address_of(host.data()), host.size());
  });
  ASSERT_OK(xhal_stream_synchronize(stream_.get(), kSoon));
  std::vector<uint8_t> back(host.size());
  until_it_succeeds("copy from the device", [&] {
    return xhal_stream_copy(stream_.get(), address_of(back.data()), memory, back.size());
  });
  ASSERT_OK(xhal_stream_synchronize(stream_.get(), kSoon));
  EXPECT_EQ(back, host);
}

TEST_F(NoMemoryTest, ContextsAndStreamsAreMadeWholeOrNotAtAll) {
  xhal_context* context = nullptr;
  until_it_succeeds("context_create",
                    [&] { return xhal_context_create(device_->get(), nullptr, &context); });
  xhal_stream* stream = nullptr;
  until_it_succeeds("stream_create", [&] { return xhal_stream_create(context, nullptr, &stream); });
  uint64_t memory = 0;
  until_it_succeeds("memory_alloc", [&] { return try_alloc(context, 4096, &memory); });
  until_it_succeeds("memory_free", [&] { return xhal_memory_free(context, memory); });
  until_it_succeeds("stream_destroy", [&] { return xhal_stream_destroy(stream); });
  until_it_succeeds("context_destroy", [&] { return xhal_context_destroy(context); });
}

}  // namespace
}  // namespace xhal::test
