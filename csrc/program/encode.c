/* ps3c-encode: encodes an image with a checkpoint folder, without Python. */
#include "program.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] = "usage: ps3c-encode FOLDER IMAGE -o FEATURES.safetensors [options]\n";
static const char help[] =
    "\n"
    "Encodes an image with the PS3 checkpoint in FOLDER and writes a vector of the image and, with --looks or "
    "--tokens,\n"
    "the features of its selected patches. Python's ps3c.load_features reads the file.\n"
    "\n"
    "options:\n"
    "  -o, --output FILE   the file to write; it must not exist without --force\n"
    "  --looks N           number of looks at high resolution, or \"all\"; 0: the low resolution only\n"
    "  --tokens N          number of high-resolution patches instead, or \"all\"\n"
    "  --prompt FILE.npy   selects the patches that match a text: float32 of (width,), from Python's encoder.prompt\n"
    "  --dtype NAME        float32, float16 or bfloat16; the checkpoint's without it\n"
    "  --threads N         number of threads; the processors that this process may use without it\n"
    "  --raw               do not scale the vector to length 1\n"
    "  --force             replace FILE if it exists\n"
    "  --version           print the version\n"
    "  -h, --help          print this text\n"
    "\n"
    "exit codes: 0 success, 1 refused or failed, 2 wrong arguments, 3 the image cannot be used, 4 the folder cannot "
    "be\n"
    "used, 130 interrupted.\n";

typedef struct arguments {
    const char *folder, *image, *output, *prompt;
    ps3c_encode_request request;
    ps3c_model_options options;
    int threads;
    bool force;
} arguments;

int fail(int code, const char *name, const char *format, ...)
{
    char message[1200];
    va_list values;
    va_start(values, format);
    vsnprintf(message, sizeof message, format, values);
    va_end(values);
    for (char *c = message; *c != 0; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F) /* from a file: a terminal could obey it */
            *c = '?';
    fprintf(stderr, "ps3c-encode: error: %s%s%s\n", name != NULL ? name : "", name != NULL ? ": " : "", message);
    return code;
}

/* ---- arguments --------------------------------------------------------------------------------------------------- */

/* A number from 0 to most, or "all" if that is allowed. */
static int parse_number(const char *option, const char *text, int64_t most, bool all, int64_t *number)
{
    char *end;
    errno = 0;
    *number = strtoll(text, &end, 10);
    if (all && strcmp(text, "all") == 0)
        *number = PS3C_ALL;
    else if (end == text || *end != 0 || errno != 0 || *number < 0 || *number > most)
        return fail(EXIT_USAGE, option, "got '%.60s', expected a number from 0 to %lld%s", text, (long long)most,
                    all ? ", or all" : "");
    return 0;
}

static int parse_dtype(const char *text, ps3c_model_options *options)
{
    options->has_dtype = true;
    for (int dtype = PS3C_FLOAT32; dtype <= PS3C_BFLOAT16; dtype++)
        if (strcmp(text, ps3c_dtype_name((ps3c_dtype)dtype)) == 0) {
            options->dtype = (ps3c_dtype)dtype;
            return 0;
        }
    return fail(EXIT_USAGE, "--dtype", "got '%.60s', expected float32, float16 or bfloat16", text);
}

enum { LOOKS = 256, TOKENS, PROMPT, DTYPE, THREADS, RAW, FORCE, VERSION };

