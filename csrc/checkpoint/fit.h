/* Which field of config.json decides a weight's shape, for messages about weights that do not fit. */
#ifndef PS3C_FIT_H
#define PS3C_FIT_H

#include "../contract/error.h"

/* The field that decides the size of a weight's axis, or whether the weight exists (axis -1). name: without the tower's
 * prefix. Static memory. */
const char *ps3c_vision_field_of(const char *name, int axis);
const char *ps3c_text_field_of(const char *name, int axis);

/* A list of blocks: the start of its weights' names, the number of blocks, the field that gives it, and how many numbers
 * of the names one block has. */
typedef struct ps3c_block_list {
    const char *stem;
    int64_t count;
    const char *field;
    int64_t numbers;
} ps3c_block_list;

enum { PS3C_BLOCK_LISTS = 3 };
/* Fill lists and return their number. */
int ps3c_vision_block_lists(const ps3c_vision_config *config, ps3c_block_list lists[PS3C_BLOCK_LISTS]);
int ps3c_text_block_lists(const ps3c_text_config *config, ps3c_block_list lists[PS3C_BLOCK_LISTS]);

#endif
