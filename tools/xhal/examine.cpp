// SPDX-License-Identifier: Apache-2.0
// examine.cpp: the checks of one plugin.
#include <cxxabi.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>

#include "common/elf_file.hpp"
#include "common/process.hpp"
#include "common/suggest.hpp"
#include "xhal/command.hpp"
#include "xhal/doctor.hpp"

namespace xhal::tools {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;

constexpr const char* kEntry = "xhal_plugin_negotiate";
constexpr uint32_t kOldestAbi = 1;
constexpr uint32_t kNewestAbi = XHAL_VERSION_MAJOR << 16 | XHAL_VERSION_MINOR;
constexpr seconds kProbeDeadline{10};

std::optional<uint32_t> parse_version(const std::string& text) {
  const char* end = text.data() + text.size();
  uint32_t major = 0, minor = 0;
  const auto dot = std::from_chars(text.data(), end, major);
  if (dot.ec != std::errc() || dot.ptr == end || *dot.ptr != '.') return std::nullopt;
  const auto last = std::from_chars(dot.ptr + 1, end, minor);
  if (last.ec != std::errc() || last.ptr != end || major > 0xffff || minor > 0xffff)
    return std::nullopt;
  return major << 16 | minor;
}

Check failed(std::string name, std::string text, std::string next) {
  return {Mark::failed, std::move(name), std::move(text), std::move(next)};
}

struct Facts {
  fs::path manifest, library;
  std::string name;
  nlohmann::json json;
  nlohmann::json verdict;  // of the probe
};

Check check_manifest(Facts& f) {
  const std::string step = "manifest";
  std::ifstream file(f.manifest);
  if (!file)
    return failed(step, fmt::format("cannot be read: {}", std::strerror(errno)),
                  "run: ls -l " + f.manifest.string());
  std::ostringstream text;
  text << file.rdbuf();
  f.json = nlohmann::json::parse(text.str(), nullptr, false);
  const std::string rewrite =
      "write it anew; plugins/template has one to copy, or run: xhal plugins new NAME";
  if (!f.json.is_object())
    return failed(step, "is not a JSON object; it may be truncated", rewrite);
  const auto field = [&](const char* key) {
    const auto found = f.json.find(key);
    return found != f.json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  f.name = field("name");
  if (f.name.empty()) return failed(step, "has no \"name\"", rewrite);
  if (const auto library = field("library_path"); library.empty()) {
    return failed(step, "has no \"library_path\"",
                  "add \"library_path\": a path from the manifest's own folder");
  } else {
    f.library =
        fs::path(library).is_absolute() ? fs::path(library) : f.manifest.parent_path() / library;
  }
  const auto version = f.json.find("file_format_version");
  if (version == f.json.end() || *version != 1) {
    return failed(step,
                  fmt::format("has file_format_version {}, xHAL reads 1",
                              version == f.json.end() ? "none" : version->dump()),
                  "install a plugin made for this xHAL");
  }
  const auto abi = f.json.value("abi", nlohmann::json::object());
  const auto min = abi.is_object() && abi.contains("min") && abi["min"].is_string()
                       ? parse_version(abi["min"])
                       : std::nullopt;
  const auto max = abi.is_object() && abi.contains("max") && abi["max"].is_string()
                       ? parse_version(abi["max"])
                       : std::nullopt;
  if (!min || !max || *min > *max) {
    return failed(step, "\"abi\" is not {\"min\": \"MAJOR.MINOR\", \"max\": \"MAJOR.MINOR\"}",
                  rewrite);
  }
  if (std::max(*min, kOldestAbi) > std::min(*max, kNewestAbi)) {
    return failed(
        step,
        fmt::format("says ABI {}-{}, this xHAL speaks {}-{}", version_text(*min),
                    version_text(*max), version_text(kOldestAbi), version_text(kNewestAbi)),
        fmt::format("install a plugin built for ABI {}.x, or another xHAL", XHAL_VERSION_MAJOR));
  }
  const auto priority = f.json.find("priority");
  return {Mark::ok, step,
          fmt::format("{}, ABI {}-{}, priority {}", f.name, version_text(*min), version_text(*max),
                      priority == f.json.end() ? "0" : priority->dump()),
          ""};
}

std::string trust_problem(const fs::path& path, std::string* next) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) {
    const int why = errno;
    *next = why == ENOENT ? "install the file or remove the manifest"
                          : "run: namei -l " + path.string();
    return fmt::format("{}: {}", path.string(), std::strerror(why));
  }
  if (info.st_uid != 0 && info.st_uid != geteuid()) {
    *next = fmt::format("run: chown root {}", path.string());
    return fmt::format("{} belongs to user {}, neither to root nor to you", path.string(),
                       info.st_uid);
  }
  const bool sticky = S_ISDIR(info.st_mode) && (info.st_mode & S_ISVTX) != 0;
  if ((info.st_mode & S_IWOTH) != 0 && !sticky) {
    *next = fmt::format("run: chmod o-w {}", path.string());
    return fmt::format("{} is writable by others, who could change what code is loaded",
                       path.string());
  }
  return {};
}

