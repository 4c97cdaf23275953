// SPDX-License-Identifier: Apache-2.0
// The probe under a host program that handles signals its own way, and the list of plugins and
// devices under several threads and hot plug.
#include <sys/time.h>

#include <csignal>
#include <thread>

#include "loader_test.hpp"

namespace xhal::test {
namespace {

class ListingTest : public LoaderTest {
 protected:
  void SetUp() override {
    LoaderTest::SetUp();
    setenv("XHAL_TEST_LISTING", (folder_ / "script").c_str(), 1);
    write("listing.json", manifest("listing", LISTING_PLUGIN));
  }
  void script(const std::string& text) { write("script", text); }

  std::vector<xhal_device_info> list(uint32_t flags = 0) {
    uint32_t count = 0;
    check(xhal_enumerate(flags, nullptr, 0, &count));
    std::vector<xhal_device_info> found(count);
    check(xhal_enumerate(flags & ~static_cast<uint32_t>(XHAL_ENUMERATE_REFRESH), found.data(),
                         count, &count));
    std::erase_if(found, [](const auto& d) { return std::string(d.plugin) != "listing"; });
    return found;
  }
  static std::string open_error(uint32_t index) {
    xhal_device_open_info info{};
    info.struct_size = sizeof info;
    info.index = index;
    xhal_device* device = nullptr;
    xhal_context* context = nullptr;
    EXPECT_NE(xhal_device_open(&info, &device, &context), XHAL_OK);
    return error_text();
  }
  static constexpr uint32_t kGone = XHAL_DEVICE_GONE;
};

TEST_F(ListingTest, ACrashInAProbeIsSeenWhenTheHostIgnoresItsChildren) {
  write("bad.json", manifest("bad", CRASHING_PLUGIN, R"(, "isolation": "probe")"));
  const auto before = signal(SIGCHLD, SIG_IGN);
  expect_skipped("bad", XHAL_ERR_PLUGIN, "crashed");
  const auto r = report("bad");
  signal(SIGCHLD, before);
  EXPECT_EQ(r.status, XHAL_ERR_PLUGIN) << "also when the verdict is remembered: " << r.text;
}

TEST_F(ListingTest, AProbeUnderAStormOfSignalsGivesItsVerdict) {
  setenv("XHAL_PROBE", "1", 1);
  write("bad.json", manifest("bad", CRASHING_PLUGIN));
  struct sigaction handler {
  }, before{};
  handler.sa_handler = [](int) {};  // without SA_RESTART: every call is interrupted
  sigaction(SIGALRM, &handler, &before);
  const itimerval often{{0, 1000}, {0, 1000}}, never{};
  setitimer(ITIMER_REAL, &often, nullptr);
  expect_skipped("bad", XHAL_ERR_PLUGIN, "crashed");
  setitimer(ITIMER_REAL, &never, nullptr);
  sigaction(SIGALRM, &before, nullptr);
}

TEST_F(ListingTest, APluginThatPrintsDoesNotSpoilItsProbe) {
  script("print device 1 0");
  setenv("XHAL_PROBE", "1", 1);
  const auto r = report("listing");
  EXPECT_EQ(r.state, static_cast<uint32_t>(XHAL_PLUGIN_LOADED)) << r.text;
}

TEST_F(ListingTest, ThreadsThatEnumerateAtOnceLoadAPluginOnce) {
  script("device 1 0 device 2 0");
  const Session session;
  std::vector<std::vector<xhal_device_info>> found(8);
  std::vector<std::thread> threads;
  for (auto& mine : found) threads.emplace_back([&] { mine = list(); });
  for (auto& t : threads) t.join();
  for (const auto& mine : found) {
    ASSERT_EQ(mine.size(), 2u);
    EXPECT_EQ(mine[0].memory_bytes, found[0][0].memory_bytes) << "another negotiation";
    EXPECT_STREQ(mine[1].id, "listing:1");
  }
}

TEST_F(ListingTest, APluginThatEnumeratesInsideItsOwnEnumerationGetsAnError) {
  script("reenter device 1 0");
  const auto r = report("listing");
  EXPECT_EQ(r.state, static_cast<uint32_t>(XHAL_PLUGIN_SKIPPED)) << r.text;
  EXPECT_EQ(r.status, XHAL_ERR_BUSY);
  EXPECT_THAT(r.text, HasSubstr("from its own negotiation or enumeration"));
}

TEST_F(ListingTest, RefreshKeepsWhatIsKnownAndAppendsWhatIsNew) {
  script("device 1 0 device 2 0");
  const Session session;
  ASSERT_EQ(list().size(), 2u);
  script("device 2 0 device 3 0");
  ASSERT_EQ(list().size(), 2u) << "only a refresh asks again";

  auto found = list(XHAL_ENUMERATE_REFRESH);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].uuid[15], 1);
  EXPECT_EQ(found[0].flags & kGone, kGone);
  EXPECT_THAT(open_error(0), HasSubstr("listing:0 is no longer there"));
  EXPECT_EQ(found[1].uuid[15], 2);
  EXPECT_EQ(found[1].flags & kGone, 0u);
  EXPECT_EQ(found[1].generation, 0u);
  EXPECT_THAT(open_error(1), HasSubstr("asked for ordinal 0")) << "where the plugin has it now";
  EXPECT_STREQ(found[2].id, "listing:2");

