// SPDX-License-Identifier: Apache-2.0
#include "interrupt.h"

#include <torch/csrc/utils/pybind.h>
#include <unistd.h>

namespace xhal_torch {
namespace {

bool is_main_thread() { return ::gettid() == ::getpid() && Py_IsInitialized() != 0; }

}  // namespace

void throw_if_interrupted() {
  if (!is_main_thread()) return;
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

bool interrupted_for_later() noexcept {
  if (!is_main_thread()) return false;
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() == 0) return false;
  PyErr_Clear();
  PyErr_SetInterrupt();
  return true;
}

struct GilReleased::Released {
  py::gil_scoped_release release;
};

GilReleased::GilReleased() {
  if (Py_IsInitialized() != 0 && PyGILState_Check() != 0) released_ = std::make_unique<Released>();
}

GilReleased::~GilReleased() = default;

}  // namespace xhal_torch
