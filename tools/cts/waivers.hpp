// SPDX-License-Identifier: Apache-2.0
// waivers.hpp: tests that a vendor says will not pass, and why.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace xhal::cts {

struct Waiver {
  enum class Kind {
    unsupported,  // the plugin refuses, or the test skips itself: for good
    xfail         // the test fails: for now
  };
  std::string test;  // name, or a pattern with * and ?
  Kind kind = Kind::unsupported;
  std::string reason;
  bool used = false;
};

class Waivers {
 public:
  // A file holds {"waivers": [{"test", "kind": "unsupported" | "xfail",
  // "reason"}]}. Throws tools::Failure.
  void add_file(const std::filesystem::path& file);
  // The first that matches; marks it as used.
  const Waiver* find(const std::string& test);
  std::vector<std::string> unused() const;

 private:
  std::vector<Waiver> list_;
};

}  // namespace xhal::cts
