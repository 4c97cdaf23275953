// SPDX-License-Identifier: Apache-2.0
#include "cpu_usage.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

namespace xhal::cpu {
namespace {

std::optional<uint64_t> memory_line(const std::string& wanted) {
  std::ifstream file("/proc/meminfo");
  std::string key, unit;
  uint64_t value = 0;
  while (file >> key >> value) {
    std::getline(file, unit);
    if (key == wanted) return value * 1024;
  }
  return std::nullopt;
}

}  // namespace

std::optional<CpuUsage> read_cpu_usage(const std::vector<uint32_t>& processors) {
  std::ifstream file("/proc/stat");
  CpuUsage load;
  bool any = false;
  for (std::string line; std::getline(file, line) && line.starts_with("cpu");) {
    if (line.size() < 4 || line[3] < '0' || line[3] > '9') continue;
    std::istringstream words(line.substr(3));
    uint32_t number = 0;
    words >> number;
    if (std::find(processors.begin(), processors.end(), number) == processors.end()) continue;
    uint64_t value = 0;
    for (int i = 0; i < 8 && words >> value;
         ++i) {  // user nice system idle iowait irq softirq steal
      load.all += value;
      if (i != 3 && i != 4) load.busy += value;
    }
    any = true;
  }
  if (!any) return std::nullopt;
  return load;
}

std::optional<uint64_t> available_memory_bytes() { return memory_line("MemAvailable:"); }
std::optional<uint64_t> all_memory_bytes() { return memory_line("MemTotal:"); }

}  // namespace xhal::cpu
