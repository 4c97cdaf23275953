// SPDX-License-Identifier: Apache-2.0
#include "report.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "measure.hpp"

namespace xhal::bench {
namespace {

// Three digits that count, no exponent.
std::string number(double value) {
  const double size = std::fabs(value);
  const int decimals = size >= 100 || value == 0 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3;
  return fmt::format("{:.{}f}", value, decimals);
}

std::string in_unit(std::optional<double> value, const std::string& unit) {
  return value ? number(*value) + " " + unit : "-";
}

std::optional<double> middle(const std::vector<double>& samples) {
  if (samples.empty()) return std::nullopt;
  const double value = median(samples);
  return std::isfinite(value) ? std::optional(value) : std::nullopt;
}

std::optional<double> judged_by(const Goal& goal, const Row& row) {
  return goal.of == Goal::Of::value ? row.value() : row.ratio();
}

bool holds(const Goal& goal, double judged) {
  return goal.at_most ? judged <= goal.limit : judged >= goal.limit;
}

// "met", "MISSED by 12 %", "MISSED 40-fold", or why there is no verdict.
std::string verdict(const Row& row) {
  if (!row.not_here.empty()) return "NOT HERE";
  if (!row.complete()) return "NO VALUE";
  const auto met = row.met();
  if (!met) return "";
  if (*met) return "met";
  const double by = *row.missed_by();
  for (const auto& part : row.goal.parts()) {
    if (part.limit == 0) return "MISSED by " + in_unit(by, row.unit);
  }
  if (by >= 9) return fmt::format("MISSED {:.0f}-fold", by + 1);
  return fmt::format("MISSED by {:.{}f} %", 100 * by, by < 0.1 ? 1 : 0);
}

size_t columns_of(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

}  // namespace

std::string Goal::text(const std::string& unit) const {
  if (of == Of::none) return "";
  const char* sign = at_most ? "<=" : ">=";
  if (!whose.empty()) return fmt::format("{} {:.2f}x ({})", sign, limit, whose);
  return of == Of::value ? fmt::format("{} {:g} {}", sign, limit, unit)
                         : fmt::format("{} {:g}x peer", sign, limit);
}

std::string Goals::text(const std::string& unit) const {
  std::string all;
  for (const auto& part : parts_) all += (all.empty() ? "" : ", ") + part.text(unit);
  return all;
}

std::optional<double> Row::value() const { return middle(samples); }
std::optional<double> Row::peer_value() const { return middle(peer_samples); }

std::optional<double> Row::ratio() const {
  const auto ours = value(), theirs = peer_value();
  if (!ours || !theirs || *theirs == 0) return std::nullopt;
  return *ours / *theirs;
}

double Row::spread_of_value() const { return samples.empty() ? 0 : spread(samples); }

bool Row::complete() const {
  return !not_here.empty() || (value() && (peer.empty() || peer_value()));
}

std::optional<bool> Row::met() const {
  if (goal.empty()) return std::nullopt;
  bool all = true;
  for (const auto& part : goal.parts()) {
    const auto judged = judged_by(part, *this);
    if (!judged) return std::nullopt;
    all = all && holds(part, *judged);
  }
  return all;
}

std::optional<double> Row::missed_by() const {
  std::optional<double> most;
  for (const auto& part : goal.parts()) {
    const auto judged = judged_by(part, *this);
    if (!judged || holds(part, *judged)) continue;
    const double by =
        part.limit == 0 ? std::fabs(*judged) : std::fabs(*judged - part.limit) / part.limit;
    most = std::max(most.value_or(by), by);
  }
  return most;
}

void Report::add(Row row) { rows_.push_back(std::move(row)); }

bool Report::complete() const {
  return !rows_.empty() &&
         std::all_of(rows_.begin(), rows_.end(), [](const Row& row) { return row.complete(); });
}

std::string Report::table() const {
  std::vector<std::vector<std::string>> cells = {
      {"METRIC", "VALUE", "SPREAD", "PEER", "", "RATIO", "GOAL", "", "N"}};
  for (const auto& row : rows_) {
    const auto ratio = row.ratio();
    cells.push_back(
        {row.metric, in_unit(row.value(), row.unit),
         row.samples.size() > 1 ? fmt::format("{:.0f} %", 100 * row.spread_of_value()) : "-",
         row.peer.empty() ? "-" : row.peer,
         row.peer.empty() ? "" : in_unit(row.peer_value(), row.unit),
         ratio ? fmt::format("{:.2f}x", *ratio) : "-", row.goal.text(row.unit), verdict(row),
         std::to_string(row.samples.size())});
  }
  std::vector<size_t> widths(cells[0].size());
  for (const auto& line : cells) {
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], columns_of(line[i]));
  }
  const auto right = [](size_t column) {
    return column == 1 || column == 2 || column == 4 || column == 5 || column == 8;
  };
  std::string text = title_ + "\n";
  for (const auto& fact : facts_) text += "  " + fact + "\n";
  text += "\n";
  for (const auto& line : cells) {
    std::string out;
    for (size_t i = 0; i < line.size(); ++i) {
      const std::string blanks(widths[i] - columns_of(line[i]), ' ');
      out += (i == 0 ? "" : "  ") + (right(i) ? blanks + line[i] : line[i] + blanks);
    }
    out.erase(out.find_last_not_of(' ') + 1);
    text += out + "\n";
  }
  std::string notes;
  size_t met = 0, missed = 0, empty = 0, not_here = 0;
  for (const auto& row : rows_) {
    if (row.met()) ++(*row.met() ? met : missed);
    if (!row.not_here.empty()) {
      ++not_here;
      notes += fmt::format("  {}: this machine cannot tell: {}\n", row.metric, row.not_here);
    } else if (!row.complete()) {
      ++empty;
      notes +=
          fmt::format("  {}: no value{}: {}\n", row.metric, row.value() ? " of " + row.peer : "",
                      row.failed.empty() ? "nothing was measured" : row.failed);
    } else if (!row.note.empty()) {
      const auto line = fmt::format("  {}: {}\n", row.metric, row.note);
      if (notes.find(line) == notes.npos) notes += line;  // a metric has a row a peer
    }
  }
  if (!notes.empty()) text += "\n" + notes;
  text +=
      fmt::format("\n{} goals met, {} missed, {} rows without a value, {} not on this machine\n",
                  met, missed, empty, not_here);
  return text;
}

