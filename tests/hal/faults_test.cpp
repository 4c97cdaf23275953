// SPDX-License-Identifier: Apache-2.0
// The machine fails, not the program: a full disk, a path that cannot be written, a killed process,
// files that are damaged or change while they are read.
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "hal_test.hpp"

namespace xhal::test {
namespace {

namespace fs = std::filesystem;

class FaultTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "xhal-faults-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    setenv("XHAL_PLUGIN_PATH", folder_.c_str(), 1);
    setenv("XDG_CACHE_HOME", (folder_ / "cache").c_str(), 1);
    setenv("XHAL_LOG", "error", 1);
    write("template.json", manifest());
  }
  void TearDown() override {
    for (const char* name : {"XHAL_PROBE", "XHAL_LAYERS", "XHAL_TRACE_FILE"}) unsetenv(name);
    fs::remove_all(folder_);
  }
  static std::string manifest() {
    return R"({"file_format_version": 1, "name": "template", "library_path": ")" TEMPLATE_PLUGIN
           R"(", "abi": {"min": "0.1", "max": "0.1"}})";
  }
  void write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary | std::ios::trunc) << text;
    chmod((folder_ / name).c_str(), 0644);
  }
  // Of the test's own manifest: its folder is searched first.
  static xhal_plugin_info report() {
    xhal_plugin_info list[8] = {};
    uint32_t count = 0;
    check(xhal_plugin_report(list, 8, &count));
    return list[0];
  }
  void expect_loaded() {
    const Session session;
    const auto p = report();
    EXPECT_EQ(p.state, static_cast<uint32_t>(XHAL_PLUGIN_LOADED))
        << std::string(p.text.data, p.text.size);
  }

  // Runs `body` in a child; its wait status.
  template <class Body>
  static int in_child(Body&& body) {
    const pid_t pid = fork();
    if (pid == 0) {
      try {
        body();
        _exit(testing::Test::HasFailure() ? 1 : 0);
      } catch (const std::exception& e) {
        std::fprintf(stderr, "child: %s\n", e.what());
        _exit(99);
      }
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
  }
  // Many traced calls, more than a buffer holds.
  static void work(const Device& d, const Stream& stream) {
    uint64_t value = 0;
    for (int i = 0; i < 10'000; ++i)
      check(xhal_device_limit(d.get(), XHAL_LIMIT_COMPUTE_UNITS, &value));
    check(xhal_stream_synchronize(stream.get(), kSoon));
  }
  fs::path trace_to(const std::string& path) {
    setenv("XHAL_LAYERS", "trace", 1);
    setenv("XHAL_TRACE_FILE", path.c_str(), 1);
    return path;
  }
  static nlohmann::json events(const fs::path& file) {
    std::ifstream in(file);
    auto json = nlohmann::json::parse(in, nullptr, false);
    EXPECT_TRUE(json.is_array()) << file << " is not whole JSON";
    return json;
  }

  fs::path folder_;
};

struct Lines {
  std::string text;
  Lines() {
    check(xhal_log_set(
        [](void* user, uint32_t level, xhal_string line) {
          if (level == XHAL_LOG_ERROR) static_cast<Lines*>(user)->text.append(line.data, line.size);
        },
        this));
  }
  ~Lines() { xhal_log_set(nullptr, nullptr); }
};

TEST_F(FaultTest, ATraceOfAWholeRunHoldsItsCalls) {
  const auto file = trace_to(folder_ / "trace.json");
  EXPECT_EQ(in_child([] {
              const Session session;
              const Device d(0);
              work(d, d.stream());
            }),
            0);
  EXPECT_GT(events(file).size(), 10'000u);
}

TEST_F(FaultTest, TheTraceOfAKilledProcessSaysThatItIsIncomplete) {
  const auto file = trace_to(folder_ / "trace.json");
  const int status = in_child([] {
    const Session session;
    const Device d(0);
    work(d, d.stream());
    raise(SIGKILL);
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  const auto json = events(file);
  ASSERT_EQ(json.size(), 1u);
  EXPECT_THAT(json[0]["name"].get<std::string>(), HasSubstr("ended without xhal_shutdown"));
}

TEST_F(FaultTest, ATraceThatFillsTheDiskSaysSoAndTheRunGoesOn) {
  const auto file = trace_to(folder_ / "trace.json");
  EXPECT_EQ(in_child([&] {
              const Lines lines;
              {
                const Session session;
                const Device d(0);
                const auto stream = d.stream();
                std::signal(SIGXFSZ, SIG_IGN);  // then a write past the limit is an error
                const rlimit small{64 * 1024, 64 * 1024};
                setrlimit(RLIMIT_FSIZE, &small);
                work(d, stream);
              }
              EXPECT_THAT(lines.text, HasSubstr(file.string() + " is incomplete"));
            }),
            0);
  const auto json = events(file);
  ASSERT_EQ(json.size(), 1u);
  EXPECT_THAT(json[0]["name"].get<std::string>(), HasSubstr("incomplete: "));
}

TEST_F(FaultTest, ATracePathThatCannotBeWrittenIsNamedAndTheRunGoesOn) {
  for (const std::string path : {"/nowhere/at/all.json", "/dev/full"}) {
    trace_to(path);
    const Lines lines;
    {
      const Session session;
      const Device d(0);
      work(d, d.stream());
    }
    EXPECT_THAT(lines.text, HasSubstr(path));
  }
}

TEST_F(FaultTest, AProbeWithoutAPlaceForItsCacheStillAnswers) {
  setenv("XHAL_PROBE", "1", 1);
  for (const std::string home : {"/proc/nowhere", "/dev/null", ""}) {
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", home.c_str(), 1);
    expect_loaded();
    setenv("XDG_CACHE_HOME", home.c_str(), 1);
    expect_loaded();
  }
}

TEST_F(FaultTest, ADamagedProbeCacheIsNotBelieved) {
  setenv("XHAL_PROBE", "1", 1);
  expect_loaded();
  const auto file = folder_ / "cache" / "xhal" / "probe.json";
  std::ifstream in(file);
  const auto good = nlohmann::json::parse(in);
  const auto put = [&](const std::string& text) {
    std::ofstream(file, std::ios::trunc) << text;
    SCOPED_TRACE(text);
    expect_loaded();
  };
  const auto whole = good.dump();
  for (size_t i = 0; i < whole.size(); i += 1 + whole.size() / 20) put(whole.substr(0, i));
  for (const char* key : {"status", "text", "time", "maps"}) {
    for (const nlohmann::json& value :
         {nlohmann::json(), nlohmann::json("x"), nlohmann::json(1.5), nlohmann::json::array({1}),
          nlohmann::json::object(), nlohmann::json(true), nlohmann::json(77)}) {
      auto bad = good;
      for (auto& entry : bad) entry[key] = value;
      put(bad.dump());
    }
  }
  auto bad = good;
  for (auto& entry : bad) entry = nlohmann::json::array({"no", "object"});
  put(bad.dump());
}

TEST_F(FaultTest, AManifestThatChangesWhileItIsReadIsLoadedOrRefused) {
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    const auto text = manifest();
    for (size_t i = 0; !stop; ++i) {
      truncate((folder_ / "template.json").c_str(), static_cast<off_t>(i % text.size()));
      std::ofstream(folder_ / "template.json", std::ios::binary) << text;
    }
  });
  for (int i = 0; i < 300; ++i) {
    const Session session;
    const auto p = report();
    if (p.state == XHAL_PLUGIN_LOADED) continue;
    EXPECT_EQ(p.status, XHAL_ERR_CORRUPT) << xhal_status_name(p.status);
    EXPECT_THAT(std::string(p.text.data, p.text.size), HasSubstr("template.json"));
  }
  stop = true;
  writer.join();
  expect_loaded();
}

TEST_F(FaultTest, APipeInThePlaceOfAFileIsNotWaitedFor) {
  fs::remove(folder_ / "template.json");
  ASSERT_EQ(mkfifo((folder_ / "template.json").c_str(), 0644), 0);
  {
    const Session session;
    const auto p = report();
    EXPECT_EQ(p.status, XHAL_ERR_CORRUPT);
    EXPECT_THAT(std::string(p.text.data, p.text.size), HasSubstr("not a regular file"));
  }
  fs::remove(folder_ / "template.json");
  ASSERT_EQ(mkfifo((folder_ / "pipe.so").c_str(), 0644), 0);
  write("template.json", R"({"file_format_version": 1, "name": "template",
      "library_path": "pipe.so", "abi": {"min": "0.1", "max": "0.1"}})");
  const Session session;
  EXPECT_EQ(report().status, XHAL_ERR_CORRUPT);
}

}  // namespace
}  // namespace xhal::test
