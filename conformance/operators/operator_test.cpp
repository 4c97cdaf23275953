// SPDX-License-Identifier: Apache-2.0
#include "operators/operator_test.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "harness/cts.hpp"

namespace xhal::cts {
namespace {

using ref::DType;
using ref::Problem;
using ref::Sizes;
using ref::Tensor;

class TrainingTest : public testing::Test {
 public:
  TrainingTest(const OpTest& test, DType dtype, Case layout)
      : test_(test), dtype_(dtype), case_(layout) {}

  void TestBody() override {
    Maker maker(case_, dtype_,
                test_.id * 64 + static_cast<uint32_t>(dtype_) * 8 + static_cast<uint32_t>(case_));
    auto problems = test_.problems(maker);
    ASSERT_FALSE(problems.empty());
    for (auto& problem : problems) {
      problem.op = test_.id;
      complete(problem);
      if (!run_all_aliases(problem)) return;
    }
    EXPECT_TRUE(case_ != Case::aliased || ran_in_place_)
        << "the suite has no problem here that can run in place";
  }

 private:
  // Absent groups at the end need not be written down.
  static void complete(Problem& p) {
    p.inputs.resize(operator_of(p.op).inputs.size());
    p.outputs.resize(operator_of(p.op).outputs.size());
  }

  // False when the plugin refused, which ends the test.
  bool run_all_aliases(Problem& problem) {
    if (case_ != Case::aliased) return run(problem, 0);
    const auto& op = operator_of(problem.op);
    for (size_t alias = 0; alias < op.aliases.size(); ++alias) {
      if (!can_alias(problem, alias)) continue;
      ran_in_place_ = true;
      if (!run(problem, alias)) return false;
      if (op.in_place_together) break;
    }
    return true;
  }

  bool run(Problem& problem, size_t alias) {
    cts::Run how;
    how.layout = case_;
    how.negative_strides = test_.negative_strides;
    how.scalars_by_address = case_ == Case::odd;
    how.alias = alias;
    const auto outcome = run_problem(problem, test_.reference, how);
    if (outcome.refused) {
      RecordProperty("refused", outcome.reason);
      [&] { GTEST_SKIP() << "refused: " << outcome.reason; }();
      return false;
    }
    if (test_.judge && !outcome.outputs.empty()) test_.judge(problem, outcome.outputs);
    return true;
  }

  const OpTest& test_;
  const DType dtype_;
  const Case case_;
  bool ran_in_place_ = false;
};

// op.h: "An attribute left out has the default the catalogue states."
class DefaultsTest : public testing::Test {
 public:
  explicit DefaultsTest(const OpTest& test) : test_(test) {}

  void TestBody() override {
    bool ran = false, supported = false;
    for (auto& problem : problems()) {
      const auto found = compare_defaults(problem);
      EXPECT_TRUE(found.problem.empty()) << found.problem;
      ran = ran || found.ran;
      if (ran) continue;
      supported = supported || !run_problem(problem, nullptr, {}).refused;
    }
    if (!ran && !supported) GTEST_SKIP() << "the plugin does not have the operator";
    EXPECT_TRUE(ran) << "the suite has no problem here that fits the defaults";
  }

 private:
  std::vector<Problem> problems() const {
    Maker maker(Case::plain, test_.dtypes.front(), test_.id);
    auto made = test_.problems(maker);
    for (auto& problem : made) {
      problem.op = test_.id;
      problem.inputs.resize(operator_of(test_.id).inputs.size());
      problem.outputs.resize(operator_of(test_.id).outputs.size());
    }
    return made;
  }

