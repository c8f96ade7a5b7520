/* The table of trunks. */
#include "trunks.h"

#include <stdio.h>
#include <string.h>

enum { SIZES = 5 }; /* most image sizes of one family */

/* Rows that differ only in the image size share an entry. */
static const struct {
    const char *name; /* with %d for the image size, or without */
    int16_t sizes[SIZES];
    int64_t width, depth, heads;
    double mlp_ratio;
    int64_t patch;
    bool class_token, tanh_gelu;
} families[] = {
    /* clang-format off */
    {"test_vit", {160}, 64, 6, 2, 3.0, 16, true, false},
    {"vit_tiny_patch16_%d", {224, 384}, 192, 12, 3, 4.0, 16, true, false},
    {"vit_small_patch8_%d", {224}, 384, 12, 6, 4.0, 8, true, false},
    {"vit_small_patch16_%d", {224, 384}, 384, 12, 6, 4.0, 16, true, false},
    {"vit_small_patch32_%d", {224, 384}, 384, 12, 6, 4.0, 32, true, false},
    {"vit_base_patch8_%d", {224}, 768, 12, 12, 4.0, 8, true, false},
    {"vit_base_patch16_%d", {224, 384}, 768, 12, 12, 4.0, 16, true, false},
    {"vit_base_patch16_gap_%d", {224}, 768, 12, 16, 4.0, 16, false, false},
    {"vit_base_patch32_%d", {224, 384}, 768, 12, 12, 4.0, 32, true, false},
    {"vit_large_patch14_%d", {224}, 1024, 24, 16, 4.0, 14, true, false},
    {"vit_large_patch16_%d", {224, 384}, 1024, 24, 16, 4.0, 16, true, false},
    {"vit_large_patch32_%d", {224, 384}, 1024, 24, 16, 4.0, 32, true, false},
    {"vit_huge_patch14_%d", {224}, 1280, 32, 16, 4.0, 14, true, false},
    {"vit_huge_patch14_gap_%d", {224}, 1280, 32, 16, 4.0, 14, false, false},
    {"vit_huge_patch16_gap_%d", {448}, 1280, 32, 16, 4.0, 16, false, false},
    {"vit_giant_patch14_%d", {224}, 1408, 40, 16, 48.0 / 11, 14, true, false},
    {"vit_giant_patch16_gap_%d", {224}, 1408, 40, 16, 48.0 / 11, 16, false, false},
    {"vit_gigantic_patch14_%d", {224}, 1664, 48, 16, 64.0 / 13, 14, true, false},
    {"eva_large_patch14_%d", {196, 336}, 1024, 24, 16, 4.0, 14, true, false},
    {"flexivit_small", {240}, 384, 12, 6, 4.0, 16, true, false},
    {"flexivit_base", {240}, 768, 12, 12, 4.0, 16, true, false},
    {"flexivit_large", {240}, 1024, 24, 16, 4.0, 16, true, false},
    {"vit_base_patch16_siglip_%d", {224, 256, 384, 512}, 768, 12, 12, 4.0, 16, false, false},
    {"vit_base_patch16_siglip_gap_%d", {224, 256, 384, 512}, 768, 12, 12, 4.0, 16, false, false},
    {"vit_base_patch32_siglip_%d", {256}, 768, 12, 12, 4.0, 32, false, true},
    {"vit_base_patch32_siglip_gap_%d", {256}, 768, 12, 12, 4.0, 32, false, true},
    {"vit_large_patch16_siglip_%d", {256, 384}, 1024, 24, 16, 4.0, 16, false, false},
    {"vit_large_patch16_siglip_gap_%d", {256, 384}, 1024, 24, 16, 4.0, 16, false, false},
    {"vit_large_patch16_siglip_%d", {512}, 1024, 24, 16, 4.0, 16, false, true},
    {"vit_large_patch16_siglip_gap_%d", {512}, 1024, 24, 16, 4.0, 16, false, true},
    {"vit_so400m_patch14_siglip_%d", {224, 378, 384}, 1152, 27, 16, 3.7362, 14, false, false},
    {"vit_so400m_patch14_siglip_gap_%d", {224, 378, 384, 448, 896}, 1152, 27, 16, 3.7362, 14, false, false},
    {"vit_so400m_patch16_siglip_%d", {256, 384, 512}, 1152, 27, 16, 3.7362, 16, false, true},
    {"vit_so400m_patch16_siglip_gap_%d", {256, 384, 512}, 1152, 27, 16, 3.7362, 16, false, true},
    {"vit_giantopt_patch16_siglip_%d", {256, 384}, 1536, 40, 16, 4.0, 16, false, true},
    {"vit_giantopt_patch16_siglip_gap_%d", {256, 384}, 1536, 40, 16, 4.0, 16, false, true},
    /* clang-format on */
};

enum { FAMILIES = sizeof families / sizeof *families };

static int sizes_of(int family)
{
    int count = 0;
    while (count < SIZES && families[family].sizes[count] != 0)
        count++;
    return count;
}

int64_t ps3c_trunk_count(void)
{
    int64_t count = 0;
    for (int family = 0; family < FAMILIES; family++)
        count += sizes_of(family);
    return count;
}

ps3c_trunk ps3c_trunk_at(int64_t index, char name[PS3C_TRUNK_NAME_BYTES])
{
    int family = 0;
    for (; index >= sizes_of(family); family++)
        index -= sizes_of(family);
    const int size = families[family].sizes[index];
    const char *format = families[family].name, *place = strstr(format, "%d");
    if (place == NULL)
        snprintf(name, PS3C_TRUNK_NAME_BYTES, "%s", format);
    else
        snprintf(name, PS3C_TRUNK_NAME_BYTES, "%.*s%d%s", (int)(place - format), format, size, place + 2);
    return (ps3c_trunk){.width = families[family].width,
                        .depth = families[family].depth,
                        .heads = families[family].heads,
                        .mlp_hidden = (int64_t)((double)families[family].width * families[family].mlp_ratio),
                        .mlp_ratio = families[family].mlp_ratio,
                        .patch = families[family].patch,
                        .img_size = size,
                        .class_token = families[family].class_token,
                        .tanh_gelu = families[family].tanh_gelu,
                        .norm_eps = 1e-6f};
}

bool ps3c_trunk_find(const char *name, ps3c_trunk *trunk)
{
    const size_t length = strcspn(name, ".");
    char known[PS3C_TRUNK_NAME_BYTES];
    const int64_t count = ps3c_trunk_count();
    for (int64_t i = 0; i < count; i++) {
        *trunk = ps3c_trunk_at(i, known);
        if (strlen(known) == length && strncmp(known, name, length) == 0)
            return true;
    }
    return false;
}
