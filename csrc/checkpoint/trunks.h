/* Sizes of the vision transformers that can be a PS3 trunk, by timm's names: a checkpoint names its trunk and does not
 * repeat the sizes. A trunk is a plain pre-norm transformer without class or register tokens. */
#ifndef PS3C_TRUNKS_H
#define PS3C_TRUNKS_H

#include "../contract/error.h"

typedef struct ps3c_trunk {
    int64_t width, depth, heads, mlp_hidden;
    double mlp_ratio;
    int64_t patch;    /* side of a patch, pixels */
    int64_t img_size; /* side of the table of positions, pixels */
    bool class_token; /* what timm builds unless class_token says otherwise; PS3 needs false */
    bool tanh_gelu;
    float norm_eps;
} ps3c_trunk;

enum { PS3C_TRUNK_NAME_BYTES = 48 };

/* Number of known names. */
int64_t ps3c_trunk_count(void);
/* The trunk of a number from 0 to count - 1, in the order of the table. */
ps3c_trunk ps3c_trunk_at(int64_t index, char name[PS3C_TRUNK_NAME_BYTES]);
/* The trunk of timm's name; a pretraining tag after a dot does not matter. False: unknown. */
bool ps3c_trunk_find(const char *name, ps3c_trunk *trunk);

#endif
