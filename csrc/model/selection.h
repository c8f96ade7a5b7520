/* The integers of selection: the sizes of the scales, and the number of patches that each look takes from each scale.
 */
#ifndef PS3C_SELECTION_H
#define PS3C_SELECTION_H

#include "../contract/backend.h"
#include "../contract/error.h"

/* Scale `index` of an image of height x width pixels. Its `first` is 0: the caller sets it. */
ps3c_scale ps3c_scale_of(const ps3c_vision_config *config, int64_t height, int64_t width, int64_t index);

/* Computes takes[num_scales - 1], the patches that one look takes from each high-res scale.
 * tokens: number of patches of a look that takes less than its quota (num_select_token), or PS3C_NONE.
 * first_n: only_select_first_n_scale, or PS3C_NONE.
 * free_patches: [num_scales - 1], patches of each scale that no look has taken yet; in and out. */
void ps3c_patches_of_look(const ps3c_vision_config *config, int64_t tokens, int64_t first_n, int64_t *free_patches,
                          int64_t *takes);

typedef struct ps3c_looks {
    int64_t count;
    int64_t first_tokens; /* tokens of the first look; PS3C_NONE: its full quota */
    int64_t last_tokens;  /* tokens of the last look if count > 1; PS3C_NONE: its full quota */
} ps3c_looks;

/* Computes the number of looks of a request. patches: number of high-res patches that can be selected. ERROR_VALUE if
 * num_look_close or num_token_look_close is invalid, if both are PS3C_NONE, or if both are numbers and need several
 * looks. */
ps3c_status ps3c_looks_of(ps3c_context *context, const ps3c_vision_config *config, const ps3c_vision_request *request,
                          int64_t patches, ps3c_looks *looks);

#endif
