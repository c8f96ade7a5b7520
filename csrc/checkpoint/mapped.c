/* Opens and maps the files of a checkpoint folder with suspicion. */
#define _GNU_SOURCE
#include "mapped.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char lfs_pointer[] = "version https://git-lfs";

/* folder/name in new memory, or NULL. */
static char *join(const char *folder, const char *name)
{
    char *path;
    return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

bool ps3c_has_entry(const char *folder, const char *name)
{
    struct stat found;
    char *path = join(folder, name);
    const bool has = path != NULL && lstat(path, &found) == 0;
    free(path);
    return has;
}

static const char *kind_of(mode_t mode)
{
    return S_ISFIFO(mode)                   ? "a named pipe"
           : S_ISSOCK(mode)                 ? "a socket"
           : S_ISDIR(mode)                  ? "a folder"
           : S_ISCHR(mode) || S_ISBLK(mode) ? "a device"
                                            : "a special file";
}

/* Is the resolved path a blob of a Hugging Face cache, .../models--OWNER--NAME/blobs/HASH? */
static bool is_of_hub_cache(const char *path)
{
    const char *blob = strrchr(path, '/');
    static const char parent[] = "/blobs", models[] = "/models--";
    if (blob == NULL || blob - path < (ptrdiff_t)(sizeof parent - 1) ||
        strncmp(blob - (sizeof parent - 1), parent, sizeof parent - 1) != 0)
        return false;
    const char *end = blob - (sizeof parent - 1), *start = end;
    while (start > path && start[-1] != '/')
        start--;
    return start > path && strncmp(start - 1, models, sizeof models - 1) == 0;
}

/* Refuses a link to a file outside of the folder. */
static ps3c_status check_inside(ps3c_context *context, const char *folder, const char *name, const char *path)
{
    char *home = realpath(folder, NULL), *place = realpath(path, NULL);
    ps3c_status status = PS3C_OK;
    if (home == NULL || place == NULL) {
        status = ps3c_fail(context, PS3C_ERROR_CHECKPOINT, "%s: got a link that leads nowhere, expected a regular file",
                           name);
    } else {
        const size_t length = strcmp(home, "/") == 0 ? 0 : strlen(home);
        const bool inside = strncmp(place, home, length) == 0 && place[length] == '/';
        if (!inside && !is_of_hub_cache(place))
            status = ps3c_fail(context, PS3C_ERROR_CHECKPOINT,
                               "%s: got a link to %s, which is outside the folder, expected a file; copy it into the "
                               "folder",
                               name, place);
    }
    free(home);
    free(place);
    return status;
}

static ps3c_status fail_errno(ps3c_context *context, const char *name, int error)
{
    return ps3c_fail(context, error == ENOMEM ? PS3C_ERROR_MEMORY : PS3C_ERROR_CHECKPOINT, "%s cannot be read: %s",
                     name, strerror(error));
}

static ps3c_status check_regular(ps3c_context *context, const char *name, mode_t mode)
{
    return S_ISREG(mode)
               ? PS3C_OK
               : ps3c_fail(context, PS3C_ERROR_CHECKPOINT, "%s: got %s, expected a regular file", name, kind_of(mode));
}

/* Maps the open file. The descriptor belongs to *mapped on success. */
static ps3c_status map(ps3c_context *context, int descriptor, ps3c_mapped *mapped)
{
    struct stat found;
    if (fstat(descriptor, &found) < 0)
        return fail_errno(context, mapped->name, errno);
    PS3C_TRY(check_regular(context, mapped->name, found.st_mode)); /* another file may be there now */
    mapped->size = (size_t)found.st_size;
    void *data = NULL;
    if (mapped->size > 0) {
        data = mmap(NULL, mapped->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, descriptor, 0);
        if (data == MAP_FAILED)
            return fail_errno(context, mapped->name, errno);
    }
    mapped->data = data;
    mapped->descriptor = descriptor;
    if (mapped->size >= sizeof lfs_pointer - 1 && memcmp(data, lfs_pointer, sizeof lfs_pointer - 1) == 0)
        return ps3c_fail(context, PS3C_ERROR_CHECKPOINT,
                         "%s is a Git LFS pointer, not the file itself; git lfs pull downloads the file", mapped->name);
    return PS3C_OK;
}

static ps3c_status open_path(ps3c_context *context, const char *folder, const char *path, ps3c_mapped *mapped)
{
    const char *name = mapped->name;
    struct stat found;
    if (stat(path, &found) < 0) {
        if (lstat(path, &found) < 0)
            return errno == ENOENT ? ps3c_fail(context, PS3C_ERROR_CHECKPOINT, "%s: the file does not exist", name)
                                   : fail_errno(context, name, errno);
        return ps3c_fail(context, PS3C_ERROR_CHECKPOINT, "%s: got a link that leads nowhere, expected a regular file",
                         name);
    }
    PS3C_TRY(check_regular(context, name, found.st_mode));
    PS3C_TRY(check_inside(context, folder, name, path));
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (descriptor < 0)
        return fail_errno(context, name, errno);
    ps3c_status status = map(context, descriptor, mapped);
    if (status != PS3C_OK && mapped->descriptor < 0)
        close(descriptor);
    return status;
}

ps3c_status ps3c_mapped_open(ps3c_context *context, const char *folder, const char *name, ps3c_mapped *mapped)
{
    char *path = join(folder, name);
    *mapped = (ps3c_mapped){.name = strdup(name), .descriptor = -1};
    ps3c_status status = path != NULL && mapped->name != NULL
                             ? open_path(context, folder, path, mapped)
                             : ps3c_fail(context, PS3C_ERROR_MEMORY, "no memory for the path of %s", name);
    free(path);
    if (status != PS3C_OK)
        ps3c_mapped_close(mapped);
    return status;
}

void ps3c_mapped_close(ps3c_mapped *mapped)
{
    if (mapped->data != NULL)
        munmap(mapped->data, mapped->size);
    if (mapped->descriptor >= 0)
        close(mapped->descriptor);
    free(mapped->name);
    *mapped = (ps3c_mapped){.descriptor = -1};
}

ps3c_status ps3c_mapped_check(ps3c_context *context, const ps3c_mapped *mapped)
{
    struct stat found;
    if (mapped->descriptor < 0 || fstat(mapped->descriptor, &found) < 0 || (size_t)found.st_size >= mapped->size)
        return PS3C_OK;
    return ps3c_fail(context, PS3C_ERROR_CHECKPOINT,
                     "%s: got %lld bytes, expected %zu: the file was changed after it was opened; write a new file and "
                     "rename it",
                     mapped->name, (long long)found.st_size, mapped->size);
}
