// SPDX-License-Identifier: Apache-2.0
// copy.hpp: one strided, converting copy, cut into units that can run in any order.
#pragma once

#include "convert.hpp"
#include "iterate.hpp"

namespace xhal::cpu {

class CopyTask {
 public:
  CopyTask(const xhal_tensor_desc& to, const xhal_tensor_desc& from);

  int64_t units() const { return units_; }
  int64_t unit_elements() const { return unit_elements_; }
  // Copies units [begin, end); the addresses are those of the descriptors' first elements.
  void run(void* to, const void* from, int64_t begin, int64_t end) const;

 private:
  enum class Way : uint8_t { rows, strided, transposed, converted };

  template <class T>
  void run_converted(char* to, const char* from, int64_t begin, int64_t end) const;
  template <class T>
  void run_strided(char* to, const char* from, int64_t begin, int64_t end) const;
  template <class T>
  void run_transposed(char* to, const char* from, int64_t begin, int64_t end) const;
  bool plan_transposition();

  bool streams_ = false;  // past the caches
  StreamCopyFn stream_copy_ = nullptr;
  IterPlan plan_;  // operand 0 is written, operand 1 read
  Way way_ = Way::rows;
  Compute compute_ = Compute::f32;
  bool writes_direct_ = false,
       reads_direct_ = false;  // one side already has the computing type, dense
  uint8_t to_size_, from_size_;
  int64_t units_, unit_elements_ = 1;
  // Transposed: the two dimensions of a tile are the innermost (dense in `to`) and this one
  // (dense in `from`).
  int across_ = 0;
  int64_t tiles_across_ = 0, tiles_along_ = 0;
  LoadFn<float> load_f32_ = nullptr;
  LoadFn<int64_t> load_i64_ = nullptr;
  LoadFn<double> load_f64_ = nullptr;
  StoreFn<float> store_f32_ = nullptr;
  StoreFn<int64_t> store_i64_ = nullptr;
  StoreFn<double> store_f64_ = nullptr;
};

}  // namespace xhal::cpu
