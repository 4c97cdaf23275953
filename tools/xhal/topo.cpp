// SPDX-License-Identifier: Apache-2.0
// topo.cpp: `xhal topo`: where the devices are, as a matrix of distances or as a tree.
#include <fmt/core.h>

#include <set>

#include "xhal/machine.hpp"
#include "xhal/visibility.hpp"

namespace xhal::tools {
namespace {

struct Placed {
  xhal_device_info info;
  int numa_node;
  std::string cpus;
};

struct Topology {
  std::vector<NumaNode> nodes;
  uint64_t memory_bytes;
  unsigned cores;
  std::vector<Placed> devices;
  std::vector<std::vector<Relation>> relations;  // [from][to]
};

Topology collect(const Survey& seen) {
  const Machine machine;
  Topology t{machine.numa_nodes(), machine.memory_bytes(), machine.cores(), {}, {}};
  for (const auto& d : seen.devices)
    t.devices.push_back({d.info, machine.numa_node_of(d.info), machine.cpus_of(d.info)});
  for (const auto& a : t.devices) {
    auto& row = t.relations.emplace_back();
    for (const auto& b : t.devices) row.push_back(machine.relation(a.info, b.info));
  }
  return t;
}

std::string or_dash(const std::string& text) { return text.empty() ? "-" : text; }
std::string node_text(int node) { return node < 0 ? "-" : std::to_string(node); }

Json to_json(const Topology& t) {
  Json json = {{"numa_nodes", Json::array()}, {"devices", Json::array()}, {"links", Json::array()}};
  for (const auto& n : t.nodes) {
    json["numa_nodes"].push_back(
        {{"number", n.number}, {"memory_bytes", n.memory_bytes}, {"cpus", n.cpus}});
  }
  std::set<Relation> seen;
  for (size_t a = 0; a < t.devices.size(); ++a) {
    const auto& d = t.devices[a];
    Json device = {{"id", d.info.id}, {"name", d.info.name}};
    device["numa_node"] = d.numa_node < 0 ? Json() : Json(d.numa_node);
    device["cpus"] = d.cpus.empty() ? Json() : Json(d.cpus);
    device["pci"] = d.info.pci[0] == 0 ? Json() : Json(d.info.pci);
    json["devices"].push_back(device);
    for (size_t b = 0; b < t.devices.size(); ++b) {
      if (a == b) continue;
      const auto relation = t.relations[a][b];
      seen.insert(relation);
      json["links"].push_back({{"from", d.info.id},
                               {"to", t.devices[b].info.id},
                               {"relation", relation_name(relation)}});
    }
  }
  json["legend"] = Json::object();
  for (const auto relation : seen)
    json["legend"][relation_name(relation)] = relation_meaning(relation);
  return json;
}

std::string render_matrix(const Topology& t, bool colours) {
  Table table;
  table.column("");
  for (const auto& d : t.devices) table.column(d.info.id);
  table.column("NUMA");
  table.column("CPU AFFINITY");
  std::set<Relation> seen;
  for (size_t a = 0; a < t.devices.size(); ++a) {
    std::vector<Cell> cells = {t.devices[a].info.id};
    for (const auto relation : t.relations[a]) {
      cells.emplace_back(relation_name(relation));
      seen.insert(relation);
    }
    cells.emplace_back(node_text(t.devices[a].numa_node));
    cells.emplace_back(or_dash(t.devices[a].cpus));
    table.row(std::move(cells));
  }
  auto text = table.text(colours) + "\n";
  for (const auto relation : seen)
    text += fmt::format("{:<5} {}\n", relation_name(relation), relation_meaning(relation));
  return text + "The same as a tree:  xhal topo --tree\n";
}

std::string device_line(const Placed& d) {
  const std::string_view pci = d.info.pci;
  return fmt::format("{}  {}{}{}", d.info.id, d.info.name, pci.empty() ? "" : "  ", pci);
}

std::string render_tree(const Topology& t) {
  auto text = fmt::format("{}: {} {}, {}\n", host_name(), t.cores, t.cores == 1 ? "core" : "cores",
                          bytes_text(static_cast<double>(t.memory_bytes)));
  std::vector<const Placed*> nowhere;
  for (const auto& d : t.devices) {
    bool known = false;
    for (const auto& n : t.nodes) known |= n.number == d.numa_node;
    if (!known) nowhere.push_back(&d);
  }
  for (size_t i = 0; i < t.nodes.size(); ++i) {
    const auto& n = t.nodes[i];
    const bool last = i + 1 == t.nodes.size() && nowhere.empty();
    text += fmt::format("{} NUMA node {}: {}, CPUs {}\n", last ? "`-" : "|-", n.number,
                        bytes_text(static_cast<double>(n.memory_bytes)), or_dash(n.cpus));
    std::vector<const Placed*> here;
    for (const auto& d : t.devices) {
      if (d.numa_node == n.number) here.push_back(&d);
    }
    for (const auto* d : here) {
      text += fmt::format("{}  {} {}\n", last ? " " : "|", d == here.back() ? "`-" : "|-",
                          device_line(*d));
    }
  }
  if (!nowhere.empty()) text += "`- place unknown\n";
  for (const auto* d : nowhere)
    text += fmt::format("   {} {}\n", d == nowhere.back() ? "`-" : "|-", device_line(*d));
  return text;
}

constexpr Option kOptions[] = {{"--tree", "as a tree"},
                               {"--matrix", "as a matrix of distances (the default)", "--tree"}};

Report show_topology(const Request& request) {
  const auto seen = survey({request.patience});
  const auto topology = collect(seen);
  Report report;
  report.data = to_json(topology);
  report.warnings = seen.warnings;
  for (const auto& d : seen.devices) {
    if (d.error.empty()) continue;
    report.warnings.push_back(fmt::format("{}: {}", d.info.id, d.error));
    report.status = kFinding;
  }
  if (!seen.broken().empty() || seen.unclean) report.status = kFinding;
  if (topology.devices.empty()) {
    if (report.status == kFine) report.status = kNoDevice;
    report_no_devices(seen, request, report);
    return report;
  }
  report.text =
      request.has("--tree") ? render_tree(topology) : render_matrix(topology, request.colours);
  return report;
}

}  // namespace

extern const Command topo_command = {"", "topo", "where the devices are and how near to each other",
                                     kOptions, show_topology};

}  // namespace xhal::tools
