/* What the JSON files of a checkpoint say, as the engine's structs. Defaults are those of ps3-torch's configurations. */
#ifndef PS3C_CHECKPOINT_CONFIG_H
#define PS3C_CHECKPOINT_CONFIG_H

#include "../ps3c_model.h"
#include "json.h"

/* Reads the vision configuration from an object of config.json; NULL: only defaults. prefix: as in fields.h. The result
 * has passed ps3c_vision_config_check. ERROR_CHECKPOINT names the field. */
ps3c_status ps3c_read_vision_config(ps3c_context *context, const char *prefix, const ps3c_json *object,
                                    ps3c_vision_config *config);
/* The same of the text tower. */
ps3c_status ps3c_read_text_config(ps3c_context *context, const char *prefix, const ps3c_json *object,
                                  ps3c_text_config *config);
/* Reads preprocessor_config.json. */
ps3c_status ps3c_read_preprocessing(ps3c_context *context, const ps3c_json *object, ps3c_preprocessing *preprocessing);

/* Puts prefix before the context's message and returns ERROR_CHECKPOINT, or OK and ERROR_MEMORY as they are. */
ps3c_status ps3c_in_file(ps3c_context *context, ps3c_status status, const char *prefix);

#endif
