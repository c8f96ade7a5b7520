/* ps3c-encode: what its files share. */
#ifndef PS3C_PROGRAM_H
#define PS3C_PROGRAM_H

#include "../ps3c_model.h"

/* Exit codes, those of the command `ps3c`. */
enum { EXIT_REFUSED = 1, EXIT_USAGE = 2, EXIT_IMAGE = 3, EXIT_MODEL = 4, EXIT_INTERRUPTED = 130 };

/* Prints "ps3c-encode: error: NAME: ..." to stderr in one line, and returns code. name: NULL for none. */
int fail(int code, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- image_file.c ------------------------------------------------------------------------------------------------ */

/* Reads an image file: PPM and PGM (P5, P6), and JPEG and PNG if the program was built with their libraries. The EXIF
 * orientation of a JPEG is applied, grey becomes RGB, 16 bits are scaled to 8, and transparent pixels are put on white.
 * Returns 0 and *image, whose pixels the caller frees; or an exit code, after an error message. */
int read_image(const char *path, ps3c_image *image, uint8_t **pixels);
/* The formats that read_image reads, such as "PPM, PGM, JPEG, PNG". */
const char *image_formats(void);

/* ---- vector_file.c ----------------------------------------------------------------------------------------------- */

/* Reads `count` floats from a .npy file of float32, of shape (count,) or (1, count). Returns 0 and *values, which the
 * caller frees; or an exit code, after an error message. */
int read_vector(const char *path, int64_t count, float **values);

/* ---- features_file.c --------------------------------------------------------------------------------------------- */

typedef struct features_source {
    const char *name; /* of the image */
    int64_t width, height;
    const ps3c_vision_config *config;
} features_source;

/* Writes a safetensors file that Python's ps3c.load_features reads. It is written beside its place and then renamed, so
 * that a full disk leaves nothing of it. Returns 0, or an exit code after an error message. force: replace a file. */
int write_features(const char *path, const ps3c_features *features, const features_source *source, bool force);

#endif
