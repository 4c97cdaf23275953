// SPDX-License-Identifier: Apache-2.0
#include "cgroup.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <vector>

namespace xhal::cpu {
namespace {

// Version 1 says "no limit" by a number of this size.
constexpr uint64_t kNoLimit = uint64_t{1} << 60;

// Names of the files, and of the page cache in the group's statistics.
struct Names {
  const char *limit, *usage, *cache;
};
constexpr Names kVersion1{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
constexpr Names kVersion2{"memory.max", "memory.current", "inactive_file"};

// The first number in a file; nothing for a word ("max") or a file that is not there.
std::optional<double> number_in(const std::string& path) {
  std::ifstream file(path);
  double value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

double statistic(const std::string& path, const std::string& wanted) {
  std::ifstream file(path);
  std::string name;
  for (double value = 0; file >> name >> value;) {
    if (name == wanted) return value;
  }
  return 0;
}

template <class T>
void tighten(std::optional<T>* limit, T value) {
  *limit = std::min(limit->value_or(value), value);
}

void read_memory(const std::string& folder, const Names& names, CgroupLimits* limits) {
  const auto limit = number_in(folder + names.limit);
  if (!limit || *limit < 0 || *limit >= static_cast<double>(kNoLimit)) return;
  tighten(&limits->memory_bytes, static_cast<uint64_t>(*limit));
  const double used =
      number_in(folder + names.usage).value_or(0) - statistic(folder + "memory.stat", names.cache);
  tighten(&limits->memory_left_bytes, static_cast<uint64_t>(std::max(*limit - used, 0.0)));
}

void read_processors(const std::string& folder, CgroupLimits* limits) {
  double quota = 0, period = 0;
  std::ifstream file(folder + "cpu.max");  // "max 100000" or "50000 100000"
  if (!(file >> quota >> period)) {
    quota = number_in(folder + "cpu.cfs_quota_us").value_or(-1);
    period = number_in(folder + "cpu.cfs_period_us").value_or(0);
  }
  if (quota > 0 && period > 0) tighten(&limits->processors, quota / period);
}

// "/a/b" -> its folder and those above it, each with a slash at its end. Inside a container the
// path may be the host's, which is not there; the mount itself is the group then.
std::vector<std::string> with_parents(const std::string& mount, std::string path) {
  std::vector<std::string> folders;
  for (; path.size() > 1; path.erase(path.rfind('/'))) folders.push_back(mount + path + "/");
  folders.push_back(mount + "/");
  return folders;
}

bool contains(const std::string& list, const std::string& word) {
  std::istringstream words(list);
  for (std::string one; std::getline(words, one, ',');) {
    if (one == word) return true;
  }
  return false;
}

}  // namespace

CgroupLimits read_cgroup_limits(const std::string& root) {
  CgroupLimits limits;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // "4:memory:/path"; version 2: "0::/path"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    const std::string top = root + "/sys/fs/cgroup";
    if (controllers.empty()) {
      for (const auto& folder : with_parents(top, path)) {
        read_memory(folder, kVersion2, &limits);
        read_processors(folder, &limits);
      }
    }
    if (contains(controllers, "memory")) {
      for (const auto& folder : with_parents(top + "/memory", path))
        read_memory(folder, kVersion1, &limits);
    }
    if (contains(controllers, "cpu")) {
      for (const std::string& mount : {"/" + controllers, std::string("/cpu")}) {
        for (const auto& folder : with_parents(top + mount, path)) read_processors(folder, &limits);
      }
    }
  }
  return limits;
}

}  // namespace xhal::cpu
