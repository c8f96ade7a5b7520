/* Reads image files to RGB bytes. JPEG and PNG are decoded by libjpeg-turbo and libpng, where the program was built with
 * them (PS3C_HAS_JPEG, PS3C_HAS_PNG). */
#include "program.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef PS3C_HAS_JPEG
#include <jpeglib.h>
#include <jerror.h>
#endif
#ifdef PS3C_HAS_PNG
#include <png.h>
#endif

#define MOST_PIXELS ((int64_t)178956970) /* Pillow's limit against files that decompress to very large images */

const char *image_formats(void)
{
    return "PPM, PGM"
#ifdef PS3C_HAS_JPEG
           ", JPEG"
#endif
#ifdef PS3C_HAS_PNG
           ", PNG"
#endif
        ;
}

/* Memory for height x width RGB pixels, and an image that shows it. Returns 0 or an exit code. */
static int make_image(const char *path, int64_t height, int64_t width, ps3c_image *image, uint8_t **pixels)
{
    if (height < 1 || width < 1 || width > MOST_PIXELS / height)
        return fail(EXIT_IMAGE, path, "got %lld x %lld pixels, expected 1 x 1 to %lld pixels in all", (long long)width,
                    (long long)height, (long long)MOST_PIXELS);
    *pixels = malloc((size_t)(3 * height * width));
    *image = (ps3c_image){*pixels, height, width, 3 * width, 3};
    return *pixels != NULL ? 0 : fail(EXIT_REFUSED, path, "not enough memory for its pixels");
}

/* ---- PPM and PGM ------------------------------------------------------------------------------------------------- */

/* A number after space and comments; -1: there is none. Leaves the file after the one character that follows. */
static long read_header_number(FILE *file)
{
    long number = -1;
    int c = fgetc(file);
    while (c == '#' || c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        while (c == '#' && (c = fgetc(file)) != '\n' && c != EOF)
            c = '#';
        c = fgetc(file);
    }
    for (; c >= '0' && c <= '9' && number < 1L << 30; c = fgetc(file))
        number = (number < 0 ? 0 : number * 10) + c - '0';
    return number;
}

static int read_pnm(const char *path, FILE *file, int channels, ps3c_image *image, uint8_t **pixels)
{
    const long width = read_header_number(file), height = read_header_number(file), most = read_header_number(file);
    if (width < 0 || height < 0 || most < 1 || most > 65535)
        return fail(EXIT_IMAGE, path, "its header is damaged");
    const int code = make_image(path, height, width, image, pixels);
    if (code != 0)
        return code;
    uint8_t *out = *pixels;
    for (int64_t i = 0; i < (int64_t)height * width; i++, out += 3)
        for (int channel = 0; channel < channels; channel++) {
            long value = fgetc(file);
            if (most > 255 && value >= 0)
                value = value << 8 | fgetc(file);
            if (value < 0)
                return fail(EXIT_IMAGE, path, "it is truncated");
            value = value > most ? most : value;
            out[channel] = (uint8_t)((value * 255 + most / 2) / most);
            if (channels == 1)
                out[1] = out[2] = out[0];
        }
    return 0;
}

/* ---- JPEG -------------------------------------------------------------------------------------------------------- */

#ifdef PS3C_HAS_JPEG
typedef struct jpeg_failure {
    struct jpeg_error_mgr base;
    jmp_buf jump;
    char message[JMSG_LENGTH_MAX];
} jpeg_failure;

static void jump_out(j_common_ptr jpeg)
{
    jpeg_failure *failure = (jpeg_failure *)jpeg->err;
    jpeg->err->format_message(jpeg, failure->message);
    longjmp(failure->jump, 1);
}
/* Of the warnings only that of a truncated file matters: the rest of its picture would be grey. */
static void note_warning(j_common_ptr jpeg, int level)
{
    if (level < 0 && jpeg->err->msg_code == JWRN_JPEG_EOF)
        jump_out(jpeg);
}

