/* encode.c - the ids of documents by cab's tokenizer: encode TOKENIZER.json FILE, where documents are separated by bytes 0; ids to
 * stdout, a line per document. */
#include "base/file.h"
#include "data/tokenizer.h"

#include <stdio.h>
#include <string.h>

static cab_status encode(const char *tokenizer, const char *path)
{
    cab_tokenizer *t = NULL;
    cab_map map = {0};
    cab_ids ids = {0};
    cab_status status = cab_tokenizer_load(tokenizer, &t);
    if (status == CAB_OK)
        status = cab_map_open(path, &map);
    for (size_t at = 0; status == CAB_OK && at < map.size;) {
        const char *text = (const char *)map.data + at, *end = memchr(text, '\0', map.size - at);
        const size_t size = end != NULL ? (size_t)(end - text) : map.size - at;
        ids.count = 0;
        status = cab_tokenizer_encode(t, text, size, &ids);
        for (size_t i = 0; i < ids.count; i++)
            printf(i > 0 ? " %d" : "%d", ids.data[i]);
        putchar('\n');
        at += size + 1;
    }
    cab_ids_free(&ids);
    cab_map_close(&map);
    cab_tokenizer_free(t);
    return status;
}

int main(int argc, char **argv)
{
    if (argc == 3 && encode(argv[1], argv[2]) == CAB_OK)
        return 0;
    fprintf(stderr, "%s\n", argc == 3 ? cab_error_text() : "usage: encode TOKENIZER.json FILE");
    return 1;
}
