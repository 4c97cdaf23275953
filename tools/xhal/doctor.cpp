// SPDX-License-Identifier: Apache-2.0
// doctor.cpp: the search path, the report, its two forms.
#include "xhal/doctor.hpp"

#include <dlfcn.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>

#include "common/suggest.hpp"
#include "xhal/visibility.hpp"
#include "xhal_base/environment.hpp"

namespace xhal::tools {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const auto end = std::min(text.find(separator), text.size());
    if (end > 0) parts.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

fs::path folder_of_libxhal() {
  Dl_info self{};
  if (dladdr(reinterpret_cast<void*>(&xhal_version), &self) == 0 || self.dli_fname == nullptr)
    return {};
  std::error_code ignored;
  return fs::weakly_canonical(self.dli_fname, ignored).parent_path();
}

struct Directory {
  fs::path path;
  std::string source;  // who put it on the search path
  std::string text;    // "2 manifests", "not there", ...
  size_t manifests = 0;
};

void look_into(Directory& directory) {
  std::error_code error;
  for (fs::directory_iterator it(directory.path, error), end; !error && it != end;
       it.increment(error))
    directory.manifests += it->path().extension() == ".json" ? 1 : 0;
  const auto count = directory.manifests;
  directory.text =
      error ? (error == std::errc::no_such_file_or_directory ? "not there" : error.message())
            : fmt::format("{} manifest{}", count, count == 1 ? "" : "s");
}

// As libxhal searches: XHAL_PLUGIN_PATH, the system's folders, beside the library. Relative entries
// are left out.
std::vector<Directory> search_directories() {
  std::vector<Directory> directories;
  const auto add = [&](fs::path path, std::string source) {
    if (path.empty()) return;
    std::error_code ignored;
    const auto canonical = fs::weakly_canonical(path, ignored);
    const bool twice = std::any_of(directories.begin(), directories.end(), [&](const Directory& d) {
      return fs::weakly_canonical(d.path, ignored) == canonical;
    });
    if (twice) return;
    Directory directory{std::move(path), std::move(source), {}, 0};
    if (directory.path.is_absolute()) {
      look_into(directory);
    } else {
      directory.text = "ignored: not an absolute path";
    }
    directories.push_back(std::move(directory));
  };
  for (const auto& part : split(base::environment_text("XHAL_PLUGIN_PATH"), ':'))
    add(part, "XHAL_PLUGIN_PATH");
  add("/etc/xhal/plugins.d", "system");
  add("/usr/share/xhal/plugins.d", "system");
  if (const auto folder = folder_of_libxhal(); !folder.empty())
    add(folder / "xhal" / "plugins", "beside libxhal");
  return directories;
}

const char* mark_name(Mark mark) {
  switch (mark) {
    case Mark::ok:
      return "ok";
    case Mark::warning:
      return "warning";
    case Mark::failed:
      return "failed";
    case Mark::skipped:
      return "skipped";
  }
  return "?";
}

Colour mark_colour(Mark mark) {
  switch (mark) {
    case Mark::ok:
      return Colour::good;
    case Mark::warning:
      return Colour::warning;
    case Mark::failed:
      return Colour::bad;
    case Mark::skipped:
      return Colour::dim;
  }
  return Colour::none;
}

struct Findings {
  std::vector<Directory> directories;
  std::vector<Patient> patients;
  std::vector<Check> library;  // how libxhal itself fares with them
};

// The plugins that are good one by one must also be good together.
Check check_together(const std::vector<Patient>& patients, std::chrono::milliseconds patience) {
  const std::string next =
      "leave plugins out with XHAL_PLUGIN_DISABLE until it works, and report the last one to its "
      "vendor";
  try {
    const auto together = survey({patience, false, Depth::plugins, {}});
    size_t loaded = 0;
    std::vector<std::string> missing;
    for (const auto& plugin : together.plugins) {
      if (plugin.state == "loaded") ++loaded;
      for (const auto& p : patients) {
        const bool lost = p.plugin.manifest == plugin.manifest && p.plugin.state == "loaded" &&
                          plugin.state != "loaded";
        if (lost) missing.push_back(fmt::format("{} ({})", plugin.name, plugin.text));
      }
    }
    if (!missing.empty()) {
      return {Mark::failed, "together",
              fmt::format("libxhal loads {} of them; alone, but not with the others: {}", loaded,
                          joined(missing)),
              next};
    }
    if (loaded == 0) {
      if (const auto left_out = left_out_text(together.plugins); !left_out.empty())
        return {Mark::warning, "together", "libxhal loads none of them; " + left_out,
                "change or unset that variable"};
    }
    return {Mark::ok, "together", fmt::format("libxhal loads {} of them", loaded), ""};
  } catch (const Failure& failure) {
    return {Mark::failed, "together", failure.what(), next};
  }
}

// What is left of the devices by XHAL_VISIBLE_DEVICES, where it is set. The checks above look
// behind it.
Check check_visible(const std::string& variable, std::chrono::milliseconds patience) {
  const std::string step = "visible";
  try {
    const auto devices = survey({patience, false, Depth::listed}).devices;
    if (devices.empty()) {
      const auto hidden = all_hidden_text(patience);
      return {Mark::warning, step, hidden.empty() ? "there is no device to see" : hidden, ""};
    }
    std::vector<std::string> ids;
    for (const auto& device : devices) ids.emplace_back(device.info.id);
    return {Mark::ok, step, fmt::format("XHAL_VISIBLE_DEVICES={} shows {}", variable, joined(ids)),
            ""};
  } catch (const Failure& failure) {
    return {Mark::failed, step, failure.what(), "correct XHAL_VISIBLE_DEVICES, or unset it"};
  }
}

Findings collect(const Request& request) {
  Findings findings;
  findings.directories = search_directories();
  for (const auto& plugin : find_plugins(request.patience))
    findings.patients.push_back(examine(plugin, request.patience));
  if (!findings.patients.empty())
    findings.library.push_back(check_together(findings.patients, request.patience));
  const auto visible = base::environment("XHAL_VISIBLE_DEVICES");
  if (visible && !findings.patients.empty())
    findings.library.push_back(check_visible(*visible, request.patience));
  return findings;
}

Json check_json(const Check& c) {
  return {{"name", c.name},
          {"verdict", mark_name(c.mark)},
          {"text", c.text},
          {"next", c.next.empty() ? Json() : Json(c.next)}};
}

Json to_json(const Findings& findings) {
  Json json = {
      {"search_path", Json::array()}, {"plugins", Json::array()}, {"library", Json::array()}};
  for (const auto& d : findings.directories) {
    json["search_path"].push_back({{"path", d.path.string()},
                                   {"source", d.source},
                                   {"text", d.text},
                                   {"manifests", d.manifests}});
  }
  for (const auto& p : findings.patients) {
    Json plugin = {{"name", p.plugin.name},       {"manifest", p.plugin.manifest},
                   {"library", p.plugin.library}, {"state", p.plugin.state},
                   {"usable", p.usable()},        {"checks", Json::array()}};
    for (const auto& c : p.checks) plugin["checks"].push_back(check_json(c));
    json["plugins"].push_back(plugin);
  }
  for (const auto& c : findings.library) json["library"].push_back(check_json(c));
  return json;
}

std::string check_text(const Check& c, bool colours) {
  const auto mark = fmt::format("{:<8}", mark_name(c.mark));
  auto text =
      fmt::format("  {}{:<12} {}\n", paint(mark, mark_colour(c.mark), colours), c.name, c.text);
  if (!c.next.empty()) text += fmt::format("  {:<8}{:<12} -> {}\n", "", "", c.next);
  return text;
}

std::string render(const Findings& findings, bool colours) {
  Table path;
  path.column("SEARCHED FOLDER");
  path.column("FROM");
  path.column("FOUND");
  for (const auto& d : findings.directories) path.row({d.path.string(), d.source, d.text});
  auto text = path.text(colours);
  for (const auto& p : findings.patients) {
    text += fmt::format("\n{}  {}\n", p.plugin.name, p.plugin.manifest);
    for (const auto& c : p.checks) text += check_text(c, colours);
  }
  if (!findings.library.empty()) text += "\nlibxhal\n";
  for (const auto& c : findings.library) text += check_text(c, colours);
  const auto usable = std::count_if(findings.patients.begin(), findings.patients.end(),
                                    [](const auto& p) { return p.usable(); });
  if (findings.patients.empty()) {
    return text +
           "\nno manifest found: install a plugin, or name its folder in XHAL_PLUGIN_PATH "
           "(absolute, ':' between)\n";
  }
  const auto left_out = std::count_if(findings.patients.begin(), findings.patients.end(),
                                      [](const auto& p) { return p.plugin.state == "disabled"; });
  text += fmt::format("\n{} of {} usable", usable,
                      static_cast<std::ptrdiff_t>(findings.patients.size()) - left_out);
  return text + (left_out == 0 ? "\n" : fmt::format("; {} left out\n", left_out));
}

Report doctor_plugins(const Request& request) {
  const auto findings = collect(request);
  Report report;
  report.data = to_json(findings);
  report.text = render(findings, request.colours);
  for (const auto& check : findings.library) {
    if (request.json && check.mark == Mark::warning) report.warnings.push_back(check.text);
  }
  const bool bad = std::any_of(findings.patients.begin(), findings.patients.end(),
                               [](const auto& p) { return p.failed(); });
  const bool unloadable = std::any_of(findings.library.begin(), findings.library.end(),
                                      [](const Check& c) { return c.mark == Mark::failed; });
  report.status = bad || unloadable ? kFinding : findings.patients.empty() ? kNoDevice : kFine;
  return report;
}

}  // namespace

extern const Command plugins_doctor_command = {
    "plugins",
    "doctor",
    "why a plugin does not work: each step of loading it, checked",
    {},
    doctor_plugins};

}  // namespace xhal::tools