/* The orientation in an EXIF segment, 1 to 8. Source: EXIF 2.3, tag 0x0112 of the first directory. */
static int orientation_of(const uint8_t *data, size_t size)
{
    if (size < 14 || memcmp(data, "Exif\0\0", 6) != 0)
        return 1;
    const uint8_t *tiff = data + 6;
    const size_t room = size - 6;
    const bool little = tiff[0] == 'I';
#define TWO(at) (little ? tiff[at] | tiff[(at) + 1] << 8 : tiff[at] << 8 | tiff[(at) + 1])
#define FOUR(at) \
    (little ? (uint32_t)TWO(at) | (uint32_t)TWO((at) + 2) << 16 : (uint32_t)TWO(at) << 16 | (uint32_t)TWO((at) + 2))
    const size_t directory = FOUR(4);
    if (directory > room - 2 || directory + 2 > room)
        return 1;
    const size_t count = (size_t)TWO(directory);
    for (size_t i = 0, at = directory + 2; i < count && at + 12 <= room; i++, at += 12)
        if (TWO(at) == 0x0112)
            return TWO(at + 8) >= 1 && TWO(at + 8) <= 8 ? TWO(at + 8) : 1;
    return 1;
#undef TWO
#undef FOUR
}

/* Turns the image upright: orientations 5 to 8 swap rows and columns. */
static int turn(const char *path, int orientation, ps3c_image *image, uint8_t **pixels)
{
    if (orientation == 1)
        return 0;
    const bool swap = orientation >= 5;
    const bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    const bool from_below = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    const ps3c_image old = *image;
    uint8_t *out, *before = *pixels;
    const int code = make_image(path, swap ? old.width : old.height, swap ? old.height : old.width, image, &out);
    if (code != 0)
        return code;
    for (int64_t y = 0; y < image->height; y++)
        for (int64_t x = 0; x < image->width; x++) {
            const int64_t row = swap ? x : y, column = swap ? y : x;
            const uint8_t *from = old.pixels + (from_below ? old.height - 1 - row : row) * old.row_bytes +
                                  3 * (from_right ? old.width - 1 - column : column);
            memcpy(out + 3 * (y * image->width + x), from, 3);
        }
    free(before);
    *pixels = out;
    return 0;
}

static int decode_jpeg(const char *path, FILE *file, struct jpeg_decompress_struct *jpeg, jpeg_failure *failure,
                       int *orientation, ps3c_image *image, uint8_t **pixels)
{
    jpeg->err = jpeg_std_error(&failure->base);
    failure->base.error_exit = jump_out;
    failure->base.emit_message = note_warning;
    if (setjmp(failure->jump))
        return fail(EXIT_IMAGE, path, "cannot be read: %s", failure->message);
    jpeg_create_decompress(jpeg);
    jpeg_stdio_src(jpeg, file);
    jpeg_save_markers(jpeg, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(jpeg, TRUE);
    if (jpeg->num_components != 1 && jpeg->num_components != 3)
        return fail(EXIT_IMAGE, path, "got a CMYK JPEG, expected RGB or grey");
    jpeg->out_color_space = JCS_RGB;
    for (jpeg_saved_marker_ptr marker = jpeg->marker_list; marker != NULL && *orientation == 1; marker = marker->next)
        *orientation = orientation_of(marker->data, marker->data_length);
    jpeg_start_decompress(jpeg);
    const int code = make_image(path, jpeg->output_height, jpeg->output_width, image, pixels);
    if (code != 0)
        return code;
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW row = *pixels + jpeg->output_scanline * (size_t)image->row_bytes;
        jpeg_read_scanlines(jpeg, &row, 1);
    }
    jpeg_finish_decompress(jpeg);
    return 0;
}

static int read_jpeg(const char *path, FILE *file, ps3c_image *image, uint8_t **pixels)
{
    struct jpeg_decompress_struct jpeg = {0};
    jpeg_failure failure;
    int orientation = 1;
    const int code = decode_jpeg(path, file, &jpeg, &failure, &orientation, image, pixels);
    jpeg_destroy_decompress(&jpeg);
    return code == 0 ? turn(path, orientation, image, pixels) : code;
}
#endif

/* ---- PNG --------------------------------------------------------------------------------------------------------- */

#ifdef PS3C_HAS_PNG
typedef struct png_reader {
    png_structp png;
    png_infop info;
    png_bytep *rows;
    uint8_t *rgba;
    char message[200];
} png_reader;

static void png_fail(png_structp png, png_const_charp message)
{
    png_reader *reader = png_get_error_ptr(png);
    snprintf(reader->message, sizeof reader->message, "%s", message);
    longjmp(png_jmpbuf(png), 1);
}
static void png_ignore(png_structp png, png_const_charp message) { (void)png, (void)message; }

