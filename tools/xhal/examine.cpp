// SPDX-License-Identifier: Apache-2.0
// examine.cpp: the checks of one plugin.
#include <cxxabi.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "common/elf_file.hpp"
#include "common/process.hpp"
#include "common/suggest.hpp"
#include "xhal/doctor.hpp"
#include "xhal/visibility.hpp"

namespace xhal::tools {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEntry = "xhal_plugin_negotiate";
constexpr uint32_t kOldestAbi = 1;
constexpr uint32_t kNewestAbi = XHAL_VERSION_MAJOR << 16 | XHAL_VERSION_MINOR;

Check failed(std::string name, std::string text, std::string next) {
  return {Mark::failed, std::move(name), std::move(text), std::move(next)};
}

struct Facts {
  std::chrono::milliseconds patience;
  PluginState listed;  // before anything was loaded
  PluginState loaded;  // after libxhal has loaded it alone
  std::vector<Device> devices;
  std::vector<std::string> problems;                  // that libxhal had besides
  nlohmann::json verdict = nlohmann::json::object();  // of the probe, where it does not load
  fs::path library() const { return listed.library; }
  bool loads() const { return loaded.state == "loaded"; }
  // libxhal did not look into the manifest, because of who may change or read it.
  bool is_unread() const {
    return listed.state == "skipped" &&
           (listed.status == XHAL_ERR_INSECURE || listed.status == XHAL_ERR_PERMISSION);
  }
};

Check skipped(std::string name, std::string text) {
  return {Mark::skipped, std::move(name), std::move(text), ""};
}

Check check_selection(Facts& f) {
  if (f.listed.state == "disabled")
    return skipped("selection", "left out by " + left_out_by(f.listed.name));
  return {Mark::ok, "selection", "not left out", ""};
}

Check check_manifest(Facts& f) {
  const std::string step = "manifest";
  if (f.listed.state == "skipped") {
    const bool twice = f.listed.status == XHAL_ERR_BUSY;
    return failed(step, f.listed.text,
                  twice ? "remove one of the two, or change the order of XHAL_PLUGIN_PATH"
                        : "correct it, or copy one: plugins/template has one, and so has what "
                          "xhal plugins new NAME makes");
  }
  if (std::max(f.listed.abi_min, kOldestAbi) > std::min(f.listed.abi_max, kNewestAbi)) {
    return failed(
        step,
        fmt::format("says ABI {}-{}, this xHAL speaks {}-{}", version_text(f.listed.abi_min),
                    version_text(f.listed.abi_max), version_text(kOldestAbi),
                    version_text(kNewestAbi)),
        fmt::format("install a plugin built for ABI {}.x, or another xHAL", XHAL_VERSION_MAJOR));
  }
  if (f.loads() && !f.loaded.text.empty())
    return {Mark::warning, step, f.loaded.text, "for its vendor: correct the manifest"};
  return {Mark::ok, step,
          fmt::format("{}, ABI {}-{}, priority {}", f.listed.name, version_text(f.listed.abi_min),
                      version_text(f.listed.abi_max), f.listed.priority),
          ""};
}

// What libxhal leaves out on purpose.
Check check_machine(Facts& f) {
  if (f.loaded.state == "skipped" && f.loaded.status == XHAL_ERR_UNSUPPORTED)
    return skipped("machine", f.loaded.text);
  return {Mark::ok, "machine", "meant for this machine", ""};
}

std::string trust_problem(const fs::path& path, std::string* next) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) {
    const int why = errno;
    *next = why == ENOENT ? "install the file or remove the manifest"
                          : "run: namei -l " + path.string();
    return fmt::format("{}: {}", path.string(), std::strerror(why));
  }
  if (!S_ISREG(info.st_mode)) {
    *next = "install the plugin's package again";
    return fmt::format("{} is not a regular file", path.string());
  }
  if (info.st_uid != 0 && info.st_uid != geteuid()) {
    *next = fmt::format("run: chown root {}", path.string());
    return fmt::format("{} belongs to user {}, neither to root nor to you", path.string(),
                       info.st_uid);
  }
  if ((info.st_mode & S_IWOTH) != 0) {
    *next = fmt::format("run: chmod o-w {}", path.string());
    return fmt::format("{} is writable by others, who could change what code is loaded",
                       path.string());
  }
  return {};
}

// Folders and manifest were judged by libxhal; the library it only comes to when it loads it. A
// PERMISSION of that time may be the plugin's own answer: the library's file tells below.
Check check_permissions(Facts& f) {
  const bool loaded = f.loaded.state == "skipped" && f.loaded.status == XHAL_ERR_INSECURE;
  if (f.is_unread() || loaded) {
    const auto& text = (f.is_unread() ? f.listed : f.loaded).text;
    // libxhal's text ends with the command that mends it, where one does.
    const auto command = text.rfind("; run: ");
    if (command == text.npos)
      return failed("permissions", text, "run: namei -l " + f.listed.manifest);
    return failed("permissions", text.substr(0, command), text.substr(command + 2));
  }
  std::string next;
  if (auto problem = f.loads() ? std::string() : trust_problem(f.library(), &next);
      !problem.empty())
    return failed("permissions", problem, next);
  return {Mark::ok, "permissions",
          "folders, manifest and library can only be changed by root or you", ""};
}

