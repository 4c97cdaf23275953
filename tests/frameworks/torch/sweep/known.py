# SPDX-License-Identifier: Apache-2.0
"""Differences that are right, each with its reason."""

import re

# The CPU has no kernel for a type; the device may.
_LACKS = re.compile(
    r"not implemented for '|not yet implemented|expected .* dtype to be|"
    r"unsupported (?:data ?type|dtype)"
)
_SHARED = re.compile(
    r"unsupported operation: (?:more than one element of the written-to tensor|"
    r"some elements of the input tensor|the input tensors cannot refer to any of the output)"
)
_REDUCTIONS = set("""sum mean prod amax amin any all var std logsumexp nansum count_nonzero argmax
argmin norm products""".split())
# A composition of several kernels, or the host: operands that lie differently are met in another
# order than in torch's one loop, and the result lies as one of them.
_COMPOSED = set("fmax fmin xlogy copysign hypot atan2 logaddexp nan_to_num activations".split())


def lacks_a_kernel(error):
    return bool(_LACKS.search(str(error)))


def reason(name, kind, form, on_operand, text):
    """Why a difference is right, or None. `on_operand`: out= lies on an operand."""
    if kind == "refused" and form != "functional" and _SHARED.search(text):
        return "the CPU's kernel does not look, and what it writes depends on its order"
    if kind in ("value", "memory") and on_operand and name in _REDUCTIONS:
        return "the CPU's kernel reads what it has overwritten; here each operand is read as it was"
    if name == "pow" and kind == "computed" and "without overflow" in text:
        return "the CPU brings the exponent to the type of the base, where f16 ends at 65504"
    if name == "lerp" and kind == "computed" and "Found dtype" in text:
        return "the CPU's kernel for short floats refuses an out= that torch's own check lets in"
    if name == "prod" and kind == "value" and re.search(r" is -?0\.0, on the CPU nan$", text):
        return "the CPU rounds each product to f16: infinity times a later 0; here they are f32"
    if kind == "strides" and name in _COMPOSED:
        return "a composition meets the operands in another order"
    if name in ("any", "all") and form == "out" and kind == "value":
        return "into uint8 the CPU converts NaN to 0 before it asks whether it is true"
    if name == "attention" and text.endswith("on the CPU nan"):
        return "scaled by 0 the CPU multiplies the -inf of its mask"
    if name == "activations" and kind == "value" and text.endswith("is 0.0, on the CPU nan"):
        return "gelu(-inf) and its kin are 0 in the limit; the CPU has -inf * 0"
    return None
