/* Activation functions in float64, for the plain C versions. */
#ifndef PS3C_CPU_ACTIVATE_H
#define PS3C_CPU_ACTIVATE_H

#include <math.h>

#include "cpu.h"

static inline double ps3c_activate(ps3c_activation_function act, double x)
{
    switch (act) {
    case PS3C_ACT_GELU_ERF:
        return 0.5 * x * (1 + erf(x * 0.70710678118654752440));
    case PS3C_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case PS3C_ACT_RELU:
        return x < 0 ? 0 : x;
    default:
        return x;
    }
}

#endif