Check check_permissions(Facts& f) {
  for (const auto& path : {f.manifest.parent_path(), f.manifest, f.library}) {
    std::string next;
    if (auto problem = trust_problem(path, &next); !problem.empty())
      return failed("permissions", problem, next);
  }
  return {Mark::ok, "permissions",
          "folder, manifest and library can only be changed by root or you", ""};
}

Check check_file(Facts& f) {
  const auto elf = read_elf_file(f.library);
  if (!elf.problem.empty()) {
    return failed("library", fmt::format("{} {}", f.library.string(), elf.problem),
                  "install the plugin's package for this machine again");
  }
  return {Mark::ok, "library",
          fmt::format("{}, 64-bit {}, build id {}", f.library.string(), elf.architecture,
                      elf.build_id.empty() ? "none" : elf.build_id.substr(0, 12)),
          ""};
}

// A symbol as a person reads it, cut to what fits in a line.
std::string readable(const std::string& symbol) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> text(
      abi::__cxa_demangle(symbol.c_str(), nullptr, nullptr, &status), std::free);
  const std::string name = status == 0 ? text.get() : symbol;
  return name.size() <= 40 ? name : name.substr(0, 37) + "...";
}

Check check_symbols(Facts& f) {
  const auto exports = read_elf_file(f.library).exports;
  if (std::find(exports.begin(), exports.end(), kEntry) == exports.end()) {
    return failed("symbols", fmt::format("does not export {}: it is no xHAL plugin", kEntry),
                  "check \"library_path\" of the manifest");
  }
  if (exports.size() == 1)
    return {Mark::ok, "symbols", fmt::format("exports {} and nothing else", kEntry), ""};
  std::vector<std::string> others;
  for (const auto& name : exports) {
    if (name != kEntry && others.size() < 3) others.push_back(readable(name));
  }
  return {Mark::warning, "symbols",
          fmt::format("exports {} more symbols ({}{}), which can clash with other plugins",
                      exports.size() - 1, joined(others), exports.size() > 4 ? ", ..." : ""),
          "for its vendor: link with a version script that keeps only xhal_plugin_negotiate"};
}

// What a person does about a library that the dynamic loader refuses.
std::string advice_for_load_error(const std::string& text) {
  constexpr std::string_view kMissing = ": cannot open shared object file";
  if (const auto at = text.find(kMissing); at != text.npos) {
    const auto begin = text.rfind(' ', at - 1);
    const auto name =
        text.substr(begin == text.npos ? 0 : begin + 1, at - (begin == text.npos ? 0 : begin + 1));
    return fmt::format(
        "install the package that has {0} (apt-file search {0}), or add its folder to "
        "LD_LIBRARY_PATH",
        name);
  }
  if (text.find("undefined symbol") != text.npos) {
    return "one of its libraries is older or newer than the plugin was built for; install the "
           "versions its vendor names";
  }
  return "report it to its vendor with this text";
}

