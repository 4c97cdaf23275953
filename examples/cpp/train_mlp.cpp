// SPDX-License-Identifier: Apache-2.0
// train_mlp.cpp: trains a small network on an xHAL device, in C++20 with xhal.hpp: the task of
// examples/c/train_mlp.c (two spirals), with the whole training step recorded as a graph and
// replayed where the device can do that.
//
//   c++ -std=c++20 train_mlp.cpp -lxhal -o train_mlp && ./train_mlp
//
// Exit status: 0 when more than 95 % of new points are told apart, else 1.
#include <cmath>
#include <cstdio>
#include <random>
#include <span>

#include "xhal/xhal.hpp"

namespace {

constexpr int64_t kPoints = 512, kHidden = 64;
constexpr int kSteps = 400;

struct Tensor {
  xhal_tensor_desc desc;
  uint64_t address;
  // The same numbers, read the other way round.
  Tensor transposed() const {
    Tensor t = *this;
    std::swap(t.desc.sizes[0], t.desc.sizes[1]);
    std::swap(t.desc.strides[0], t.desc.strides[1]);
    return t;
  }
};
using Group = std::vector<Tensor>;

// A device with a pool to take tensors from and a stream that everything happens on.
class Machine {
 public:
  Machine() : device_(0), stream_(device_.stream()), pool_(device_.pool()) {}

  xhal_device_info info() const { return device_.info(); }
  xhal_context* context() const { return device_.context(); }
  xhal_stream* stream() const { return stream_.get(); }

  // Kept as long as the machine.
  uint64_t allocate(uint64_t bytes) {
    blocks_.emplace_back(pool_.get(), stream(), bytes, "train_mlp");
    return blocks_.back().address();
  }
  Tensor zeros(const std::vector<int64_t>& sizes, uint8_t code = XHAL_CODE_FLOAT,
               uint8_t bits = 32) {
    Tensor t{xhal::tensor(code, bits, sizes), 0};
    uint64_t bytes = bits / 8;
    for (const auto size : sizes) bytes *= static_cast<uint64_t>(size);
    t.address = allocate(bytes);
    xhal::check(xhal_stream_fill(stream(), t.address, bytes, 0, 1));
    return t;
  }
  template <class T>
  void write(const Tensor& to, std::span<const T> from) {
    xhal::upload(stream(), to.address, from);
  }
  template <class T>
  std::vector<T> read(const Tensor& from, size_t count) {
    return xhal::download<T>(stream(), from.address, count);
  }

 private:
  xhal::Device device_;
  xhal::Stream stream_;
  xhal::Pool pool_;
  std::vector<xhal::Block> blocks_;
};

// Prepared operators with their operands, launched one after the other.
class Program {
 public:
  explicit Program(Machine& machine) : machine_(machine) {}

  void add(uint32_t id, const std::vector<Group>& groups,
           const std::vector<xhal_attribute>& attributes = {},
           std::vector<xhal_scalar> scalars = {}) {
    std::vector<std::vector<xhal_tensor_desc>> descs;
    std::vector<uint64_t> addresses;
    for (const auto& group : groups) {
      auto& list = descs.emplace_back();
      for (const auto& t : group) {
        list.push_back(t.desc);
        addresses.push_back(t.address);
      }
    }
    auto op = xhal::prepare(machine_.context(), id, descs, attributes);
    xhal_op_properties properties{};
    properties.struct_size = sizeof properties;
    xhal::check(xhal_op_query(op.get(), &properties, nullptr, 0));
    const uint64_t workspace = machine_.allocate(properties.workspace_bytes);
    steps_.push_back({std::move(op), addresses, std::move(scalars), workspace});
  }
  void run() const {
    for (const auto& s : steps_) {
      xhal::check(xhal_op_launch(machine_.stream(), s.op.get(), s.addresses.data(),
                                 static_cast<uint32_t>(s.addresses.size()), s.scalars.data(),
                                 static_cast<uint32_t>(s.scalars.size()), s.workspace));
    }
  }

 private:
  struct Step {
    xhal::Op op;
    std::vector<uint64_t> addresses;
    std::vector<xhal_scalar> scalars;
    uint64_t workspace;
  };
  Machine& machine_;
  std::vector<Step> steps_;
};

struct Layer {
  Tensor weight, bias, dweight, dbias, out, dout;
};

struct Network {
  Network(Machine& m, std::mt19937& random) {
    const int64_t sizes[] = {2, kHidden, kHidden, 2};
    for (int i = 0; i < 3; ++i) {
      const int64_t in = sizes[i], out = sizes[i + 1];
      layers.push_back({m.zeros({in, out}), m.zeros({out}), m.zeros({in, out}), m.zeros({out}),
                        m.zeros({kPoints, out}), m.zeros({kPoints, out})});
      std::uniform_real_distribution<float> values(-1, 1);
      std::vector<float> weights(static_cast<size_t>(in * out));
      for (auto& w : weights) w = values(random) * std::sqrt(3.0f / static_cast<float>(in));
      m.write<float>(layers.back().weight, weights);
    }
  }

