// SPDX-License-Identifier: Apache-2.0
#include "common/table.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>

#include "xhal_base/environment.hpp"

namespace xhal::tools {
namespace {

const char* code_of(Colour colour) {
  switch (colour) {
    case Colour::good:
      return "\033[32m";
    case Colour::warning:
      return "\033[33m";
    case Colour::bad:
      return "\033[31m";
    case Colour::dim:
      return "\033[2m";
    case Colour::none:
      break;
  }
  return "";
}

}  // namespace

bool colours_wanted() {
  const auto terminal = base::environment("TERM");
  return isatty(STDOUT_FILENO) == 1 && base::environment_text("NO_COLOR").empty() && terminal &&
         *terminal != "dumb";
}

std::string paint(std::string_view text, Colour colour, bool colours) {
  if (!colours || colour == Colour::none || text.empty()) return std::string(text);
  return fmt::format("{}{}\033[0m", code_of(colour), text);
}

std::string Table::text(bool colours) const {
  std::vector<size_t> widths;
  for (size_t c = 0; c < columns_.size(); ++c) {
    size_t width = columns_[c].title.size();
    for (const auto& row : rows_) width = std::max(width, row[c].text.size());
    widths.push_back(width);
  }
  std::string out;
  const auto line = [&](const auto& cell_of) {
    std::string built;
    for (size_t c = 0; c < columns_.size(); ++c) {
      const Cell& cell = cell_of(c);
      const std::string padding(widths[c] - cell.text.size(), ' ');
      const auto painted = paint(cell.text, cell.colour, colours);
      built += columns_[c].align == Align::right ? padding + painted : painted + padding;
      built += "  ";
    }
    built.erase(built.find_last_not_of(' ') + 1);
    out += built + '\n';
  };
  std::vector<Cell> titles;
  for (const auto& column : columns_) titles.emplace_back(column.title, Colour::dim);
  line([&](size_t c) -> const Cell& { return titles[c]; });
  for (const auto& row : rows_) line([&](size_t c) -> const Cell& { return row[c]; });
  return out;
}

std::string bytes_text(double bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < std::size(kUnits)) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

}  // namespace xhal::tools
