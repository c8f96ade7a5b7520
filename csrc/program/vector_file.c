/* Reads a .npy file. Source of the format: NumPy's documentation, numpy.lib.format. */
#include "program.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_HEADER = 4096 };

/* Reads the header, a Python dict as text. Returns NULL and *values, or why the file cannot be used. */
static const char *check_header(FILE *file, int64_t count)
{
    unsigned char start[10];
    char header[MOST_HEADER + 1], vector[64], row[64];
    if (fread(start, 1, 10, file) != 10 || memcmp(start, "\x93NUMPY", 6) != 0)
        return "got no .npy file";
    size_t length = (size_t)start[8] | (size_t)start[9] << 8;
    if (start[6] > 1) { /* version 2 and 3 have a length of 4 bytes */
        unsigned char more[2];
        if (fread(more, 1, 2, file) != 2)
            return "got a truncated .npy file";
        length |= (size_t)more[0] << 16 | (size_t)more[1] << 24;
    }
    if (length > MOST_HEADER || fread(header, 1, length, file) != length)
        return "got a truncated .npy file";
    header[length] = 0;
    snprintf(vector, sizeof vector, "'shape': (%lld,)", (long long)count);
    snprintf(row, sizeof row, "'shape': (1, %lld)", (long long)count);
    if (strstr(header, "'descr': '<f4'") == NULL)
        return "got another dtype, expected float32";
    return strstr(header, vector) != NULL || strstr(header, row) != NULL ? NULL : "got another shape";
}

int read_vector(const char *path, int64_t count, float **values)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return fail(EXIT_REFUSED, path, "%s", strerror(errno));
    const char *why = check_header(file, count);
    *values = malloc((size_t)count * sizeof **values);
    if (why == NULL && *values == NULL)
        why = "not enough memory";
    if (why == NULL && fread(*values, sizeof **values, (size_t)count, file) != (size_t)count)
        why = "got a truncated .npy file";
    fclose(file);
    if (why == NULL)
        return 0;
    free(*values);
    *values = NULL;
    return fail(EXIT_REFUSED, path, "%s, expected float32 of shape (%lld,) or (1, %lld)", why, (long long)count,
                (long long)count);
}
