/* Regular files inside a checkpoint folder, mapped into memory. */
#ifndef PS3C_MAPPED_H
#define PS3C_MAPPED_H

#include "../contract/error.h"

/* A file in memory. Its pages are those of the system's cache, which all processes share, until somebody writes to
 * them: writes change this process's copy alone and never the file. */
typedef struct ps3c_mapped {
    char *name; /* relative to the folder, for messages */
    uint8_t *data;
    size_t size;
    int descriptor;
} ps3c_mapped;

/* Opens folder/name. Call ps3c_mapped_close if it returns OK.
 *
 * Refused: what is no regular file (opening a pipe could wait for ever), a link that leads out of the folder unless to
 * the blobs of a Hugging Face cache, and a pointer of Git LFS. ERROR_CHECKPOINT names the file; ERROR_MEMORY. */
ps3c_status ps3c_mapped_open(ps3c_context *context, const char *folder, const char *name, ps3c_mapped *mapped);
void ps3c_mapped_close(ps3c_mapped *mapped);

/* ERROR_CHECKPOINT if the file is shorter now than when it was opened. Reading memory past its end would stop the
 * process with SIGBUS. Called before each use; a file that shrinks during a run cannot be detected. */
ps3c_status ps3c_mapped_check(ps3c_context *context, const ps3c_mapped *mapped);

/* True if there is a directory entry folder/name, of whatever kind. */
bool ps3c_has_entry(const char *folder, const char *name);

#endif
