// report.hpp: the rows of a benchmark: a table for eyes, JSON for machines, and the exit status.
//
// ratio is value / peer_value in the row's unit, so for times less is better and for rates more;
// the goal says which. A missed goal is a finding of the run, not a failure; a row that names a
// peer and has no value of it, or none of its own, fails the run: nobody may take silence for a
// comparison.
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

  static Goal value_at_most(double limit) { return {Of::value, true, limit}; }
  static Goal value_at_least(double limit) { return {Of::value, false, limit}; }
  static Goal ratio_at_most(double limit) { return {Of::ratio, true, limit}; }
  static Goal ratio_at_least(double limit) { return {Of::ratio, false, limit}; }
  std::string text(const std::string& unit) const;
};

struct Row {
  std::string metric{}, unit{}, peer{};  // peer empty: nothing to compare with
  Goal goal{};
  std::vector<double> samples{}, peer_samples{};
  std::string failed{};  // why there is no value, or none of the peer
  std::string note{};    // what a reader must know to judge the figure

  std::optional<double> value() const;
  std::optional<double> peer_value() const;
  std::optional<double> ratio() const;
  double spread_of_value() const;
  bool complete() const;            // has every value it promises
  std::optional<bool> met() const;  // nothing when there is no goal or no value
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
