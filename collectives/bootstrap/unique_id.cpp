// SPDX-License-Identifier: Apache-2.0
#include "bootstrap/unique_id.hpp"

#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "base/failure.hpp"

namespace xcoll::bootstrap {
namespace {

constexpr uint64_t kMagic = 0x64696c6c6f637801;  // "\x01xcollid"
constexpr uint32_t kVersion = 1;

template <size_t N>
void copy_text(std::array<char, N>& to, const std::string& from) {
  to.fill(0);
  std::copy_n(from.data(), std::min(from.size(), N - 1), to.data());
}

std::array<char, 40> this_boot() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string text;
  std::getline(file, text);
  std::array<char, 40> boot;
  copy_text(boot, text);
  return boot;
}

uint64_t this_network_namespace() {
  struct stat status;
  return ::stat("/proc/self/ns/net", &status) == 0 ? status.st_ino : 0;
}

void fill_randomly(std::array<uint8_t, 16>& bytes) {
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    throw system_failure("getrandom", "making a unique id");
  }
}

}  // namespace

std::string host_name() {
  char name[256] = {};
  if (::gethostname(name, sizeof(name) - 1) != 0) return "?";
  return name;
}

IdBody make_id() {
  IdBody id{};
  id.magic = kMagic;
  id.version = kVersion;
  fill_randomly(id.name);
  fill_randomly(id.secret);
  id.boot_id = this_boot();
  id.network_namespace = this_network_namespace();
  copy_text(id.host, host_name());
  return id;
}

IdBody parse_id(const xcoll_unique_id& bytes) {
  IdBody id;
  std::memcpy(&id, bytes.bytes, sizeof(id));
  if (id.magic != kMagic) {
    throw Failure(XCOLL_ERR_INVALID_ARGUMENT,
                  "these 128 bytes are no unique id: they must come unchanged from "
                  "xcoll_unique_id_create on one rank");
  }
  if (id.version != kVersion) {
    throw Failure(
        XCOLL_ERR_UNSUPPORTED,
        "the unique id has version {}, this library {}: install the same libxcoll for all ranks",
        id.version, kVersion);
  }
  if (id.boot_id != this_boot()) {
    throw Failure(
        XCOLL_ERR_UNSUPPORTED,
        "the unique id was made on host {}, this is {}: this version of libxcoll connects ranks "
        "of one host only",
        id.host.data(), host_name());
  }
  if (id.network_namespace != this_network_namespace()) {
    throw Failure(
        XCOLL_ERR_UNSUPPORTED,
        "the unique id was made in another network namespace of this host: run all ranks in one "
        "container, or give the containers one network namespace");
  }
  return id;
}

}  // namespace xcoll::bootstrap
