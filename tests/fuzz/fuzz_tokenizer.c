/* fuzz_tokenizer.c - hostile tokenizer.json files and texts.
 *
 * Input: the JSON, a newline and 0xFF (which no JSON contains), the text. Whatever loads must encode any valid text, and
 * decode what it encoded, without a crash, a leak or a runaway. */
#include "data/tokenizer.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char plain[] = "The  end, it's 12 or\n\n caf\xC3\xA9 \xE2\x96\x81<s> aaaa";
    const uint8_t *mark = size == 0 ? NULL : memchr(data, 0xFF, size);
    size_t json_size = mark == NULL ? size : (size_t)(mark - data);
    const char *text = mark == NULL ? plain : (const char *)mark + 1;
    size_t text_size = mark == NULL ? sizeof plain - 1 : size - json_size - 1;
    cab_tokenizer *t = NULL;
    cab_ids ids = {0};
    cab_bytes back = {0};
    if (cab_tokenizer_parse((const char *)data, json_size, "fuzz.json", &t) == CAB_OK &&
        cab_tokenizer_encode(t, text, text_size, &ids) == CAB_OK) {
        for (size_t i = 0; i < ids.count; i++)
            if (ids.data[i] < 0 || ids.data[i] >= cab_tokenizer_vocab_size(t))
                __builtin_trap();
        if (cab_tokenizer_decode(t, ids.data, ids.count, false, &back) != CAB_OK)
            __builtin_trap();
    }
    cab_ids_free(&ids);
    cab_bytes_free(&back);
    cab_tokenizer_free(t);
    return 0;
}
