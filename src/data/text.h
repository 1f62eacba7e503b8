/* text.h - documents out of .txt and .jsonl files, either of them as .gz, .xz or .zst.
 *
 * .txt: documents end at a line equal to the separator and lose the white space (ASCII) around them. .jsonl: one JSON
 * object per line, the document is a string field, taken as it is; blank lines are passed over. Empty documents are skipped. Memory is bounded by the longest document, whatever the size of the file. */
#ifndef CAB_DATA_TEXT_H
#define CAB_DATA_TEXT_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cab_text cab_text;

/* Whether the name ends as a text file's does. */
bool cab_text_is_text(const char *path);
/* Continues a hash over what decides the documents besides the bytes of the file. */
uint64_t cab_text_key(uint64_t hash, const char *path, const char *separator, const char *field);

/* `separator` serves .txt, `field` .jsonl; both must outlive the object. */
cab_status cab_text_open(const char *path, const char *separator, const char *field, cab_text **out);
/* The next document, valid UTF-8, borrowed until the next call; *document is NULL after the last. Truncated or damaged
 * archives, invalid UTF-8 and bad JSON are CAB_EFORMAT with the place. */
cab_status cab_text_next(cab_text *text, const char **document, size_t *size);
/* Bytes of the file read so far (compressed ones for archives), for progress. */
uint64_t cab_text_position(const cab_text *text);
void cab_text_close(cab_text *text);

#endif
