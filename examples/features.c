/* Encodes an image of random bytes with a checkpoint folder, and prints the best patch of each scale:
 *
 *     cc features.c $(pkg-config --cflags --libs ps3c) -o features
 *     ./features PS3-1.5K-SigLIP2
 *
 * ps3c-encode (csrc/program) reads image files and writes features to a file. */
#include <stdio.h>
#include <stdlib.h>

#include "ps3c_model.h"

enum { HEIGHT = 600, WIDTH = 900 };

static int fail(const ps3c_context *context)
{
    fprintf(stderr, "features: %s\n", ps3c_context_message(context));
    return 1;
}

/* Prints the token of each scale that a look encoded first. */
static void print(const ps3c_features *features)
{
    printf("%lld tokens of %lld channels; the vector begins with %g\n", (long long)features->num_tokens,
           (long long)features->width, features->pooled[0]);
    for (int64_t i = 0, last = 0; i < features->num_tokens; i++) {
        const int32_t *position = features->positions + 3 * i;
        if (position[0] == last)
            continue;
        last = position[0];
        printf("scale %d: the first selected patch is in row %d, column %d\n", position[0], position[1], position[2]);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: features FOLDER\n");
        return 2;
    }
    uint8_t *pixels = malloc(HEIGHT * WIDTH * 3);
    for (int i = 0; i < HEIGHT * WIDTH * 3; i++)
        pixels[i] = (uint8_t)rand();
    ps3c_register_backend(PS3C_CPU, &ps3c_cpu_source);
    ps3c_context *context = ps3c_context_create();
    ps3c_model *model;
    ps3c_features *features;
    if (ps3c_model_open(context, argv[1], NULL, &model) != PS3C_OK)
        return fail(context);
    const ps3c_image image = {pixels, HEIGHT, WIDTH, 3 * WIDTH, 3};
    const ps3c_encode_request request = {.looks = 2, .tokens = PS3C_NONE};
    if (ps3c_model_encode(context, model, &image, &request, &features) != PS3C_OK)
        return fail(context);
    print(features);
    ps3c_features_free(features);
    ps3c_model_free(model);
    ps3c_context_free(context);
    free(pixels);
    return 0;
}
