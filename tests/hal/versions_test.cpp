// SPDX-License-Identifier: Apache-2.0
// What 0.2 brought, through the public ABI, and how its absence is answered.
#include <dlfcn.h>

#include <future>

#include "hal_test.hpp"
#include "xhal/plugin.hpp"

namespace xhal::test {
namespace {

std::string text(xhal_string s) { return std::string(s.data == nullptr ? "" : s.data, s.size); }

xhal_error failure(xhal_status status, std::string_view text) {
  xhal_error e{};
  e.struct_size = sizeof e;
  e.status = status;
  e.text = str(text);
  return e;
}

xhal_error record() {
  xhal_error e{};
  e.struct_size = sizeof e;
  check(xhal_last_error(&e));
  return e;
}

class VersionTest : public HalTest {
 protected:
  static Timeline make() {
    xhal_timeline* t = nullptr;
    check(xhal_timeline_create(0, &t));
    return Timeline(t);
  }
  // Makes `stream` fail because what it waits for does; the record is the thread's then.
  static void fail_it(xhal_stream* stream) {
    const auto origin = make();
    check(xhal_stream_wait(stream, origin.get(), 1));
    const auto error = failure(XHAL_ERR_IO, "the data file ended early");
    check(xhal_timeline_fail(origin.get(), &error));
    ASSERT_EQ(xhal_stream_synchronize(stream, kSoon), XHAL_ERR_DEPENDENCY);
  }
};

TEST_F(VersionTest, AStreamTellsItsPriorityAndWhatIsBeforeIt) {
  auto& cpu = device("cpu");
  const auto urgent = cpu.stream(-1000);
  EXPECT_LT(query(urgent.get()).priority, 0);
  EXPECT_GT(query(urgent.get()).priority, -1000)
      << "the priority in effect is clamped to the context's range";

  const auto stream = cpu.stream();
  const auto memory = alloc(cpu, 64);
  std::promise<void> entered, leave;
  struct Gate {
    std::promise<void>& entered;
    std::future<void> leave;
  } gate{entered, leave.get_future()};
  ASSERT_OK(xhal_stream_host_call(
      stream.get(),
      [](void* user, xhal_status) {
        auto& g = *static_cast<Gate*>(user);
        g.entered.set_value();
        g.leave.wait();
      },
      &gate, 0));
  entered.get_future().wait();
  for (int i = 0; i < 3; ++i) ASSERT_OK(xhal_stream_fill(stream.get(), memory, 64, 1, 1));
  EXPECT_EQ(query(stream.get()).pending, 4u) << "the call that runs and three behind it";
  leave.set_value();
  ASSERT_OK(xhal_stream_synchronize(stream.get(), kSoon));
  while (query(stream.get()).pending != 0) std::this_thread::yield();  // ctest ends a hang
}

TEST_F(VersionTest, APluginWithoutStreamQueryAnswersUnsupported) {
  const auto stream = device("template").stream();
  xhal_stream_properties properties{};
  properties.struct_size = sizeof properties;
  EXPECT_EQ(xhal_stream_query(stream.get(), &properties), XHAL_ERR_UNSUPPORTED);
  EXPECT_THAT(error_text(), HasSubstr("template"));
}

TEST_F(VersionTest, AnErrorNamesTheStream) {
  auto& cpu = device("cpu");
  const auto stream = cpu.stream(0, "gradients");
  fail_it(stream.get());
  const auto seen = record();
  EXPECT_EQ(text(seen.stream_name), "gradients");
  EXPECT_EQ(seen.cause, XHAL_ERR_IO);
  EXPECT_THAT(text(seen.cause_text), HasSubstr("the data file ended early"));
}

TEST_F(VersionTest, ALongNameIsCutAndAnEmptyOneIsNone) {
  auto& cpu = device("cpu");
  const auto stream = cpu.stream(0, std::string(1000, 'n'));
  fail_it(stream.get());
  EXPECT_EQ(text(record().stream_name), std::string(63, 'n'));
  const auto plain = cpu.stream();
  fail_it(plain.get());
  EXPECT_EQ(text(record().stream_name), "");
}

TEST_F(VersionTest, AnOlderCallerGetsAsMuchOfTheErrorAsItHasRoomFor) {
  const auto stream = device("cpu").stream(0, "new");
  fail_it(stream.get());
  struct {
    xhal_error error;
    uint64_t guard;
  } old{};
  constexpr uint32_t kSizeIn01 = 120;
  std::memset(&old, 0x5a, sizeof old);
  old.error.struct_size = kSizeIn01;
  ASSERT_OK(xhal_last_error(&old.error));
  EXPECT_NE(old.error.text.size, 0u);
  EXPECT_EQ(old.error.stream_name.size, 0x5a5a5a5a5a5a5a5au) << "beyond the caller's structure";
}

TEST_F(VersionTest, AFailedTimelineKeepsWhatItReachedAndItsFirstFailure) {
  const auto t = make();
  ASSERT_OK(xhal_timeline_signal(t.get(), 3));
  const auto first = failure(XHAL_ERR_IO, "first"), second = failure(XHAL_ERR_DEVICE, "second");
  ASSERT_OK(xhal_timeline_fail(t.get(), &first));
  ASSERT_OK(xhal_timeline_fail(t.get(), &second));
  EXPECT_OK(xhal_timeline_wait(t.get(), 3, 0));
  EXPECT_EQ(xhal_timeline_wait(t.get(), 4, kSoon), XHAL_ERR_IO);
  EXPECT_THAT(error_text(), HasSubstr("first"));
  EXPECT_EQ(xhal_timeline_signal(t.get(), 9), XHAL_ERR_IO) << "it stays failed";
}

TEST_F(VersionTest, FailingRefusesWhatIsNotAFailureOrNotTheHosts) {
  const auto t = make();
  auto error = failure(XHAL_ERR_IO, "no");
  EXPECT_EQ(xhal_timeline_fail(t.get(), nullptr), XHAL_ERR_INVALID_ARGUMENT);
  error.status = XHAL_NOT_READY;
  EXPECT_EQ(xhal_timeline_fail(t.get(), &error), XHAL_ERR_INVALID_ARGUMENT);
  error.status = XHAL_ERR_IO;
  error.struct_size = 8;
  EXPECT_EQ(xhal_timeline_fail(t.get(), &error), XHAL_ERR_INVALID_ARGUMENT);
  error.struct_size = sizeof error;
  const auto stream = device("cpu").stream();
  xhal_timeline* own = nullptr;
  ASSERT_OK(xhal_stream_timeline(stream.get(), &own));
  EXPECT_EQ(xhal_timeline_fail(own, &error), XHAL_ERR_PERMISSION);
  EXPECT_OK(xhal_timeline_signal(t.get(), 1)) << "nothing had changed";
  EXPECT_OK(xhal_stream_synchronize(stream.get(), kSoon));
}

// What a plugin written against a newer table meets in an older library.
TEST(OlderHost, MissingServicesAnswerInsteadOfCrashing) {
  xhal_host_services old{};
  old.struct_size = offsetof(xhal_host_services, timeline_notify);
  old.minor = 1;
  old.error_set = [](const xhal_error* e) { return e->status; };
  plugin::detail::take_host(old);
  EXPECT_EQ(plugin::host().error_set, old.error_set);
  EXPECT_EQ(plugin::host().timeline_notify(nullptr, 1, nullptr, nullptr), XHAL_ERR_UNSUPPORTED);
  EXPECT_EQ(plugin::host().correlation(), 0u);
  plugin::host().device_event(nullptr, 0, 0, {});
  EXPECT_EQ(plugin::host().object_alloc(nullptr, 0, 0, nullptr), XHAL_ERR_UNSUPPORTED)
      << "a hole inside the table is a stub, too";
}

// Each symbol keeps the version node of the minor it appeared in, or old programs do not start.
TEST(SymbolVersions, FollowTheMinorTheyAppearedIn) {
  EXPECT_NE(dlvsym(RTLD_DEFAULT, "xhal_stream_create", "XHAL_0.1"), nullptr);
  EXPECT_EQ(dlvsym(RTLD_DEFAULT, "xhal_stream_query", "XHAL_0.1"), nullptr);
#define XHAL_SLOT_HOSTED(object, method, name, since, params, args)
#define XHAL_SLOT(object, method, name, since, params, args, SECOND, second) \
  EXPECT_NE(dlvsym(RTLD_DEFAULT, "xhal_" #name, "XHAL_0." #since), nullptr)  \
      << "xhal_" #name << " " #since;
#include "xhal/slots.inc"
#undef XHAL_SLOT
#undef XHAL_SLOT_HOSTED
}

}  // namespace
}  // namespace xhal::test
