// SPDX-License-Identifier: Apache-2.0
// child.hpp: a side that needs its own process (another environment), taking its turn all the same.
#pragma once

#include <string>
#include <vector>

#include "measure.hpp"

namespace xhal::bench {

// A child process that takes a sample whenever it is asked: `program` (own_path(): this one),
// started with `arguments`; it must end up in serve(). Errors: std::runtime_error.
class Child {
 public:
  // A side that lives in a child process of its own until the last copy of it goes.
  static Sample side(const std::string& program, const std::vector<std::string>& arguments,
                     const std::vector<std::string>& environment);

  Child(const std::string& program, const std::vector<std::string>& arguments,
        const std::vector<std::string>& environment);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  double sample();

 private:
  int pid_ = -1, ask_ = -1, answer_ = -1;
};

// The child's part: answers until its parent goes away. `sample` throwing ends it with the reason
// on stderr and exit status 1.
int serve(const Sample& sample);

// Runs `program` to its end and returns what it printed. Errors: std::runtime_error.
std::string output_of(const std::string& program, const std::vector<std::string>& arguments,
                      const std::vector<std::string>& environment);

std::string own_path();

}  // namespace xhal::bench