std::string Report::json() const {
  auto list = nlohmann::ordered_json::array();
  const auto optional = [](const auto& value) {
    return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
  };
  for (const auto& row : rows_) {
    nlohmann::ordered_json entry;
    entry["metric"] = row.metric;
    entry["value"] = optional(row.value());
    entry["unit"] = row.unit;
    entry["peer"] = row.peer.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(row.peer);
    entry["peer_value"] = optional(row.peer_value());
    entry["ratio"] = optional(row.ratio());
    entry["goal"] = row.goal.empty() ? nlohmann::ordered_json()
                                     : nlohmann::ordered_json(row.goal.text(row.unit));
    entry["met"] = optional(row.met());
    entry["missed_by"] = optional(row.missed_by());
    entry["n"] = row.samples.size();
    entry["spread"] = row.spread_of_value();
    if (!row.note.empty()) entry["note"] = row.note;
    if (!row.failed.empty()) entry["failed"] = row.failed;
    if (!row.not_here.empty()) entry["not_here"] = row.not_here;
    list.push_back(std::move(entry));
  }
  return list.dump(1) + "\n";
}

int Report::finish(const std::string& path) const {
  fmt::print("{}", table());
  std::fflush(stdout);
  if (!path.empty()) {
    std::FILE* file = std::fopen(path.c_str(), "we");
    const std::string text = json();
    const bool written =
        file != nullptr && std::fwrite(text.data(), 1, text.size(), file) == text.size();
    if (file == nullptr || std::fclose(file) != 0 || !written) {
      fmt::print(stderr, "bench: {} could not be written; choose another file for --json\n", path);
      return 1;
    }
  }
  return complete() ? 0 : 1;
}

}  // namespace xhal::bench
