// SPDX-License-Identifier: Apache-2.0
// Values of the variables that a user writes: XHAL_VISIBLE_DEVICES, XHAL_LAYERS and XHAL_LOG.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "mutate.hpp"
#include "xhal/xhal.hpp"

namespace xhal::fuzz {
namespace {

std::vector<std::string> pieces(const std::string& text) {
  std::vector<std::string> list;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (end > begin) list.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return list;
}

bool is_number(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

std::string uuid_text(const uint8_t (&uuid)[16]) {
  std::string text;
  for (int i = 0; i < 16; ++i) {
    char byte[3];
    std::snprintf(byte, sizeof byte, "%02x", uuid[i]);
    text += (i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "") + std::string(byte);
  }
  return text;
}

class SelectionFuzz : public testing::Test {
 protected:
  void SetUp() override {
    setenv("XHAL_CPU_DEVICES", "2", 1);
    unsetenv("XHAL_VISIBLE_DEVICES");
    session_ = std::make_unique<Session>();
    all_ = enumerate(0).second;
    ASSERT_GE(all_.size(), 3u);
  }
  void TearDown() override {
    unsetenv("XHAL_VISIBLE_DEVICES");
    session_.reset();
  }
  static std::pair<xhal_status, std::vector<xhal_device_info>> enumerate(uint32_t flags) {
    std::vector<xhal_device_info> list(16);
    uint32_t count = 0;
    const auto status = xhal_enumerate(flags, list.data(), 16, &count);
    list.resize(status == XHAL_OK ? count : 0);
    return {status, list};
  }

  // The rule of the documentation, said a second time: false when something is not there.
  bool expected(const std::string& value, std::vector<std::string>* ids) const {
    std::string plugin;
    const auto add = [&](const auto& matches) {
      bool any = false;
      for (const auto& d : all_) {
        if (!matches(d)) continue;
        any = true;
        if (std::find(ids->begin(), ids->end(), d.id) == ids->end()) ids->push_back(d.id);
      }
      return any;
    };
    for (const auto& item : pieces(value)) {
      std::string number = item;
      if (!is_number(item)) {
        const auto colon = item.find(':');
        const auto name = item.substr(0, colon);
        const bool known =
            std::any_of(all_.begin(), all_.end(), [&](const auto& d) { return d.plugin == name; });
        if (!known) {
          if (!add([&](const auto& d) { return uuid_text(d.uuid) == item; })) return false;
          continue;
        }
        plugin = name;
        if (colon == std::string::npos) {
          add([&](const auto& d) { return d.plugin == name; });
          continue;
        }
        number = item.substr(colon + 1);
      }
      if (!is_number(number) || number.size() > 9) return false;
      const auto id = plugin + ":" + std::to_string(std::stoul(number));
      if (plugin.empty() || !add([&](const auto& d) { return d.id == id; })) return false;
    }
    return true;
  }

  std::unique_ptr<Session> session_;
  std::vector<xhal_device_info> all_;
};

TEST_F(SelectionFuzz, FollowsItsRuleOrNamesWhatIsNotThere) {
  std::vector<std::string> words = {"cpu",
                                    "template",
                                    "cpu:0",
                                    "cpu:1",
                                    "template:0",
                                    "0",
                                    "1",
                                    "2",
                                    "cpu:",
                                    ":",
                                    ",",
                                    ":0",
                                    "gpu",
                                    "CPU",
                                    " cpu",
                                    "cpu:-1",
                                    "00",
                                    "cpu:x",
                                    "4294967296",
                                    "\xff",
                                    "cpu:0:1",
                                    "99999999999999999999",
                                    std::string(3000, '7')};
  for (const auto& d : all_) words.push_back(uuid_text(d.uuid));
  for (uint64_t seed = 0; seed < 20'000 && !HasFailure(); ++seed) {
    Random random(seed);
    std::string value;
    for (uint64_t n = random.below(6); n > 0; --n) {
      if (!value.empty()) value += ',';
      value += random.pick(words);
    }
    if (random.one_in(3)) value = mutate(random, value, words);
    std::erase(value, '\0');
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + value);
    setenv("XHAL_VISIBLE_DEVICES", value.c_str(), 1);
    std::vector<std::string> wanted;
    const bool possible = expected(value, &wanted);
    const auto [status, list] = enumerate(0);
    EXPECT_EQ(status, possible ? XHAL_OK : XHAL_ERR_NOT_FOUND);
    if (status != XHAL_OK) {
      EXPECT_NE(last_error_info().text.find("There are: "), std::string::npos);
      EXPECT_EQ(enumerate(XHAL_ENUMERATE_ALL).second.size(), all_.size());
      continue;
    }
    if (value.empty()) continue;
    std::vector<std::string> ids;
    for (uint32_t i = 0; i < list.size(); ++i) {
      EXPECT_EQ(list[i].index, i);
      ids.push_back(list[i].id);
    }
    EXPECT_EQ(ids, wanted);
  }
}

struct Lines {
  std::vector<std::string> texts;
  Lines() {
    check(xhal_log_set(
        [](void* user, uint32_t level, xhal_string text) {
          if (level <= XHAL_LOG_WARN)
            static_cast<Lines*>(user)->texts.emplace_back(text.data, text.size);
        },
        this));
  }
  ~Lines() { xhal_log_set(nullptr, nullptr); }
  size_t naming(const std::string& word) const {
    return static_cast<size_t>(std::count_if(
        texts.begin(), texts.end(),
        [&](const std::string& line) { return line.find(word) != std::string::npos; }));
  }
};

TEST(LayersFuzz, UnknownLayersAreNamedAndTheOthersWork) {
  setenv("XHAL_TRACE_FILE", "/dev/null", 1);
  unsetenv("XHAL_LOG");
  const std::vector<std::string> words = {"validate",  "trace",    "chaos",  ",",
                                          ",,",        "Validate", " trace", "all",
                                          "validate ", "\xff",     "%n",     "0"};
  for (uint64_t seed = 0; seed < 400 && !testing::Test::HasFailure(); ++seed) {
    Random random(seed);
    std::string value;
    for (uint64_t n = random.below(5); n > 0; --n) value += random.pick(words) + ",";
    if (random.one_in(2)) value = mutate(random, value, words);
    std::erase(value, '\0');
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + value);
    setenv("XHAL_LAYERS", value.c_str(), 1);
    const Lines lines;
    const Session session;
    const auto list = pieces(value);
    const auto unknown = std::count_if(list.begin(), list.end(), [](const std::string& layer) {
      return layer != "validate" && layer != "trace" && layer != "chaos";
    });
    EXPECT_EQ(lines.naming("there is no layer"), static_cast<size_t>(unknown));
    const Device device(0);
    const auto stream = device.stream();
    EXPECT_EQ(xhal_stream_synchronize(stream.get(), 20'000'000'000), XHAL_OK);
  }
  unsetenv("XHAL_LAYERS");
  unsetenv("XHAL_TRACE_FILE");
}

TEST(LogFuzz, AnUnknownLevelIsNamedAndMeansWarn) {
  const std::vector<std::string> words = {"off", "error", "warn", "info", "debug", "WARN", "3", ""};
  setenv("XHAL_LAYERS", "no-such-layer", 1);  // a warning at every start
  for (uint64_t seed = 0; seed < 300 && !testing::Test::HasFailure(); ++seed) {
    Random random(seed);
    auto value = random.pick(words);
    if (random.one_in(2)) value = mutate(random, value, words);
    std::erase(value, '\0');
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + value);
    setenv("XHAL_LOG", value.c_str(), 1);
    const Lines lines;
    const Session session;
    const bool quiet = value == "off" || value == "error";
    const bool known = quiet || value == "warn" || value == "info" || value == "debug";
    EXPECT_EQ(lines.naming("no-such-layer"), quiet ? 0u : 1u);
    EXPECT_EQ(lines.naming("XHAL_LOG"), known || value.empty() ? 0u : 1u);
  }
  unsetenv("XHAL_LAYERS");
  setenv("XHAL_LOG", "off", 1);
}

}  // namespace
}  // namespace xhal::fuzz
