// SPDX-License-Identifier: Apache-2.0
// report.hpp: the rows of a benchmark: a table for eyes, JSON for machines, and the exit status.
//
// ratio is value / peer_value in the row's unit, so for times less is better and for rates more;
// the goal says which. A missed goal is a finding of the run, not a failure; a row that names a
// peer and has no value of it, or none of its own, fails the run: nobody may take silence for a
// comparison. A row that this machine cannot give (no second processor, no such instruction) says
// so and fails nothing.
#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

namespace xhal::bench {

// A limit on the value or on the ratio; default: none.
struct Goal {
  enum class Of { none, value, ratio };
  Of of = Of::none;
  bool at_most = true;
  double limit = 0;
  std::string whose{};  // where a limit comes from that this run has measured

  static Goal value_at_most(double limit) { return {Of::value, true, limit}; }
  static Goal value_at_least(double limit) { return {Of::value, false, limit}; }
  static Goal ratio_at_most(double limit, std::string whose = {}) {
    return {Of::ratio, true, limit, std::move(whose)};
  }
  static Goal ratio_at_least(double limit) { return {Of::ratio, false, limit}; }
  std::string text(const std::string& unit) const;
};

// What a row is judged by: all parts must hold. One goal is a list of one.
class Goals {
 public:
  Goals() = default;
  Goals(Goal goal) { add(std::move(goal)); }
  void add(Goal goal) {
    if (goal.of != Goal::Of::none) parts_.push_back(std::move(goal));
  }
  const std::vector<Goal>& parts() const { return parts_; }
  bool empty() const { return parts_.empty(); }
  std::string text(const std::string& unit) const;

 private:
  std::vector<Goal> parts_;
};

struct Row {
  std::string metric{}, unit{}, peer{};  // peer empty: nothing to compare with
  Goals goal{};
  std::vector<double> samples{}, peer_samples{};
  std::string failed{};    // why there is no value, or none of the peer
  std::string not_here{};  // why this machine cannot give the figure
  std::string note{};      // what a reader must know to judge the figure

  std::optional<double> value() const;
  std::optional<double> peer_value() const;
  std::optional<double> ratio() const;
  double spread_of_value() const;
  bool complete() const;  // has every value it promises, or says why this machine has none
  std::optional<bool> met() const;  // nothing when there is no goal or no value
  // How far the value is from the part of the goal that it misses most, as a part of the limit
  // (of a limit of 0: the value itself). Nothing when nothing is missed.
  std::optional<double> missed_by() const;
};

class Report {
 public:
  explicit Report(std::string title) : title_(std::move(title)) {}
  void add(Row row);
  // Facts about the machine that figures depend on: printed above the table.
  void fact(std::string line) { facts_.push_back(std::move(line)); }
  const std::vector<Row>& rows() const { return rows_; }

  std::string table() const;
  std::string json() const;
  bool complete() const;
  // Prints the table; writes the JSON when `path` is not empty. 0, or 1 when a row is not complete
  // or the file could not be written.
  int finish(const std::string& path) const;

 private:
  std::string title_;
  std::vector<std::string> facts_;
  std::vector<Row> rows_;
};

}  // namespace xhal::bench
