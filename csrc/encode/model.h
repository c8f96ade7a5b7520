/* The fields of a model. */
#ifndef PS3C_ENCODE_MODEL_H
#define PS3C_ENCODE_MODEL_H

#include "../contract/error.h"
#include "../ps3c_model.h"

typedef struct ps3c_loaded_tower {
    int64_t count;
    ps3c_tensor *weights; /* [count], in the engine's order */
    char *copies;         /* memory of the weights that are not the file's; NULL: none */
} ps3c_loaded_tower;

struct ps3c_model {
    ps3c_checkpoint *checkpoint;
    ps3c_dtype dtype;
    ps3c_loaded_tower vision, text;
};

#endif