  const OpTest& test_;
};

const OpTests& all_tests() {
  static const OpTests tests = [] {
    OpTests made;
    add_pointwise_tests(made);
    add_reduce_tests(made);
    add_matrix_tests(made);
    add_loss_tests(made);
    add_norm_tests(made);
    add_index_tests(made);
    add_window_tests(made);
    add_recurrent_tests(made);
    add_random_tests(made);
    add_optimizer_tests(made);
    return made;
  }();
  return tests;
}

class CatalogueTest : public testing::Test {
 public:
  // An operator that nobody wrote a test for must not look tested.
  void TestBody() override {
    std::set<uint32_t> tested;
    for (const auto& test : all_tests()) tested.insert(test.id);
    for (const auto& op : catalogue())
      EXPECT_TRUE(tested.count(op.id) == 1) << op.name << " has no test";
  }
};

}  // namespace

void register_training_tests() {
  testing::RegisterTest("training", "every operator of the catalogue is tested", nullptr, nullptr,
                        __FILE__, __LINE__, []() -> testing::Test* { return new CatalogueTest; });
  for (const auto& test : all_tests()) {
    const auto& op = operator_of(test.id);
    const bool has_defaults = std::any_of(op.attributes.begin(), op.attributes.end(),
                                          [](const auto& rule) { return !rule.is_list(); });
    if (has_defaults) {
      testing::RegisterTest("training", (op.name + "/defaults").c_str(), nullptr, nullptr, __FILE__,
                            __LINE__,
                            [&test]() -> testing::Test* { return new DefaultsTest(test); });
    }
    for (const auto dtype : test.dtypes) {
      for (unsigned c = 0; c < 6; ++c) {
        const auto layout = static_cast<Case>(c);
        if ((test.cases & bit(layout)) == 0 || (layout == Case::aliased && op.aliases.empty()))
          continue;
        const auto name = op.name + "/" + std::string(ref::name_of(dtype)) + "/" + name_of(layout);
        testing::RegisterTest("training", name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                              [&test, dtype, layout]() -> testing::Test* {
                                return new TrainingTest(test, dtype, layout);
                              });
      }
    }
  }
}

const std::vector<DType>& dtypes_of(char types) {
  static const std::vector<DType> floats = {DType::f32, DType::bf16, DType::f16};
  static const std::vector<DType> numbers = {DType::f32, DType::bf16, DType::f16, DType::i8,
                                             DType::u8,  DType::i16,  DType::i32, DType::i64};
  static const std::vector<DType> all = {DType::f32, DType::bf16, DType::f16,
                                         DType::i8,  DType::u8,   DType::i16,
                                         DType::i32, DType::i64,  DType::boolean};
  static const std::vector<DType> indices = {DType::i32, DType::i64};
  return types == 'F' ? floats : types == 'N' ? numbers : types == 'X' ? indices : all;
}

Sizes Maker::shape(Sizes sizes, size_t empty_dim) const {
  for (auto& size : sizes) {
    if (is(Case::odd) && size > 1 && size % 2 == 0) ++size;
  }
  if (is(Case::empty) && empty_dim < sizes.size()) sizes[empty_dim] = 0;
  return sizes;
}

Tensor Maker::real(DType type, const Sizes& sizes, double low, double high) {
  Tensor t(type, sizes);
  for (auto& v : t.values) v = ref::round_to(type, uniform(low, high));
  return t;
}

Tensor Maker::real(const Sizes& sizes, double low, double high) {
  return real(dtype, sizes, low, high);
}

Tensor Maker::integers(DType type, const Sizes& sizes, int64_t low, int64_t high) {
  Tensor t(type, sizes);
  for (auto& v : t.values) v = static_cast<double>(whole(low, high));
  return t;
}

Tensor Maker::flags(const Sizes& sizes) { return integers(DType::boolean, sizes, 0, 1); }

Tensor Maker::eighths(const Sizes& sizes, double low, double high) {
  Tensor t(dtype, sizes);
  for (auto& v : t.values)
    v = static_cast<double>(whole(static_cast<int64_t>(low * 8), static_cast<int64_t>(high * 8))) /
        8;
  return t;
}

Tensor Maker::any(const Sizes& sizes, double low, double high) {
  if (dtype == DType::boolean) return flags(sizes);
  if (real_numbers()) return real(sizes, low, high);
  return ref::is_unsigned(dtype) ? integers(dtype, sizes, 0, 9) : integers(dtype, sizes, -9, 9);
}

void Maker::sprinkle_specials(Tensor& t) const {
  if (!ref::is_float(t.dtype) || !(is(Case::plain) || is(Case::odd))) return;
  const double specials[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0};
  for (size_t i = 0; i < std::size(specials) && i < t.values.size(); ++i) t.values[i] = specials[i];
}

ref::Problem core_problem(uint32_t id, Maker& maker, const ref::Sizes& sizes) {
  ref::Problem p;
  p.op = id;
  if (id == XHAL_OP_fill) p.scalars = {int64_t{5}};
  if (id == XHAL_OP_strided_copy) p.inputs = {{maker.any(sizes)}};
  if (id == XHAL_OP_axpby) {
    p.inputs = {{maker.any(sizes)}, {maker.any(sizes)}};
    p.scalars = {int64_t{3}, int64_t{2}};
  }
  p.outputs = {{output(maker.dtype, sizes)}};
  return p;
}

}  // namespace xhal::cts
