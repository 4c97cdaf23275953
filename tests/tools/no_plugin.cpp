// SPDX-License-Identifier: Apache-2.0
// no_plugin.cpp: a library that is no plugin.
extern "C" __attribute__((visibility("default"))) int xhal_test_nothing() { return 0; }