Check check_load(Facts& f) {
  const auto probe = sibling_program("xhal-probe");
  const auto command = fmt::format("{} {}", probe.string(), f.library.string());
  const auto run = run_process({probe.string(), f.library.string()}, kProbeDeadline);
  f.verdict = nlohmann::json::parse(run.out, nullptr, false);
  switch (run.end) {
    case ProcessResult::End::not_started:
      return {Mark::skipped, "load", fmt::format("{}: {}", probe.string(), run.text()),
              "install the xHAL tools again"};
    case ProcessResult::End::deadline:
      return failed("load",
                    fmt::format("had not finished after {} s in a child process: it hangs",
                                kProbeDeadline.count()),
                    fmt::format("see where:  gdb --args {}", command));
    case ProcessResult::End::signalled:
      return failed("load", fmt::format("crashed in a child process, {}", run.text()),
                    fmt::format("set \"isolation\": \"probe\" in the manifest so that it takes "
                                "nothing down, and report it "
                                "to its vendor; see where:  gdb --args {}",
                                command));
    case ProcessResult::End::exited:
      break;
  }
  if (!f.verdict.is_object()) {
    return failed("load", fmt::format("ended the child process ({}): {}", run.text(), run.err),
                  "report it to its vendor");
  }
  if (f.verdict.value("verdict", "") == "cannot_load") {
    const auto text = f.verdict.value("text", "");
    return failed("load", text, advice_for_load_error(text));
  }
  return {Mark::ok, "load", "loads in a child process", ""};
}

Check check_negotiation(Facts& f) {
  const auto verdict = f.verdict.value("verdict", "");
  const auto abi = f.verdict.value("abi", nlohmann::json::object());
  const auto min = abi.value("min", ""), max = abi.value("max", "");
  if (verdict == "version" || verdict == "no_entry" || verdict == "refused" ||
      verdict == "incomplete") {
    return failed("negotiation", f.verdict.value("text", verdict),
                  verdict == "version" ? "install a plugin and an xHAL of the same ABI major"
                                       : "report it to its vendor");
  }
  const auto manifest = f.json["abi"];
  if (manifest["min"] != min || manifest["max"] != max) {
    return {Mark::warning, "negotiation",
            fmt::format("the library speaks ABI {}-{}, its manifest says {}-{}", min, max,
                        manifest["min"].get<std::string>(), manifest["max"].get<std::string>()),
            "for its vendor: correct \"abi\" in the manifest"};
  }
  return {Mark::ok, "negotiation",
          fmt::format("ABI {}-{}, build {}", min, max, f.verdict.value("build", "")), ""};
}

Check check_devices(Facts& f) {
  if (f.verdict.value("verdict", "") == "enumerate_failed") {
    return failed("devices", f.verdict.value("text", ""), "report it to its vendor");
  }
  const int count = f.verdict.value("devices", 0);
  if (count == 0) {
    return {Mark::warning, "devices", "finds none on this machine",
            "is the hardware there and its driver loaded? look at: lspci, dmesg"};
  }
  return {Mark::ok, "devices", fmt::format("finds {}", count), ""};
}

}  // namespace

bool Patient::usable() const {
  return std::none_of(checks.begin(), checks.end(),
                      [](const Check& c) { return c.mark == Mark::failed; });
}

Patient examine(const fs::path& manifest, const std::vector<std::string>& taken) {
  using Step = Check (*)(Facts&);
  static constexpr std::pair<const char*, Step> kSteps[] = {
      {"manifest", check_manifest}, {"permissions", check_permissions},
      {"library", check_file},      {"symbols", check_symbols},
      {"load", check_load},         {"negotiation", check_negotiation},
      {"devices", check_devices}};
  Facts facts{manifest, {}, manifest.stem().string(), {}, {}};
  Patient patient;
  patient.manifest = manifest;
  for (const auto& [name, step] : kSteps) {
    if (patient.usable() &&
        (patient.checks.empty() || patient.checks.back().mark != Mark::skipped)) {
      patient.checks.push_back(step(facts));
    } else {
      patient.checks.push_back({Mark::skipped, name, "not reached", ""});
    }
  }
  patient.name = facts.name;
  patient.library = facts.library;
  if (std::find(taken.begin(), taken.end(), patient.name) != taken.end()) {
    patient.checks.push_back(failed(
        "name",
        fmt::format("\"{}\" is taken by a manifest before it on the search path", patient.name),
        "remove one of the two, or change the order of XHAL_PLUGIN_PATH"));
  }
  return patient;
}

}  // namespace xhal::tools
