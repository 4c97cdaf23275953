// SPDX-License-Identifier: Apache-2.0
// mutate.hpp: seeded changes to bytes: the same seed makes the same input on every machine.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace xhal::fuzz {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 1) {}

  uint64_t next() {  // splitmix64
    uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t n) { return n == 0 ? 0 : next() % n; }
  bool one_in(uint64_t n) { return below(n) == 0; }
  template <class List>
  const auto& pick(const List& list) {
    return list[below(std::size(list))];
  }

  // Numbers at which readers go wrong.
  uint64_t edge(uint64_t near) {
    const std::array<uint64_t, 12> edges = {
        0,    1,      near,       near - 1,   near + 1,   near / 2,
        0xff, 0xffff, 0x7fffffff, 0xffffffff, UINT64_MAX, UINT64_MAX - near + 1};
    return one_in(3) ? next() >> below(64) : pick(edges);
  }

 private:
  uint64_t state_;
};

// A few changes: bits, bytes, pieces cut, doubled or replaced by words the reader knows.
inline std::string mutate(Random& random, std::string text, const std::vector<std::string>& words) {
  for (uint64_t changes = 1 + random.below(4); changes > 0; --changes) {
    const size_t at = random.below(text.size() + 1);
    const size_t length = std::min<size_t>(random.below(1 + random.below(40)), text.size() - at);
    switch (random.below(7)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << random.below(8)));
        break;
      case 1:
        text.insert(at, 1, static_cast<char>(random.next()));
        break;
      case 2:
        text.erase(at, length);
        break;
      case 3:
        text.resize(at);
        break;
      case 4:
        text.insert(at, text.substr(at, length));
        break;
      default:
        text.replace(at, length, random.pick(words));
        break;
    }
  }
  return text;
}

}  // namespace xhal::fuzz