/* RGBA rows put on white: c * a + 255 * (255 - a), divided by 255 and rounded. */
static void put_on_white(const png_reader *reader, int64_t count, uint8_t *out)
{
    const uint8_t *from = reader->rgba;
    for (int64_t i = 0; i < count; i++, from += 4, out += 3)
        for (int c = 0; c < 3; c++)
            out[c] = (uint8_t)((from[c] * from[3] + 255 * (255 - from[3]) + 127) / 255);
}

static int decode_png(const char *path, FILE *file, png_reader *reader, ps3c_image *image, uint8_t **pixels)
{
    reader->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, reader, png_fail, png_ignore);
    reader->info = reader->png != NULL ? png_create_info_struct(reader->png) : NULL;
    if (reader->info == NULL)
        return fail(EXIT_REFUSED, path, "not enough memory");
    if (setjmp(png_jmpbuf(reader->png)))
        return fail(EXIT_IMAGE, path, "cannot be read: %s", reader->message);
    png_init_io(reader->png, file);
    png_read_info(reader->png, reader->info);
    png_set_expand(reader->png); /* palettes, fewer than 8 bits, a transparent colour */
    /* As Pillow does: of 16-bit colours the upper byte, of 16-bit grey the nearest of 256 levels. */
    if (png_get_color_type(reader->png, reader->info) == PNG_COLOR_TYPE_GRAY)
        png_set_scale_16(reader->png);
    else
        png_set_strip_16(reader->png);
    png_set_gray_to_rgb(reader->png);
    png_set_add_alpha(reader->png, 255, PNG_FILLER_AFTER);
    png_set_interlace_handling(reader->png);
    png_read_update_info(reader->png, reader->info);
    const int64_t height = png_get_image_height(reader->png, reader->info),
                  width = png_get_image_width(reader->png, reader->info);
    const int code = make_image(path, height, width, image, pixels);
    if (code != 0)
        return code;
    reader->rgba = malloc((size_t)(4 * height * width));
    reader->rows = malloc((size_t)height * sizeof *reader->rows);
    if (reader->rgba == NULL || reader->rows == NULL)
        return fail(EXIT_REFUSED, path, "not enough memory for its pixels");
    for (int64_t y = 0; y < height; y++)
        reader->rows[y] = reader->rgba + 4 * width * y;
    png_read_image(reader->png, reader->rows);
    png_read_end(reader->png, NULL);
    put_on_white(reader, height * width, *pixels);
    return 0;
}

static int read_png(const char *path, FILE *file, ps3c_image *image, uint8_t **pixels)
{
    png_reader reader = {0};
    const int code = decode_png(path, file, &reader, image, pixels);
    png_destroy_read_struct(&reader.png, &reader.info, NULL);
    free(reader.rows);
    free(reader.rgba);
    return code;
}
#endif

/* ---- any format -------------------------------------------------------------------------------------------------- */

static int read_file(const char *path, FILE *file, ps3c_image *image, uint8_t **pixels)
{
    unsigned char start[8] = {0};
    const size_t length = fread(start, 1, sizeof start, file);
    if (length >= 2 && start[0] == 'P' && (start[1] == '5' || start[1] == '6')) {
        fseek(file, 2, SEEK_SET);
        return read_pnm(path, file, start[1] == '6' ? 3 : 1, image, pixels);
    }
    rewind(file);
    const bool jpeg = length >= 3 && memcmp(start, "\xFF\xD8\xFF", 3) == 0;
    const bool png = length == 8 && memcmp(start, "\x89PNG\r\n\x1A\n", 8) == 0;
#ifdef PS3C_HAS_JPEG
    if (jpeg)
        return read_jpeg(path, file, image, pixels);
#endif
#ifdef PS3C_HAS_PNG
    if (png)
        return read_png(path, file, image, pixels);
#endif
    return fail(EXIT_IMAGE, path, "got %s, expected %s",
                jpeg  ? "JPEG"
                : png ? "PNG"
                      : "no known image format",
                image_formats());
}

int read_image(const char *path, ps3c_image *image, uint8_t **pixels)
{
    FILE *file = fopen(path, "rb");
    *pixels = NULL;
    if (file == NULL)
        return fail(EXIT_IMAGE, path, "%s", strerror(errno));
    const int code = read_file(path, file, image, pixels);
    fclose(file);
    if (code != 0) {
        free(*pixels);
        *pixels = NULL;
    }
    return code;
}
