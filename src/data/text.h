/* text.h - documents out of text files, any of them as .gz, .xz or .zst.
 *
 *   .txt, .md      documents end at a line equal to the separator and lose the white space (ASCII) around them
 *   .jsonl         one JSON object per line; the document is a string field, taken as it is, or a conversation, rendered (chat.h);
 *                  blank lines are passed over
 *   .json          an array of such objects, one object, or several one after the other
 *   .csv, .tsv     the first record names the columns; the document is a field, which may be quoted and of several lines
 *
 * A line ends with LF or CRLF, which becomes LF within a document; a byte order mark of UTF-8 is passed over, UTF-16 is
 * refused. Empty documents are skipped. Memory is bounded by the longest document, whatever the size of the file. */
#ifndef CAB_DATA_TEXT_H
#define CAB_DATA_TEXT_H

#include "base/error.h"
#include "data/chat.h"
#include "data/expand.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cab_text cab_text;

typedef struct cab_text_options {
    const char *separator;    /* of .txt and .md */
    const char *field;        /* of the others: the field or column that holds the document */
    cab_expand_limits limits; /* of packed files; `member` bounds a document of any file */
    const cab_chat *chat;     /* what conversations are rendered by; NULL: they are no documents */
} cab_text_options;

/* Names of the kinds, for messages. */
#define CAB_TEXT_KINDS ".txt, .md, .jsonl, .json, .csv or .tsv, any of them with .gz, .xz or .zst"

/* Whether the name ends as a text file's does. */
bool cab_text_is_text(const char *path);
/* Continues a hash over what decides the documents besides the bytes of the file. */
uint64_t cab_text_key(uint64_t hash, const char *path, const cab_text_options *options);

/* The options' strings must outlive the object. */
cab_status cab_text_open(const char *path, const cab_text_options *options, cab_text **out);
/* The same from memory that must outlive the object; `name` tells the kind. */
cab_status cab_text_parse(const void *data, size_t size, const char *name, const cab_text_options *options,
                          cab_text **out);
/* The next document, valid UTF-8, borrowed until the next call; *document is NULL after the last. Truncated or damaged
 * archives, invalid UTF-8, bad JSON and bad CSV are CAB_EFORMAT with the place, and so is a document that is too long. */
cab_status cab_text_next(cab_text *text, const char **document, size_t *size);
/* Of a document that was a conversation the bytes of its answers, *count of them, borrowed likewise; NULL: it was none. */
const cab_chat_span *cab_text_spans(const cab_text *text, size_t *count);
/* Bytes of the file read so far (compressed ones for archives), for progress. */
uint64_t cab_text_position(const cab_text *text);
void cab_text_close(cab_text *text);

#endif
