/* text_internal.h - what the files of a text reader share.
 *
 *   text.c             opening, reading on, lines            text_documents.c   documents of each kind
 *
 * The buffer holds the document under way and what was read beyond it; `start` is where that begins, `scan` how far it was
 * searched. Both move when the buffer does. */
#ifndef CAB_DATA_TEXT_INTERNAL_H
#define CAB_DATA_TEXT_INTERNAL_H

#include "base/file.h"
#include "data/buffer.h"
#include "data/text.h"

#include <json-c/json.h>

typedef cab_status cab_text_reader(cab_text *t, const char **document, size_t *size);

typedef enum cab_json_place {
    CAB_JSON_START,
    CAB_JSON_FIRST,
    CAB_JSON_NEXT,
    CAB_JSON_BARE,
    CAB_JSON_END
} cab_json_place;

struct cab_text {
    char *name;
    cab_text_options options;
    cab_text_reader *next;
    char comma;  /* between the fields of a record */
    cab_map map; /* empty when parsed from somebody else's memory */
    const uint8_t *data;
    size_t size, read;
    cab_expander *expander; /* NULL: plain */
    bool ended;
    cab_bytes buffer;
    size_t start, scan;
    uint64_t offset;         /* of buffer.data[0] in the text, after decompression */
    uint64_t document, line; /* documents and lines (objects of .json) so far */
    struct json_tokener *tokener;
    json_object *object;           /* owns the document lent out */
    cab_conversation conversation; /* or this does, if the document is one */
    bool chatted;
    cab_json_place place;
    size_t columns, column; /* of .csv; 0 columns: the names were not read yet */
    cab_bytes names;        /* of the columns, for messages */
};

/* Makes sure that the byte at scan + ahead is in the buffer; *there is false past the end of the text. */
cab_status cab_text_want(cab_text *t, size_t ahead, bool *there);
/* The next line as [*begin, *end) of the buffer, without its end; *found is false at the end of the file. `start` is not
 * moved, so the lines of a document stay. */
cab_status cab_text_line(cab_text *t, size_t *begin, size_t *end, bool *found);

cab_text_reader cab_text_next_lines, cab_text_next_jsonl, cab_text_next_json, cab_text_next_csv;

#endif
