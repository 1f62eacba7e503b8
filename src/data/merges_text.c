/* merges_text.c - the merges of a tokenizer.json in their shorter form: ["a", "b"] becomes "a b", followed by spaces so that nothing else
 * moves. A list of two, parsed, takes six times the memory of a string, and large tokenizers have half a million. */
#include "data/tokenizer_internal.h"

#include <string.h>

static size_t skip_space(const char *text, size_t size, size_t at)
{
    while (at < size && (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || text[at] == '\t'))
        at++;
    return at;
}

/* Behind the string that begins at `at`; 0: it does not end. */
static size_t skip_string(const char *text, size_t size, size_t at)
{
    for (at++; at < size && text[at] != '"'; at++)
        at += text[at] == '\\';
    return at < size ? at + 1 : 0;
}

/* A string that can stand beside another: not empty, no space, no escape that may be one. */
static bool is_plain(const char *text, size_t begin, size_t end)
{
    if (end - begin <= 2)
        return false;
    for (size_t i = begin + 1; i + 1 < end; i++)
        if (text[i] == ' ' || (text[i] == '\\' && text[i + 1] == 'u'))
            return false;
    return true;
}

/* Shortens the pair that begins at `at`. Returns what is behind it; 0: it is none. */
static size_t shorten_pair(char *text, size_t size, size_t at)
{
    size_t begin[2], end[2], next = at + 1;
    for (int i = 0; i < 2; i++) {
        begin[i] = skip_space(text, size, next);
        if (begin[i] >= size || text[begin[i]] != '"' || (end[i] = skip_string(text, size, begin[i])) == 0)
            return 0;
        next = skip_space(text, size, end[i]);
        if (next >= size || text[next++] != (i == 0 ? ',' : ']'))
            return 0;
    }
    if (!is_plain(text, begin[0], end[0]) || !is_plain(text, begin[1], end[1]))
        return next;
    size_t to = at + (end[0] - begin[0]) - 1;
    memmove(text + at, text + begin[0], end[0] - begin[0] - 1); /* without the quote at its end */
    text[to++] = ' ';
    memmove(text + to, text + begin[1] + 1, end[1] - begin[1] - 1);
    to += end[1] - begin[1] - 1;
    memset(text + to, ' ', next - to);
    return next;
}

/* The list that begins at `at`, as far as it is one of pairs and strings. Returns where that ends. */
static size_t shorten_list(char *text, size_t size, size_t at)
{
    for (at = skip_space(text, size, at + 1); at < size; at = skip_space(text, size, at + 1)) {
        const size_t behind = text[at] == '['   ? shorten_pair(text, size, at)
                              : text[at] == '"' ? skip_string(text, size, at)
                                                : 0;
        if (behind == 0)
            return at;
        at = skip_space(text, size, behind);
        if (at >= size || text[at] != ',')
            return at;
    }
    return at;
}

void cab_merges_shorten(char *text, size_t size)
{
    static const char key[] = "\"merges\"";
    for (size_t at = 0; at < size;) {
        if (text[at] != '"') {
            at++;
            continue;
        }
        const size_t end = skip_string(text, size, at), length = end - at;
        if (end == 0)
            return;
        const bool named = length == sizeof key - 1 && memcmp(text + at, key, length) == 0;
        at = skip_space(text, size, end);
        if (!named || at >= size || text[at] != ':')
            continue;
        at = skip_space(text, size, at + 1);
        if (at < size && text[at] == '[')
            at = shorten_list(text, size, at);
    }
}
