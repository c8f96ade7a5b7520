/* The integers of selection: sizes of the scales and what each look takes from each of them. */
#ifndef PS3C_SELECTION_H
#define PS3C_SELECTION_H

#include "../contract/backend.h"
#include "../contract/error.h"

/* Scale `index` of an image of height x width pixels; first is left 0. */
ps3c_scale ps3c_scale_of(const ps3c_vision_config *config, int64_t height, int64_t width, int64_t index);

/* Patches one look takes of each high-res scale, [num_scales - 1].
 * tokens: num_select_token of a look that takes fewer than its quota, or PS3C_NONE.
 * first_n: only_select_first_n_scale, or PS3C_NONE. free_patches: not taken yet, in and out. */
void ps3c_patches_of_look(const ps3c_vision_config *config, int64_t tokens, int64_t first_n, int64_t *free_patches,
                          int64_t *takes);

typedef struct ps3c_looks {
    int64_t count;
    int64_t first_tokens; /* tokens of the first look, or PS3C_NONE: its whole quota */
    int64_t last_tokens;  /* of the last look when count > 1 */
} ps3c_looks;

/* How many looks the arguments ask for; patches: high-res patches within reach. */
ps3c_status ps3c_looks_of(ps3c_context *context, const ps3c_vision_config *config, const ps3c_vision_request *request,
                          int64_t patches, ps3c_looks *looks);

#endif
