/* The configuration of a checkpoint's text tower, as ps3-torch's PS3TextConfig. */
#include "config.h"

#include "fields.h"

#include <math.h>
#include <string.h>

#define REFUSE(...) ps3c_fail(context, PS3C_ERROR_CHECKPOINT, __VA_ARGS__)

enum { WIDTH = 1 << 16, LAYERS = 512, TOKENS = 1 << 16, WORDS = 1 << 24, RATIO = 64 };

typedef struct fields {
    int64_t output_dim, prompt_proj_dim, context_length, vocab_size, width, heads, layers, pad_id;
    double mlp_ratio, ls_init_value, eps;
    bool embed_cls, no_causal_mask, proj_bias;
    const char *pool_type, *approximate;
} fields;

#define AT(field) offsetof(fields, field)
static const ps3c_entry entries[] = {
    PS3C_INTEGER_ENTRY("output_dim", AT(output_dim), 1, WIDTH),
    PS3C_INTEGER_ENTRY("prompt_proj_dim", AT(prompt_proj_dim), 1, WIDTH),
    PS3C_INTEGER_ENTRY("context_length", AT(context_length), 1, TOKENS),
    PS3C_INTEGER_ENTRY("vocab_size", AT(vocab_size), 1, WORDS),
    PS3C_INTEGER_ENTRY("width", AT(width), 1, WIDTH),
    PS3C_INTEGER_ENTRY("heads", AT(heads), 1, WIDTH),
    PS3C_INTEGER_ENTRY("layers", AT(layers), 1, LAYERS),
    PS3C_NUMBER_ENTRY("mlp_ratio", AT(mlp_ratio), 0, RATIO),
    PS3C_NUMBER_ENTRY("ls_init_value", AT(ls_init_value), -WORDS, WORDS),
    PS3C_BOOL_ENTRY("embed_cls", AT(embed_cls)),
    PS3C_INTEGER_ENTRY("pad_id", AT(pad_id), INT32_MIN, INT32_MAX),
    PS3C_BOOL_ENTRY("no_causal_mask", AT(no_causal_mask)),
    PS3C_TEXT_ENTRY("pool_type", AT(pool_type)),
    PS3C_BOOL_ENTRY("proj_bias", AT(proj_bias)),
    {.name = NULL},
};
static const ps3c_entry activation[] = {PS3C_TEXT_ENTRY("approximate", AT(approximate)), {.name = NULL}};
static const ps3c_entry norm[] = {PS3C_NUMBER_ENTRY("eps", AT(eps), 0, 1), {.name = NULL}};

static ps3c_status read_all(ps3c_context *context, const char *prefix, const ps3c_json *object, fields *f)
{
    *f = (fields){.output_dim = 1152,
                  .prompt_proj_dim = 1152,
                  .context_length = 77,
                  .vocab_size = 49408,
                  .width = 512,
                  .heads = 8,
                  .layers = 12,
                  .mlp_ratio = 4.0,
                  .ls_init_value = NAN, /* none */
                  .eps = 1e-5,
                  .pool_type = "argmax",
                  .approximate = "none"};
    PS3C_TRY(ps3c_read_fields(context, prefix, object, entries, f));
    PS3C_TRY(ps3c_read_fields(context, prefix, ps3c_json_member(object, "act_kwargs"), activation, f));
    return ps3c_read_fields(context, prefix, ps3c_json_member(object, "norm_kwargs"), norm, f);
}

ps3c_status ps3c_read_text_config(ps3c_context *context, const char *prefix, const ps3c_json *object,
                                  ps3c_text_config *config)
{
    static const char *const pools[] = {"first", "last", "argmax", "none"}; /* as ps3c_text_pool */
    char shown[PS3C_JSON_SHOWN];
    fields f;
    int pool = 0;
    PS3C_TRY(read_all(context, prefix, object, &f));
    while (pool < 4 && strcmp(pools[pool], f.pool_type) != 0)
        pool++;
    if (pool == 4)
        return REFUSE("%spool_type: got %s, expected 'first', 'last', 'argmax' or 'none'", prefix,
                      ps3c_json_quote(f.pool_type, shown));
    if (strcmp(f.approximate, "none") != 0 && strcmp(f.approximate, "tanh") != 0)
        return REFUSE("%sact_kwargs: got %s, expected 'none' or 'tanh'", prefix, ps3c_json_quote(f.approximate, shown));
    *config = (ps3c_text_config){.width = f.width,
                                 .depth = f.layers,
                                 .heads = f.heads,
                                 .mlp_hidden = (int64_t)((double)f.width * f.mlp_ratio),
                                 .context_length = f.context_length,
                                 .vocab_size = f.vocab_size,
                                 .output_dim = f.output_dim,
                                 .prompt_dim = f.prompt_proj_dim,
                                 .norm_eps = (float)f.eps,
                                 .causal = !f.no_causal_mask,
                                 .class_token = f.embed_cls,
                                 .pad_id = f.pad_id,
                                 .layer_scale = !isnan(f.ls_init_value),
                                 .tanh_gelu = strcmp(f.approximate, "tanh") == 0,
                                 .projection_linear = f.proj_bias,
                                 .projection_bias = f.proj_bias,
                                 .pool = (ps3c_text_pool)pool};
    return ps3c_in_file(context, ps3c_text_config_check(context, config), prefix);
}
