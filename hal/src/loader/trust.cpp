// SPDX-License-Identifier: Apache-2.0
#include "loader/trust.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <vector>

namespace xhal {
namespace {

namespace fs = std::filesystem;
constexpr int kMostLinks = 40;  // as many as the kernel follows

// Descriptors 0 to 2 mean something else to the programs we start.
Descriptor above_standard(int number) {
  if (number < 0 || number > STDERR_FILENO) return Descriptor(number);
  const Descriptor low(number);
  return Descriptor(fcntl(number, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
}

// The group many systems give each user: of the same number, with nobody else in it.
bool is_own_group(gid_t group) {
  if (group != getegid() || group != geteuid()) return false;
  char buffer[4096];
  struct group entry {};
  struct group* found = nullptr;
  if (getgrgid_r(group, &entry, buffer, sizeof buffer, &found) != 0 || found == nullptr)
    return false;
  char user_buffer[4096];
  struct passwd user {};
  struct passwd* self = nullptr;
  if (getpwuid_r(geteuid(), &user, user_buffer, sizeof user_buffer, &self) != 0) return false;
  for (char** member = found->gr_mem; *member != nullptr; ++member) {
    if (self == nullptr || std::strcmp(*member, self->pw_name) != 0) return false;
  }
  return true;
}

Problem foreign(const fs::path& path, uid_t owner) {
  return {XHAL_ERR_INSECURE,
          fmt::format("{} belongs to user {}, neither to root nor to you; run: chown root {}",
                      path.string(), owner, path.string())};
}

// Who could change what stands at `path`, or in it.
Problem judge(const fs::path& path, const struct stat& info) {
  if (info.st_uid != 0 && info.st_uid != geteuid()) return foreign(path, info.st_uid);
  if (S_ISLNK(info.st_mode)) return {};  // the mode of a link means nothing
  if (S_ISDIR(info.st_mode) && (info.st_mode & S_ISVTX) != 0) return {};
  if ((info.st_mode & S_IWOTH) != 0) {
    return {XHAL_ERR_INSECURE, fmt::format("{} is writable by others; run: chmod o-w {}",
                                           path.string(), path.string())};
  }
  if ((info.st_mode & S_IWGRP) != 0 && info.st_gid != 0 && !is_own_group(info.st_gid)) {
    return {XHAL_ERR_INSECURE, fmt::format("{} is writable by group {}; run: chmod g-w {}",
                                           path.string(), info.st_gid, path.string())};
  }
  return {};
}

Problem system_problem(const fs::path& path, int error) {
  const xhal_status status = error == ENOENT || error == ENOTDIR ? XHAL_ERR_NOT_FOUND
                             : error == EACCES || error == EPERM ? XHAL_ERR_PERMISSION
                                                                 : XHAL_ERR_IO;
  return {status, fmt::format("{}: {}", path.string(), std::strerror(error))};
}

// What a path led to: the folder it stands in, held open, and its name there.
struct Place {
  Descriptor folder;
  std::string name;  // empty for the root itself
  fs::path path;
  struct stat info {};
};

// The parts of a path that are still to be walked, last first.
void push_parts(std::vector<std::string>& parts, const std::string& path) {
  std::vector<std::string> forward;
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    if (end > begin) forward.emplace_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  parts.insert(parts.end(), forward.rbegin(), forward.rend());
}

Problem walk(const fs::path& asked, Place* place) {
  if (!asked.is_absolute())
    return {XHAL_ERR_INSECURE, fmt::format("{} is not an absolute path", asked.string())};
  const auto open_folder = [](int at, const char* name) {
    return Descriptor(openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  };
  std::vector<std::string> parts;
  push_parts(parts, asked.native());
  // The folders from the root to where we are; never empty.
  std::vector<std::pair<Descriptor, fs::path>> folders;
  const auto enter = [&](Descriptor folder, fs::path path) -> Problem {
    struct stat info {};
    if (!folder || fstat(folder.get(), &info) != 0) return system_problem(path, errno);
    if (auto problem = judge(path, info)) return problem;
    place->info = info;
    folders.emplace_back(std::move(folder), std::move(path));
    return {};
  };
  if (auto problem = enter(open_folder(AT_FDCWD, "/"), "/")) return problem;
  int links = 0;
  while (!parts.empty()) {
    const std::string name = std::move(parts.back());
    parts.pop_back();
    if (name == ".") continue;
    if (name == "..") {
      if (folders.size() > 1) folders.pop_back();
      continue;
    }
    const int at = folders.back().first.get();
    const fs::path path = folders.back().second / name;
    struct stat info {};
    if (fstatat(at, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
      return system_problem(path, errno);
    if (auto problem = judge(path, info)) return problem;
    if (S_ISLNK(info.st_mode)) {
      if (++links > kMostLinks) return system_problem(asked, ELOOP);
      char target[PATH_MAX];
      const ssize_t length = readlinkat(at, name.c_str(), target, sizeof target);
      if (length < 0 || length == sizeof target)
        return system_problem(path, length < 0 ? errno : ENAMETOOLONG);
      if (target[0] == '/') folders.erase(folders.begin() + 1, folders.end());
      push_parts(parts, std::string(target, static_cast<size_t>(length)));
    } else if (S_ISDIR(info.st_mode)) {
      if (auto problem = enter(open_folder(at, name.c_str()), path)) return problem;
    } else {
      if (!parts.empty()) return system_problem(path, ENOTDIR);
      *place = {std::move(folders.back().first), name, path, info};
      return {};
    }
  }
  const fs::path path = folders.back().second;
  if (fstat(folders.back().first.get(), &place->info) != 0) return system_problem(path, errno);
  place->path = path;
  place->folder = std::move(folders.back().first);
  return {};
}

}  // namespace

Descriptor::~Descriptor() {
  if (number_ >= 0) close(number_);
}

std::string TrustedFile::name_of_descriptor() const {
  return fmt::format("/proc/self/fd/{}", descriptor.get());
}

bool TrustedFile::is_in_place() const {
  struct stat now {};
  return lstat(path.c_str(), &now) == 0 && now.st_dev == info.st_dev && now.st_ino == info.st_ino &&
         now.st_size == info.st_size && now.st_mtim.tv_sec == info.st_mtim.tv_sec &&
         now.st_mtim.tv_nsec == info.st_mtim.tv_nsec;
}

bool TrustedFile::read(size_t limit, std::string* content) const {
  content->resize(limit + 1);
  size_t done = 0;
  while (done <= limit) {
    const ssize_t count =
        pread(descriptor.get(), content->data() + done, limit + 1 - done, static_cast<off_t>(done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      content->clear();
      return false;
    }
    if (count == 0) break;
    done += static_cast<size_t>(count);
  }
  content->resize(done);
  return done <= limit;
}

Problem open_trusted(const fs::path& path, TrustedFile* file) {
  Place place;
  if (auto problem = walk(path, &place)) return problem;
  const auto not_a_file = [&]() -> Problem {
    return {XHAL_ERR_CORRUPT, fmt::format("{} is not a regular file", path.string())};
  };
  // A pipe would be waited for, and a device might do something.
  if (!S_ISREG(place.info.st_mode)) return not_a_file();
  file->descriptor = above_standard(openat(place.folder.get(), place.name.c_str(),
                                           O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file->descriptor || fstat(file->descriptor.get(), &file->info) != 0)
    return system_problem(path, errno);
  if (!S_ISREG(file->info.st_mode)) return not_a_file();
  file->path = place.path;
  return judge(place.path, file->info);  // what was opened may be another than was looked at
}

Problem check_folder(const fs::path& path, fs::path* real) {
  Place place;
  if (auto problem = walk(path, &place)) return problem;
  if (!S_ISDIR(place.info.st_mode)) return system_problem(path, ENOTDIR);
  *real = place.path;
  return {};
}

}  // namespace xhal
