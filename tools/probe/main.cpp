// SPDX-License-Identifier: Apache-2.0
// xhal-probe: loads a plugin library in this process, so that its crash or hang is
// not the framework's.
//
// Standard output: one JSON object on one line, whatever the library prints: that goes to standard
// error. Exit status: 0 libxhal can use the library, 1 it cannot (the
// JSON says why), 2 wrong usage; a library that crashes takes this process with it, and the caller
// sees the signal.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string_view>

#include "probe/candidate.hpp"

namespace {

constexpr const char* kUsage =
    "usage: xhal-probe [--abi MIN-MAX] [--no-enumerate] [--descriptor N] [--nonce TEXT] "
    "LIBRARY\n"
    "\n"
    "Loads the plugin library LIBRARY, negotiates with it and counts its devices, without opening "
    "one. Prints the\n"
    "verdict as one JSON object. libxhal and `xhal plugins doctor` run it; so can you, under a "
    "debugger or strace.\n"
    "\n"
    "  --abi MIN-MAX    the ABI range to offer, for example 0.1-0.1; default: what these tools "
    "were built with\n"
    "  --no-enumerate   stop after the negotiation\n"
    "  --descriptor N   refuse a LIBRARY that is not the file behind the open descriptor N\n"
    "  --nonce TEXT     repeated in the verdict, so that the caller knows it for this program's\n"
    "\n"
    "Exit status: 0 usable, 1 not usable, 2 wrong usage; a crash of the library is a crash of this "
    "program.\n";

bool parse_version(std::string_view text, uint32_t* version) {
  uint32_t major = 0, minor = 0;
  const char* end = text.data() + text.size();
  const auto dot = std::from_chars(text.data(), end, major);
  if (dot.ec != std::errc() || dot.ptr == end || *dot.ptr != '.') return false;
  const auto last = std::from_chars(dot.ptr + 1, end, minor);
  if (last.ec != std::errc() || last.ptr != end || major > 0xffff || minor > 0xffff) return false;
  *version = major << 16 | minor;
  return true;
}

bool parse_descriptor(std::string_view text, int* number) {
  const auto end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, *number);
  return parsed.ec == std::errc() && parsed.ptr == end && fcntl(*number, F_GETFD) != -1;
}

bool parse_range(std::string_view text, xhal::probe::Request* request) {
  const auto dash = text.find('-');
  return dash != text.npos && parse_version(text.substr(0, dash), &request->abi_min) &&
         parse_version(text.substr(dash + 1), &request->abi_max);
}

nlohmann::ordered_json to_json(const xhal::probe::Request& request, const xhal::probe::Outcome& out,
                               const std::string& nonce) {
  const auto version = [](uint32_t v) {
    return std::to_string(v >> 16) + "." + std::to_string(v & 0xffff);
  };
  nlohmann::ordered_json json;
  json["schema"] = "xhal.probe/1";
  json["library"] = request.library.string();
  json["verdict"] = xhal::probe::verdict_name(out.verdict);
  json["status"] = out.status;
  json["text"] = out.text;
  json["abi"] = {{"min", version(out.abi_min)}, {"max", version(out.abi_max)}};
  json["sanitizer"] = out.sanitizer;
  json["build"] = out.build;
  json["devices"] = out.device_count;
  json["missing_slots"] = out.missing_slots;
  json["maps"] = nlohmann::json::array();
  json["build_ids"] = nlohmann::json::object();
  for (const auto& file : out.maps) {
    json["maps"].push_back(file.path);
    json["build_ids"][file.path] = file.build_id;
  }
  if (!nonce.empty()) json["nonce"] = nonce;
  return json;
}

int wrong_usage(std::string_view why) {
  std::cerr << "xhal-probe: " << why << "\n" << kUsage;
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  xhal::probe::Request request;
  request.abi_min = 1;  // 0.1, the first there was
  request.abi_max = XHAL_VERSION_MAJOR << 16 | XHAL_VERSION_MINOR;
  std::string nonce;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    if (word == "--help" || word == "-h") {
      std::cout << kUsage;
      return 0;
    }
    if (word == "--no-enumerate") {
      request.enumerate = false;
    } else if (word == "--abi") {
      if (++i == argc || !parse_range(argv[i], &request))
        return wrong_usage("--abi wants MIN-MAX, for example 0.1-0.1");
    } else if (word == "--descriptor") {
      if (++i == argc || !parse_descriptor(argv[i], &request.descriptor))
        return wrong_usage("--descriptor wants the number of an open descriptor");
    } else if (word == "--nonce") {
      if (++i == argc) return wrong_usage("--nonce wants a text");
      nonce = argv[i];
    } else if (word.starts_with("-")) {
      return wrong_usage("unknown option " + std::string(word));
    } else if (!request.library.empty()) {
      return wrong_usage("one library at a time");
    } else {
      request.library = std::filesystem::absolute(word);
    }
  }
  if (request.library.empty()) return wrong_usage("which library?");
  // What the library prints goes elsewhere.
  const int out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  if (out < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
    return wrong_usage("standard output and standard error must be open");
  const auto outcome = xhal::probe::try_library(request);
  const auto json = to_json(request, outcome, nonce);
  const auto line = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  for (size_t done = 0; done < line.size();) {
    const ssize_t written = write(out, line.data() + done, line.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) std::_Exit(2);
    done += static_cast<size_t>(written);
  }
  // A plugin's destructors and exit handlers are not on trial.
  std::_Exit(outcome.verdict == xhal::probe::Verdict::ok ? 0 : 1);
}
