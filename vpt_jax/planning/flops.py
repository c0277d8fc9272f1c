"""FLOPs of a computation, counted from what was traced."""

import math

import jax.extend


def products(jaxpr) -> int:
    """Of the matrix products and convolutions in a jaxpr, two for each multiply-add.

    The body of a loop whose length is not known counts once, of a choice (also that
    between platforms) the branch that has most; kernels count as what they stand for.
    """
    total = 0
    for equation in jaxpr.eqns:
        name, inner = equation.primitive.name, []
        if name != "pallas_call":
            inner = map(products, jax.extend.core.jaxprs_in_params(equation.params))
        if name == "cond":
            total += max(inner)
        else:
            total += equation.params.get("length", 1) * sum(inner)  # of a scan
        shapes = [v.aval.shape for v in equation.invars if hasattr(v.aval, "shape")]
        out = math.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * out * math.prod(shapes[0][n] for n in contracted)
        elif name == "conv_general_dilated":
            _, kernel, _ = equation.params["dimension_numbers"]
            total += 2 * out * math.prod(shapes[1]) // shapes[1][kernel[0]]
    return total