  script("device 1 0 device 2 0 device 3 0");
  found = list(XHAL_ENUMERATE_REFRESH);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].flags & kGone, 0u);
  EXPECT_EQ(found[0].generation, 1u) << "found again";
  EXPECT_EQ(found[2].uuid[15], 3);
}

TEST_F(ListingTest, DevicesWithoutAUuidAreKnownByTheirPlace) {
  script("device 0 0 device 0 0");
  const Session session;
  ASSERT_EQ(list().size(), 2u);
  script("device 0 0");
  const auto found = list(XHAL_ENUMERATE_REFRESH);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].flags & kGone, 0u);
  EXPECT_EQ(found[1].flags & kGone, kGone);
}

TEST_F(ListingTest, APluginThatCountsGenerationsIsBelievedWhenItsCountIsLarger) {
  write("listing.json",
        R"({"file_format_version": 1, "name": "listing", "library_path": ")" LISTING_PLUGIN
        R"(", "abi": {"min": "0.1", "max": "0.3"}})");
  script("device 1 5");
  const Session session;
  auto found = list();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].generation, 5u);
  script("");
  ASSERT_EQ(list(XHAL_ENUMERATE_REFRESH).size(), 1u);
  script("device 1 5");
  EXPECT_EQ(list(XHAL_ENUMERATE_REFRESH)[0].generation, 6u) << "found again, and not counted";
  script("device 1 9");
  EXPECT_EQ(list(XHAL_ENUMERATE_REFRESH)[0].generation, 9u);
}

TEST_F(ListingTest, APluginThatIsSlowToListItsDevicesHoldsUpNobodyElse) {
  script("device 1 0");
  const Session session;
  ASSERT_EQ(list().size(), 1u);
  const auto pipe = folder_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  script("wait " + pipe.string() + " device 1 0 device 2 0");
  std::thread refresher([] {
    uint32_t count = 0;
    check(xhal_enumerate(XHAL_ENUMERATE_REFRESH, nullptr, 0, &count));
  });
  {
    const std::ofstream inside(
        pipe);  // opens when the plugin waits there, which its end lets go on
    EXPECT_EQ(list().size(), 1u);
    EXPECT_THAT(open_error(0), HasSubstr("asked for ordinal 0"));
  }
  refresher.join();
  EXPECT_EQ(list().size(), 2u);
}

TEST_F(ListingTest, ARefreshThatFailsKeepsTheList) {
  script("device 1 0");
  const Session session;
  ASSERT_EQ(list().size(), 1u);
  script("fail");
  const auto found = list(XHAL_ENUMERATE_REFRESH);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].flags & kGone, 0u);
}

}  // namespace
}  // namespace xhal::test