  void forward(Program& p, const Tensor& points) const {
    for (size_t i = 0; i < layers.size(); ++i) {
      const auto& l = layers[i];
      const int64_t relu = i + 1 < layers.size() ? 1 : 0;
      p.add(XHAL_OP_gemm,
            {{i == 0 ? points : layers[i - 1].out}, {l.weight}, {}, {l.bias}, {l.out}},
            {xhal::attribute(0, relu)});
    }
  }
  void backward(Program& p, const Tensor& points) const {
    for (size_t i = layers.size(); i-- > 0;) {
      const auto& l = layers[i];
      const Tensor& in = i == 0 ? points : layers[i - 1].out;
      p.add(XHAL_OP_gemm, {{in.transposed()}, {l.dout}, {}, {}, {l.dweight}});
      p.add(XHAL_OP_sum, {{l.dout}, {l.dbias}}, {xhal::attribute(0, std::vector<int64_t>{0})});
      if (i == 0) break;
      const Tensor& din = layers[i - 1].dout;
      p.add(XHAL_OP_gemm, {{l.dout}, {l.weight.transposed()}, {}, {}, {din}});
      p.add(XHAL_OP_threshold_grad, {{din}, {in}, {din}});  // relu passed nothing where it gave 0
    }
  }
  // AdamW for all parameters in one launch, in place: outputs are the same tensors as inputs.
  void update(Program& p, Machine& m, double lr) const {
    Group params, grads, first, second, steps;
    for (const auto& l : layers) {
      for (const auto& [param, grad] :
           {std::pair{l.weight, l.dweight}, std::pair{l.bias, l.dbias}}) {
        const auto& d = param.desc;
        const std::vector<int64_t> sizes(d.sizes, d.sizes + d.ndim);
        params.push_back(param);
        grads.push_back(grad);
        first.push_back(m.zeros(sizes));
        second.push_back(m.zeros(sizes));
        steps.push_back(m.zeros({}));
      }
    }
    p.add(XHAL_OP_multi_adamw,
          {params, grads, first, second, {}, steps, {}, params, first, second, {}, steps}, {},
          {xhal::scalar(lr)});
  }

  std::vector<Layer> layers;
};

struct Spirals {
  explicit Spirals(std::mt19937& random) {
    std::uniform_real_distribution<float> noise(-0.1f, 0.1f);
    for (int64_t i = 0; i < kPoints; ++i) {
      const float along = static_cast<float>(i / 2) / (kPoints / 2), radius = 0.2f + 0.8f * along;
      const float angle = 12 * along + (i % 2 == 0 ? 0.0f : 3.14159265f) + noise(random);
      points.insert(points.end(), {radius * std::cos(angle), radius * std::sin(angle)});
      classes.push_back(i % 2);
    }
  }
  double right(const std::vector<float>& scores) const {
    int count = 0;
    for (size_t i = 0; i < classes.size(); ++i)
      count += (scores[2 * i + 1] > scores[2 * i]) == (classes[i] == 1);
    return static_cast<double>(count) / kPoints;
  }
  std::vector<float> points;
  std::vector<int64_t> classes;
};

// Records what `program` submits instead of running it; nullptr where the device has no graphs.
xhal::Graph record(const Machine& machine, const Program& program) {
  if ((machine.info().capabilities[0] & (1u << XHAL_CAP_GRAPH)) == 0) return nullptr;
  xhal::Capture capture(machine.stream());
  program.run();
  return capture.end();
}

int train() {
  const xhal::Session session;
  Machine machine;
  std::mt19937 random(1);
  const Spirals known(random), fresh(random);
  const Network network(machine, random);
  const Layer& last = network.layers.back();
  const Tensor points = machine.zeros({kPoints, 2}),
               classes = machine.zeros({kPoints}, XHAL_CODE_INT, 64);
  const Tensor loss = machine.zeros({}), log_sum = machine.zeros({kPoints}),
               dloss = machine.zeros({});
  machine.write<float>(points, known.points);
  machine.write<int64_t>(classes, known.classes);
  machine.write<float>(dloss, std::vector{1.0f});

  Program forward(machine), step(machine);
  network.forward(forward, points);
  network.forward(step, points);
  step.add(XHAL_OP_cross_entropy, {{last.out}, {classes}, {loss}, {log_sum}});
  step.add(XHAL_OP_cross_entropy_grad, {{dloss}, {last.out}, {classes}, {log_sum}, {last.dout}});
  network.backward(step, points);
  network.update(step, machine, 1e-2);

  const auto graph = record(machine, step);
  uint64_t nodes = 0;
  if (graph) xhal::check(xhal_graph_size(graph.get(), &nodes));
  std::printf("training on %s, %s; a step is %s\n", machine.info().id, machine.info().name,
              graph ? ("a graph of " + std::to_string(nodes) + " nodes").c_str()
                    : "launched operator by operator");
  for (int i = 0; i <= kSteps; ++i) {
    if (graph)
      xhal::launch(machine.stream(), graph);
    else
      step.run();
    if (i % 50 == 0)
      std::printf("step %3d  loss %.4f\n", i, static_cast<double>(machine.read<float>(loss, 1)[0]));
  }

  machine.write<float>(points, fresh.points);
  forward.run();
  const double right = fresh.right(machine.read<float>(last.out, 2 * kPoints));
  std::printf("accuracy on new points: %.1f %%\n", 100 * right);
  return right > 0.95 ? 0 : 1;
}

}  // namespace

int main() {
  try {
    return train();
  } catch (const xhal::Error& error) {
    std::fprintf(stderr, "%s: %s\n", xhal_status_name(error.info.status), error.what());
    return 1;
  }
}
