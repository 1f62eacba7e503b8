/* fuzz_text.c - any bytes as a text file of each kind, plain or packed. The first byte chooses the kind. Whatever documents come
 * out are valid UTF-8 and not empty, no more than allowed is expanded, and a failure has its sentence. */
#include "data/text.h"
#include "data/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MEMBER_MAX = 1 << 20, EXPANDED_MAX = 4 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"f.txt",    "f.jsonl",    "f.json",      "f.csv",     "f.tsv",
                                        "f.txt.gz", "f.jsonl.gz", "f.csv.gz",    "f.txt.xz",  "f.jsonl.xz",
                                        "f.csv.xz", "f.txt.zst",  "f.jsonl.zst", "f.json.zst"};
    const cab_text_options options = {
        .separator = "---", .field = "text", .limits = {.member = MEMBER_MAX, .total = EXPANDED_MAX}};
    cab_text *t = NULL;
    const char *document = NULL;
    size_t length = 0, sum = 0;
    if (size == 0)
        return 0;
    cab_error_set_text("");
    cab_status status =
        cab_text_parse(data + 1, size - 1, names[data[0] % (sizeof names / sizeof *names)], &options, &t);
    if ((status == CAB_OK) != (t != NULL))
        abort();
    while (status == CAB_OK && (status = cab_text_next(t, &document, &length)) == CAB_OK && document != NULL) {
        if (length == 0 || cab_utf8_valid(document, length) != length)
            abort();
        sum += length;
    }
    if (status != CAB_OK && (cab_error_text()[0] == '\0' || strchr(cab_error_text(), '\n') != NULL))
        abort();
    if (sum > EXPANDED_MAX + size)
        abort();
    cab_text_close(t);
    return 0;
}
