/* The memory layouts of the backends' activations. The tests know them only here.
 *
 * Tests read and write single elements with it, so that an operation cannot hide an error of from_rows or to_rows.
 */
#ifndef PS3C_TESTS_LAYOUTS_H
#define PS3C_TESTS_LAYOUTS_H

#include "../../../csrc/contract/backend.h"

typedef struct ps3c_layout {
    /* Index of an element of x, in elements of dtype. values: the channel has the layout of attention values. */
    int64_t (*element)(const ps3c_activation *x, ps3c_dtype dtype, int64_t segment, int64_t token, int64_t channel,
                       bool values);
    /* Tokens that a segment has room for. Those from x->tokens on are undefined. */
    int64_t (*room)(const ps3c_activation *x);
    /* Channels that a token has room for. Those from x->channels on must be 0. */
    int64_t (*padded_channels)(const ps3c_activation *x, ps3c_dtype dtype);
} ps3c_layout;

/* The layout of a device type's backend. */
const ps3c_layout *ps3c_layout_of(ps3c_device_type type);

/* Read and write element i of memory of a floating dtype. ps3c_layout_write rounds to nearest even. */
float ps3c_layout_read(ps3c_dtype dtype, const void *data, int64_t i);
void ps3c_layout_write(ps3c_dtype dtype, void *data, int64_t i, float value);

#endif
