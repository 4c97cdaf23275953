// SPDX-License-Identifier: Apache-2.0
// Use before init, after shutdown and after fork; structures of other sizes; handles that are
// wrong. Each is its own typed error with a text, and nothing hangs or crashes.
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "../../conformance/harness/guard_page.hpp"
#include "hal_test.hpp"

namespace xhal::test {
namespace {

// Runs `body` in a forked child, which exits with its result.
template <class Body>
int in_child(Body&& body) {
  const pid_t pid = fork();
  if (pid == 0) {
    try {
      _exit(body());
    } catch (const std::exception& e) {
      fprintf(stderr, "child: %s\n", e.what());
      _exit(99);
    }
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

TEST(StateTest, UseBeforeInitIsNotInitialized) {
  EXPECT_EQ(in_child([] {
              uint32_t count = 0;
              xhal_timeline* t = nullptr;
              return xhal_enumerate(0, nullptr, 0, &count) == XHAL_ERR_NOT_INITIALIZED &&
                             xhal_timeline_create(0, &t) == XHAL_ERR_NOT_INITIALIZED &&
                             error_text().find("xhal_init") != std::string::npos
                         ? 0
                         : 1;
            }),
            0);
}

TEST(StateTest, AProgramOfAnotherMajorIsRefused) {
  xhal_init_info info{};
  info.struct_size = sizeof info;
  info.version_major = 99;
  EXPECT_EQ(xhal_init(&info), XHAL_ERR_VERSION);
  EXPECT_THAT(error_text(), HasSubstr("99"));
}

class StatesTest : public HalTest, public testing::WithParamInterface<const char*> {};

TEST_P(StatesTest, AfterShutdownHandlesAnswerShutdown) {
  auto& d = device(GetParam());
  auto stream = d.stream();
  auto pool = d.pool();
  const auto address = alloc(d, 64);
  auto* s = stream.get();
  auto* p = pool.get();
  auto* context = d.context();
  auto* handle = d.get();
  check(xhal_shutdown());
  uint64_t value = 0;
  xhal_event event{};
  uint64_t block = 0;
  EXPECT_EQ(xhal_device_limit(handle, XHAL_LIMIT_MEMORY_TOTAL_BYTES, &value), XHAL_ERR_SHUTDOWN);
  EXPECT_EQ(xhal_pool_alloc(p, s, 64, str(""), &block), XHAL_ERR_SHUTDOWN);
  xhal_timeline* t = nullptr;
  EXPECT_EQ(xhal_timeline_create(0, &t), XHAL_ERR_SHUTDOWN);
  // The stream ended with its device: either answer is typed, none touches the plugin.
  const auto recorded = xhal_event_record(s, 0, &event);
  EXPECT_TRUE(recorded == XHAL_ERR_SHUTDOWN || recorded == XHAL_ERR_INVALID_HANDLE);
  EXPECT_TRUE(xhal_memory_free(context, address) == XHAL_OK || last_error_info().status < 0);
  check(xhal_init(nullptr));  // a later init starts afresh
  auto again = reopen(GetParam());
  auto fresh = again.stream();
  EXPECT_OK(xhal_stream_synchronize(fresh.get(), kSoon));
  stream.release();
  pool.release();
  open_.clear();
}

TEST_P(StatesTest, AForkedChildOfAProcessWithOpenDevicesGetsForked) {
  auto& d = device(GetParam());
  auto stream = d.stream();
  const auto address = alloc(d, 4096);
  EXPECT_EQ(
      in_child([&] {
        if (xhal_stream_fill(stream.get(), address, 64, 1, 1) != XHAL_ERR_FORKED) return 1;
        if (error_text().find("fork") == std::string::npos) return 2;
        uint64_t value = 0;
        if (xhal_device_limit(d.get(), XHAL_LIMIT_MEMORY_TOTAL_BYTES, &value) != XHAL_ERR_FORKED)
          return 3;
        xhal_timeline* t = nullptr;
        if (xhal_timeline_create(0, &t) != XHAL_ERR_FORKED) return 4;
        if (xhal_stream_destroy(stream.get()) != XHAL_OK) return 5;
        if (xhal_init(nullptr) != XHAL_ERR_FORKED) return 6;
        return xhal_shutdown() == XHAL_OK ? 0 : 7;
      }),
      0);
  EXPECT_OK(xhal_stream_fill(stream.get(), address, 64, 1, 1)) << "the parent goes on";
  EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon));
}

TEST_P(StatesTest, AChildForkedBeforeAnyOpenMayUseDevices) {
  const std::string plugin = GetParam();
  EXPECT_GE(devices().size(), 1u);
  EXPECT_EQ(in_child([&] {
              auto d = reopen(plugin);
              auto stream = d.stream();
              return xhal_stream_synchronize(stream.get(), kSoon) == XHAL_OK ? 0 : 1;
            }),
            0);
}

TEST_P(StatesTest, AnObserverSeesWithoutCreatingAnything) {
  uint32_t index = 0;
  for (const auto& d : devices()) {
    if (std::string(d.plugin) == GetParam()) index = d.index;
  }
  xhal_device_open_info info{};
  info.struct_size = sizeof info;
  info.index = index;
  info.flags = XHAL_OPEN_OBSERVE;
  xhal_device* observer = nullptr;
  ASSERT_OK(xhal_device_open(&info, &observer, nullptr));
  xhal_sample sample{XHAL_TELEMETRY_MEMORY_TOTAL_BYTES, 0, 0, 0, 0};
  EXPECT_OK(xhal_device_telemetry(observer, &sample, 1));
  xhal_device_info record{};
  EXPECT_OK(xhal_device_query(observer, &record));
  EXPECT_STREQ(record.plugin, GetParam());
  const xhal_control_table* table = nullptr;
  EXPECT_EQ(xhal_device_control_table(observer, &table), XHAL_ERR_PERMISSION);
  EXPECT_OK(xhal_device_close(observer));
}

TEST_P(StatesTest, WrongHandlesAreToldApart) {
  auto& d = device(GetParam());
  auto stream = d.stream();
  xhal_event event{};
  EXPECT_EQ(xhal_event_record(nullptr, 0, &event), XHAL_ERR_INVALID_HANDLE);
  EXPECT_THAT(error_text(), HasSubstr("NULL"));
  EXPECT_EQ(xhal_event_record(reinterpret_cast<xhal_stream*>(d.context()), 0, &event),
            XHAL_ERR_INVALID_HANDLE);
  EXPECT_THAT(error_text(), HasSubstr("expected a stream, got context"));
  auto* dead = stream.release();
  ASSERT_OK(xhal_stream_destroy(dead));
  EXPECT_EQ(xhal_event_record(dead, 0, &event), XHAL_ERR_INVALID_HANDLE);
  EXPECT_THAT(error_text(), HasSubstr("has been destroyed"));
}

TEST_P(StatesTest, UnderValidateEveryStaleHandleIsFound) {
  session_.reset();
  setenv("XHAL_LAYERS", "validate", 1);
  session_ = std::make_unique<Session>();
  auto& d = device(GetParam());
  std::vector<xhal_stream*> dead;
  for (int i = 0; i < 50; ++i) {
    auto stream = d.stream();
    dead.push_back(stream.get());
  }
  std::vector<Stream> live;
  for (int i = 0; i < 50; ++i) live.push_back(d.stream());
  xhal_event event{};
  for (auto* s : dead) EXPECT_EQ(xhal_event_record(s, 0, &event), XHAL_ERR_INVALID_HANDLE);
  live.clear();
  unsetenv("XHAL_LAYERS");
}

// At the end of readable memory: nobody may read past struct_size.
TEST_P(StatesTest, StructuresOfEverySizeAreJudgedByTheTwoNumberRule) {
  auto& d = device(GetParam());
  GuardPage page;
  xhal_stream* stream = nullptr;
  const auto create = [&](uint32_t size, uint8_t tail) {
    auto* info = page.end(size);
    std::memset(info, 0, size);
    std::memcpy(info, &size, sizeof size);
    if (size > sizeof(xhal_stream_info)) info[size - 1] = tail;
    return xhal_stream_create(d.context(), reinterpret_cast<xhal_stream_info*>(info), &stream);
  };
  EXPECT_EQ(create(8, 0), XHAL_ERR_STRUCT_SIZE);
  constexpr uint32_t kFirstReleased = offsetof(xhal_stream_info, name);
  EXPECT_EQ(create(kFirstReleased - 8, 0), XHAL_ERR_STRUCT_SIZE);
  ASSERT_OK(create(kFirstReleased, 0)) << "a program of 0.1";
  xhal_stream_destroy(stream);
  ASSERT_OK(create(sizeof(xhal_stream_info), 0));
  xhal_stream_destroy(stream);
  ASSERT_OK(create(sizeof(xhal_stream_info) + 32, 0))
      << "a newer program that does not use its new fields";
  xhal_stream_destroy(stream);
  EXPECT_EQ(create(sizeof(xhal_stream_info) + 32, 1), XHAL_ERR_UNKNOWN_FIELD);
}

TEST_P(StatesTest, UnknownChainedStructuresAreRefusedUnlessIgnorable) {
  auto& d = device(GetParam());
  xhal_chain chain{sizeof chain, 4711, nullptr};
  xhal_stream_info info{};
  info.struct_size = sizeof info;
  info.next = &chain;
  xhal_stream* stream = nullptr;
  EXPECT_EQ(xhal_stream_create(d.context(), &info, &stream), XHAL_ERR_UNKNOWN_STRUCT);
  chain.type |= XHAL_STRUCT_IGNORABLE;
  ASSERT_OK(xhal_stream_create(d.context(), &info, &stream));
  xhal_stream_destroy(stream);
}

TEST_P(StatesTest, ZeroAndAbsurdSizes) {
  auto& d = device(GetParam());
  xhal_memory_info info{};
  info.struct_size = sizeof info;
  info.kind = XHAL_MEMORY_DEVICE;
  uint64_t address = 0;
  EXPECT_EQ(xhal_memory_alloc(d.context(), &info, &address), XHAL_ERR_INVALID_ARGUMENT);
  info.size_bytes = UINT64_MAX;
  EXPECT_EQ(xhal_memory_alloc(d.context(), &info, &address), XHAL_ERR_OUT_OF_MEMORY);
  info.size_bytes = uint64_t{1} << 46;
  EXPECT_EQ(xhal_memory_alloc(d.context(), &info, &address), XHAL_ERR_OUT_OF_MEMORY);
  info.size_bytes = 64;
  info.alignment_bytes = 3;
  EXPECT_EQ(xhal_memory_alloc(d.context(), &info, &address), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_THAT(error_text(), HasSubstr("power of two"));
  auto pool = d.pool();
  EXPECT_EQ(xhal_pool_alloc(pool.get(), nullptr, UINT64_MAX, str("absurd"), &address),
            XHAL_ERR_OUT_OF_MEMORY);
  EXPECT_OK(xhal_pool_alloc(pool.get(), nullptr, 0, str(""), &address));
  EXPECT_EQ(address, 0u);
  EXPECT_EQ(xhal_pool_free(pool.get(), 0xdead000, nullptr, 0), XHAL_ERR_INVALID_ARGUMENT);
}

TEST_P(StatesTest, CopiesStayInsideTheirAllocationsAndDoNotOverlap) {
  auto& d = device(GetParam());
  auto stream = d.stream();
  const auto a = alloc(d, 4096);
  std::vector<char> host(8192);
  const auto h = reinterpret_cast<uint64_t>(host.data());
  EXPECT_EQ(xhal_stream_copy(stream.get(), a, h, 4097), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_THAT(error_text(), HasSubstr("leaves its allocation"));
  EXPECT_EQ(xhal_stream_copy(stream.get(), a + 64, a, 128), XHAL_ERR_OVERLAP);
  EXPECT_EQ(xhal_stream_copy(stream.get(), 0, h, 1), XHAL_ERR_INVALID_ARGUMENT);
  EXPECT_OK(xhal_stream_copy(stream.get(), a, h, 0));
  EXPECT_OK(xhal_stream_copy(stream.get(), a + 2048, a, 2048));
  EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon));
}

TEST_P(StatesTest, QuotasHold) {
  uint32_t index = 0;
  for (const auto& i : devices()) {
    if (std::string(i.plugin) == GetParam()) index = i.index;
  }
  Device d(index, 0, 1 << 20);
  const auto first = alloc(d, 1 << 19);
  xhal_memory_info info{};
  info.struct_size = sizeof info;
  info.kind = XHAL_MEMORY_DEVICE;
  info.size_bytes = (1 << 19) + 1;
  uint64_t address = 0;
  EXPECT_EQ(xhal_memory_alloc(d.context(), &info, &address), XHAL_ERR_LIMIT);
  EXPECT_OK(xhal_memory_free(d.context(), first));
  EXPECT_OK(xhal_memory_alloc(d.context(), &info, &address));
}

INSTANTIATE_TEST_SUITE_P(Plugins, StatesTest, testing::Values("template", "cpu"));

}  // namespace
}  // namespace xhal::test
