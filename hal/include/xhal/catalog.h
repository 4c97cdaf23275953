/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/catalog.h: the operators by number; ops.inc is the list, and says what each one does. */
#ifndef XHAL_CATALOG_H
#define XHAL_CATALOG_H

enum {
#define XHAL_OP(name, id, version, inputs, outputs, attributes, scalars, shape, alias, \
                determinism, tolerance, flops, bytes, prose)                           \
  XHAL_OP_##name = id,
#include "xhal/ops.inc"
#undef XHAL_OP
};

#endif