Check check_file(Facts& f) {
  const auto elf = read_elf_file(f.library());
  if (!elf.problem.empty()) {
    return failed("library", fmt::format("{} {}", f.library().string(), elf.problem),
                  "install the plugin's package for this machine again");
  }
  return {Mark::ok, "library",
          fmt::format("{}, 64-bit {}, build id {}", f.library().string(), elf.architecture,
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
  const auto exports = read_elf_file(f.library()).exports;
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
          fmt::format("exports {} more symbol{} ({}{}), which can clash with other plugins",
                      exports.size() - 1, exports.size() == 2 ? "" : "s", joined(others),
                      exports.size() > 4 ? ", ..." : ""),
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
  if (f.loads()) return {Mark::ok, "load", "loads in a child process", ""};
  const auto probe = sibling_program("xhal-probe");
  const auto command = fmt::format("{} {}", probe.string(), f.library().string());
  const auto run = run_process({probe.string(), f.library().string()}, f.patience);
  f.verdict = nlohmann::json::parse(run.out, nullptr, false);
  switch (run.end) {
    case ProcessResult::End::not_started:
      return {Mark::skipped, "load", fmt::format("{}: {}", probe.string(), run.text()),
              "install the xHAL tools again"};
    case ProcessResult::End::deadline:
      return failed("load",
                    fmt::format("had not finished after {:g} s in a child process: it hangs",
                                std::chrono::duration<double>(f.patience).count()),
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
  if (f.loads()) {
    const auto range = [](const PluginState& p) {
      return fmt::format("{}-{}", version_text(p.abi_min), version_text(p.abi_max));
    };
    if (range(f.loaded) != range(f.listed)) {
      return {Mark::warning, "negotiation",
              fmt::format("the library speaks ABI {}, its manifest says {}", range(f.loaded),
                          range(f.listed)),
              "for its vendor: correct \"abi\" in the manifest"};
    }
    return {Mark::ok, "negotiation",
            fmt::format("ABI {}, build {}", range(f.loaded), f.loaded.build), ""};
  }
  const auto verdict = f.verdict.value("verdict", "");
  if (verdict == "version" || verdict == "no_entry" || verdict == "refused" ||
      verdict == "incomplete") {
    return failed("negotiation", f.verdict.value("text", verdict),
                  verdict == "version" ? "install a plugin and an xHAL of the same ABI major"
                                       : "report it to its vendor");
  }
  return {Mark::ok, "negotiation", "the probe has none", ""};
}

Check check_devices(Facts& f) {
  if (!f.loads()) {
    if (f.verdict.value("verdict", "") == "enumerate_failed")
      return failed("devices", f.verdict.value("text", ""), "report it to its vendor");
    return failed("devices", f.loaded.text.empty() ? "libxhal does not load it" : f.loaded.text,
                  "report it to its vendor with this text");
  }
  const auto count = f.loaded.device_count;
  if (count == 0) {
    return {Mark::warning, "devices", "finds none on this machine",
            "is the hardware there and its driver loaded? look at: lspci, dmesg"};
  }
  return {Mark::ok, "devices", fmt::format("finds {}", count), ""};
}

Check check_open(Facts& f) {
  std::string broken;
  for (const auto& device : f.devices) {
    if (!device.error.empty())
      broken += fmt::format("{}{}: {}", broken.empty() ? "" : "; ", device.info.id, device.error);
  }
  for (const auto& problem : f.problems)
    broken += fmt::format("{}{}", broken.empty() ? "" : "; ", problem);
  if (!broken.empty())
    return failed("open", broken, "is its driver in order? look at: dmesg; else tell its vendor");
  if (f.devices.empty()) return {Mark::ok, "open", "none to open", ""};
  return {Mark::ok, "open", fmt::format("opens {} in a child process", f.devices.size()), ""};
}

// libxhal's verdict on this plugin alone.
void load_alone(Facts& f) {
  try {
    const auto seen = survey({f.patience, false, Depth::opened, f.listed.name});
    for (const auto& plugin : seen.plugins) {
      if (plugin.manifest == f.listed.manifest) f.loaded = plugin;
    }
    f.devices = seen.devices;
    if (seen.unclean) f.problems.push_back(seen.warnings.back());
  } catch (const Failure& failure) {
    f.loaded = f.listed;
    f.loaded.text = failure.what();
  }
}

}  // namespace

bool Patient::failed() const {
  return std::any_of(checks.begin(), checks.end(),
                     [](const Check& c) { return c.mark == Mark::failed; });
}

Patient examine(const PluginState& listed, std::chrono::milliseconds patience) {
  using Step = Check (*)(Facts&);
  static constexpr std::pair<const char*, Step> kSteps[] = {
      {"manifest", check_manifest}, {"selection", check_selection},
      {"machine", check_machine},   {"permissions", check_permissions},
      {"library", check_file},      {"symbols", check_symbols},
      {"load", check_load},         {"negotiation", check_negotiation},
      {"devices", check_devices},   {"open", check_open}};
  Facts facts{patience, listed, listed, {}, {}};
  if (listed.state == "deferred") load_alone(facts);
  Patient patient;
  bool stopped = false;
  for (const auto& [name, step] : kSteps) {
    if (facts.is_unread() && !stopped && step != check_permissions) {
      patient.checks.push_back(skipped(name, "not read: see permissions"));
      continue;
    }
    patient.checks.push_back(stopped ? skipped(name, "not reached") : step(facts));
    stopped |=
        patient.checks.back().mark == Mark::failed || patient.checks.back().mark == Mark::skipped;
  }
  patient.plugin = facts.loaded;
  return patient;
}

}  // namespace xhal::tools
