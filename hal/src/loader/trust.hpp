// SPDX-License-Identifier: Apache-2.0
// trust.hpp: files that decide which code runs with our rights: opened once, and only where nobody
// but root and the user could have changed them.
#pragma once

#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <utility>

#include "loader/problem.hpp"

namespace xhal {

// A descriptor that is closed with its owner.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~Descriptor();

  int get() const { return number_; }
  explicit operator bool() const { return number_ >= 0; }

 private:
  int number_ = -1;
};

// A file as it was when it was checked: whatever is put under its name later, this is it.
struct TrustedFile {
  Descriptor descriptor;
  std::filesystem::path path;  // absolute, without symbolic links
  struct stat info {};

  // A name that opens this very file, whatever its path leads to by now.
  std::string name_of_descriptor() const;
  // Whether its path still leads to it and nobody has written to it.
  bool is_in_place() const;
  // The whole content, at most `limit` bytes; false when it is longer or cannot be read.
  bool read(size_t limit, std::string* content) const;
};

// Walks the path from the root, through symbolic links by hand, and opens what it leads to: a
// regular file for reading. Refused with INSECURE unless each folder on the way, each link, and
// the file itself
//   belongs to root or to the effective user, and
//   can be written by nobody else: not by others, and not by a group, but for root's group and the
//   user's own when nobody else is in it. A folder with the sticky bit may be written by all, since
//   what stands in it can only be exchanged by its owner.
// Other errors: NOT_FOUND, PERMISSION, CORRUPT (not a regular file), IO.
Problem open_trusted(const std::filesystem::path& path, TrustedFile* file);

// The same rules for a folder; `real` is its path without symbolic links. Opens nothing.
Problem check_folder(const std::filesystem::path& path, std::filesystem::path* real);

}  // namespace xhal
