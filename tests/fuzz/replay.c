/* Runs a fuzz target without libFuzzer: on the files of a folder, then on random inputs of a seed.
 *
 *     target SEED COUNT [FILE...]
 *
 * It prints how many inputs it ran. If the target ends the process, the input that ran last is written to the file that
 * the environment variable PS3C_FUZZ_INPUT names. Targets with Python are loaded by Python instead, which calls
 * fuzz_replay. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
int fuzz_replay(int argc, char **argv);

enum { MOST = 1024 };

static uint64_t state;

static uint64_t draw(void) /* xorshift64* (Vigna 2016) */
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * UINT64_C(2685821657736338717);
}

/* Kept in a file before it runs, because a sanitizer ends the process. */
static void keep(int file, const uint8_t *data, size_t size)
{
    if (file >= 0 && (ftruncate(file, 0) || pwrite(file, data, size, 0) != (ssize_t)size))
        exit(2);
}

/* The target gets memory of exact size, so that reading behind the input is found. */
static void run(int file, const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, data, size);
    keep(file, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

int fuzz_replay(int argc, char **argv)
{
    static uint8_t data[1 << 16];
    const char *kept = getenv("PS3C_FUZZ_INPUT");
    const int file = kept ? open(kept, O_CREAT | O_RDWR | O_TRUNC, 0666) : -1;
    if (argc < 3)
        return 2;
    const long seed = atol(argv[1]), count = atol(argv[2]);
    for (int i = 3; i < argc; i++) {
        FILE *in = fopen(argv[i], "rb");
        if (!in)
            return 2;
        run(file, data, fread(data, 1, sizeof data, in));
        fclose(in);
    }
    state = UINT64_C(0x9e3779b97f4a7c15) * ((uint64_t)seed + 1);
    for (long i = 0; i < count; i++) {
        const size_t size = draw() % MOST;
        for (size_t at = 0; at < size; at++)
            data[at] = (uint8_t)(draw() >> 32);
        run(file, data, size);
    }
    printf("%d files, %ld inputs\n", argc - 3, count);
    fflush(stdout);
    return 0;
}

#ifndef FUZZ_PYTHON
int main(int argc, char **argv)
{
    if (LLVMFuzzerInitialize)
        LLVMFuzzerInitialize(&argc, &argv);
    return fuzz_replay(argc, argv);
}
#endif
