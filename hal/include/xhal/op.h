/* SPDX-License-Identifier: Apache-2.0 */
/* xhal/op.h: operators: the first door to compute.
 *
 * An operator is prepared once for a set of shapes and formats and launched many times.
 * xhal_op_prepare takes the catalogue id (catalog.h), static attributes and tensor descriptors
 * without addresses; the xhal_op it returns is immutable, shareable between threads and streams and
 * made to be cached. Whatever changes from step to step (learning rate, seed, loss scale) is a
 * scalar given at launch, by value or by device address.
 *
 * Operands come in the groups the catalogue names, inputs first, then outputs; a group has 1, 0..1
 * ("?") or 0..n ("*") tensors. A group of size 0 is absent; a tensor of size 0 is merely empty. In
 * place means: the same address for an input and an output, where the catalogue's alias rule allows
 * it; any other overlap of an output is XHAL_ERR_OVERLAP under `validate` and undefined without.
 */
#ifndef XHAL_OP_H
#define XHAL_OP_H

#include "xhal/status.h"

XHAL_EXTERN_C_BEGIN

#define XHAL_MAX_DIMENSIONS 8

enum {
  /* inside a list group: no tensor at this position */
  XHAL_TENSOR_ABSENT = 1u << 0,
  /* output: sizes[0] is a bound, the true one is written to the operator's count output */
  XHAL_TENSOR_BOUNDED = 1u << 1
};

/* Describes a tensor. Frozen: it is used in arrays. Sizes and strides count elements; strides may
 * be zero (broadcast) or negative. At prepare `address` is ignored; element [0,..] is at address +
 * offset_elements * bits / 8. */
typedef struct xhal_tensor_desc {
  uint64_t address;
  int64_t offset_elements;
  uint8_t code; /* XHAL_CODE_* */
  uint8_t bits;
  uint16_t lanes;  /* 1 */
  uint32_t layout; /* 0 = strided; other values are a plugin's private layouts */
  uint32_t ndim;
  uint32_t flags;
  int64_t sizes[XHAL_MAX_DIMENSIONS];
  int64_t strides[XHAL_MAX_DIMENSIONS];
  uint64_t reserved[4];
} xhal_tensor_desc;

enum { XHAL_ATTR_INT = 1, XHAL_ATTR_FLOAT = 2, XHAL_ATTR_INTS = 3, XHAL_ATTR_FLOATS = 4 };

/* A static attribute, by its position in the catalogue's list for the operator. An attribute left
 * out has the default the catalogue states. Frozen. */
typedef struct xhal_attribute {
  uint32_t index;
  uint32_t kind; /* XHAL_ATTR_* */
  union {
    int64_t i;
    double f;
    const int64_t* ints;
    const double* floats;
  } value;
  uint64_t count; /* of ints or floats; 1 otherwise */
} xhal_attribute;

typedef struct xhal_op_info {
  uint32_t struct_size;
  uint32_t type; /* 0 */
  const xhal_chain* next;
  uint32_t id;      /* XHAL_OP_* */
  uint32_t version; /* of the operator; 0 = newest */
  uint32_t flags;   /* XHAL_OP_DETERMINISTIC: refuse rather than be run-to-run different */
  uint32_t attribute_count;
  const xhal_attribute* attributes;
  uint32_t group_count;             /* as in the catalogue */
  uint32_t operand_count;           /* sum of group_sizes */
  const uint32_t* group_sizes;      /* [group_count] */
  const xhal_tensor_desc* operands; /* [operand_count], group after group */
} xhal_op_info;

enum { XHAL_OP_DETERMINISTIC = 1u << 0 };

/* Prepares an operator. Returns XHAL_OK, or refuses:
 *   UNSUPPORTED: this plugin cannot (operator, dtype, layout); the error record's `operand` and
 *   text say which and why; INVALID_ARGUMENT: the request contradicts the catalogue (wrong group
 *   size, shape, dtype or attribute).
 * Thread: any.   Blocks: may compile.   Lifetime: until destroyed; the arrays for the
 * call.   Since: 0.1 */
XHAL_API xhal_status xhal_op_prepare(xhal_context* context, const xhal_op_info* info, xhal_op** op);

enum {
  XHAL_NEED_AS_IS = 0,
  /* would run, or run much faster, if this operand were contiguous */
  XHAL_NEED_CONTIGUOUS = 1u << 0,
  XHAL_NEED_DTYPE = 1u << 1,
  XHAL_NEED_ALIGNED = 1u << 2
};

/* What one operand should be like. Frozen. */
typedef struct xhal_operand_need {
  uint32_t need; /* XHAL_NEED_* */
  uint8_t code, bits;
  uint16_t reserved0;
  uint32_t alignment_bytes;
  /* 1 + index of the first input present that this output may share its address with; 0 = none.
   * The catalogue may allow others besides ("out=a out=b"). */
  uint32_t may_alias;
} xhal_operand_need;

enum { XHAL_OP_IS_DETERMINISTIC = 1u << 0, XHAL_OP_IS_CAPTURABLE = 1u << 1 };

typedef struct xhal_op_properties {
  uint32_t struct_size;
  uint32_t flags; /* XHAL_OP_IS_* */
  uint64_t workspace_bytes;
  double flops, bytes; /* of one launch, by the catalogue's cost formula */
} xhal_op_properties;

/* Tells what a prepared operator needs. `needs` has room for `need_capacity` operands and may be
 * NULL when that is 0. Thread: any.   Blocks: no.   Since: 0.1 */
XHAL_API xhal_status xhal_op_query(xhal_op* op, xhal_op_properties* properties,
                                   xhal_operand_need* needs, uint32_t need_capacity);

/* Destroys it; work already submitted with it still runs. Thread: external sync with launches.
 * Blocks: no. Since: 0.1 */
XHAL_API xhal_status xhal_op_destroy(xhal_op* op);

enum { XHAL_SCALAR_INT = 0, XHAL_SCALAR_FLOAT = 1, XHAL_SCALAR_ADDRESS = 2 };

/* A launch-time scalar, by its position in the catalogue's list. With XHAL_SCALAR_ADDRESS the value
 * is read on the device when the operator runs, from an element of type `code`/`bits`. Frozen. */
typedef struct xhal_scalar {
  uint32_t kind;
  uint8_t code, bits;
  uint16_t reserved0;
  union {
    int64_t i;
    double f;
    uint64_t address;
  } value;
} xhal_scalar;

/* Submits one run. `addresses` has one entry per operand, in prepare's order (offset_elements of
 * the descriptor is added); `scalars` one per scalar of the catalogue (fewer = the rest have their
 * defaults); `workspace` an address with at least workspace_bytes, reusable in stream order.
 * Errors: INVALID_ARGUMENT (counts), FOREIGN_HANDLE, CAPTURE, the stream's failure.
 * Thread: any.   Blocks: no.   Lifetime: the arrays for the call.   Since: 0.1 */
XHAL_API xhal_status xhal_op_launch(xhal_stream* stream, xhal_op* op, const uint64_t* addresses,
                                    uint32_t address_count, const xhal_scalar* scalars,
                                    uint32_t scalar_count, uint64_t workspace);

XHAL_EXTERN_C_END
#endif