static int parse_option(int option, arguments *a)
{
    int64_t number;
    int failed = 0;
    switch (option) {
    case 'o':
        a->output = optarg;
        return 0;
    case LOOKS:
        return parse_number("--looks", optarg, INT32_MAX, true, &a->request.looks);
    case TOKENS:
        return parse_number("--tokens", optarg, INT32_MAX, true, &a->request.tokens);
    case PROMPT:
        a->prompt = optarg;
        return 0;
    case DTYPE:
        return parse_dtype(optarg, &a->options);
    case THREADS:
        failed = parse_number("--threads", optarg, 1 << 16, false, &number);
        a->threads = (int)number;
        return failed;
    case RAW:
        a->request.raw = true;
        return 0;
    case FORCE:
        a->force = true;
        return 0;
    default: /* getopt has printed a message */
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
}

static int check_arguments(int count, char **words, arguments *a)
{
    static const char suffix[] = ".safetensors";
    if (count != 2) {
        fputs(usage, stderr);
        return fail(EXIT_USAGE, NULL, "got %d arguments besides options, expected FOLDER and IMAGE", count);
    }
    a->folder = words[0];
    a->image = words[1];
    if (a->output == NULL) {
        fputs(usage, stderr);
        return fail(EXIT_USAGE, "-o", "got none, expected the file to write");
    }
    const size_t length = strlen(a->output);
    if (length < sizeof suffix || strcmp(a->output + length - (sizeof suffix - 1), suffix) != 0)
        return fail(EXIT_USAGE, "-o", "got '%.200s', expected a name that ends in %s", a->output, suffix);
    if (a->request.looks != PS3C_NONE && a->request.tokens != PS3C_NONE)
        return fail(EXIT_USAGE, "--looks, --tokens", "got both, expected one of them");
    if (a->prompt != NULL && a->request.looks == PS3C_NONE && a->request.tokens == PS3C_NONE)
        return fail(EXIT_USAGE, "--prompt", "got it without --looks or --tokens, which it selects");
    return 0;
}

/* Returns 0, an exit code, or -1: --help or --version was printed. */
static int parse(int argc, char **argv, arguments *a)
{
    static const struct option options[] = {
        {"output", required_argument, NULL, 'o'},
        {"looks", required_argument, NULL, LOOKS},
        {"tokens", required_argument, NULL, TOKENS},
        {"prompt", required_argument, NULL, PROMPT},
        {"dtype", required_argument, NULL, DTYPE},
        {"threads", required_argument, NULL, THREADS},
        {"raw", no_argument, NULL, RAW},
        {"force", no_argument, NULL, FORCE},
        {"version", no_argument, NULL, VERSION},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    *a = (arguments){.request = {.looks = PS3C_NONE, .tokens = PS3C_NONE}};
    for (int option; (option = getopt_long(argc, argv, "o:h", options, NULL)) != -1;) {
        if (option == 'h')
            printf("%s%s\nimage formats: %s\n", usage, help, image_formats());
        if (option == VERSION)
            printf("ps3c-encode %s\n", ps3c_version());
        if (option == 'h' || option == VERSION)
            return fflush(stdout) == 0 ? -1 : EXIT_REFUSED;
        const int failed = parse_option(option, a);
        if (failed != 0)
            return failed;
    }
    return check_arguments(argc - optind, argv + optind, a);
}

/* ---- encoding ---------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void interrupt(int number)
{
    (void)number;
    interrupted = 1;
}
static int is_interrupted(void *data)
{
    (void)data;
    return interrupted;
}

static int fail_call(ps3c_context *context, ps3c_status status, int code, const char *name)
{
    if (status == PS3C_ERROR_INTERRUPTED) {
        fputs("ps3c-encode: interrupted\n", stderr);
        return EXIT_INTERRUPTED;
    }
    return fail(status == PS3C_ERROR_MEMORY ? EXIT_REFUSED : code, name, "%s", ps3c_context_message(context));
}

static int encode_image(ps3c_context *context, const ps3c_model *model, const arguments *a, const ps3c_image *image)
{
    const ps3c_vision_config *config = &ps3c_checkpoint_describe(ps3c_model_checkpoint(model))->vision;
    ps3c_encode_request request = a->request;
    ps3c_features *features = NULL;
    float *prompt = NULL;
    int code = a->prompt != NULL ? read_vector(a->prompt, config->width, &prompt) : 0;
    if (code == 0) {
        request.prompt = prompt;
        const ps3c_status status = ps3c_model_encode(context, model, image, &request, &features);
        if (status != PS3C_OK)
            code = fail_call(context, status, EXIT_REFUSED, a->image);
    }
    if (code == 0) {
        const features_source source = {a->image, image->width, image->height, config};
        code = write_features(a->output, features, &source, a->force);
    }
    if (code == 0)
        fprintf(stderr, "%s: a vector of %lld, %lld tokens of %lld channels, %s\n", a->output,
                (long long)features->pooled_width, (long long)features->num_tokens, (long long)features->width,
                ps3c_dtype_name(features->dtype));
    free(prompt);
    ps3c_features_free(features);
    return code;
}

static int run(ps3c_context *context, const arguments *a)
{
    ps3c_model *model = NULL;
    ps3c_image image;
    uint8_t *pixels = NULL;
    ps3c_status status = ps3c_context_set_threads(context, a->threads);
    if (status == PS3C_OK)
        status = ps3c_model_open(context, a->folder, &a->options, &model);
    if (status != PS3C_OK)
        return fail_call(context, status, EXIT_MODEL, a->folder);
    int code = read_image(a->image, &image, &pixels);
    if (code == 0)
        code = encode_image(context, model, a, &image);
    free(pixels);
    ps3c_model_free(model);
    return code;
}

int main(int argc, char **argv)
{
    arguments a;
    int code = parse(argc, argv, &a);
    if (code != 0)
        return code < 0 ? 0 : code;
    ps3c_register_backend(PS3C_CPU, &ps3c_cpu_source);
    ps3c_context *context = ps3c_context_create();
    if (context == NULL)
        return fail(EXIT_REFUSED, NULL, "not enough memory");
    signal(SIGINT, interrupt);
    ps3c_context_set_interrupt(context, is_interrupted, NULL);
    code = run(context, &a);
    ps3c_context_free(context);
    return code;
}
