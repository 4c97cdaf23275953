// SPDX-License-Identifier: Apache-2.0
// table.hpp: text in aligned columns, coloured only for eyes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace xhal::tools {

enum class Colour { none, good, warning, bad, dim };

// Whether to colour: standard output is a terminal, and neither NO_COLOR nor TERM=dumb objects.
bool colours_wanted();
std::string paint(std::string_view text, Colour colour, bool colours);

struct Cell {
  Cell(std::string t, Colour c = Colour::none) : text(std::move(t)), colour(c) {}
  Cell(const char* t) : text(t) {}
  std::string text;
  Colour colour = Colour::none;
};

// Columns are as wide as their widest cell, two spaces apart; the last one is not padded.
class Table {
 public:
  enum class Align { left, right };
  void column(std::string title, Align align = Align::left) {
    columns_.push_back({std::move(title), align});
  }
  void row(std::vector<Cell> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.empty(); }
  std::string text(bool colours) const;

 private:
  struct Column {
    std::string title;
    Align align;
  };
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

// "32.0 GiB", "512 B": binary units, one decimal from KiB on.
std::string bytes_text(double bytes);

}  // namespace xhal::tools
