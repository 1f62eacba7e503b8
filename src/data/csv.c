#include "data/csv.h"

#include <string.h>

bool cab_csv_field(char **at, char *end, char separator, char **field, size_t *size)
{
    char *from = *at, *to = from;
    *field = from;
    if (from == end || *from != '"') {
        char *next = from == end ? NULL : memchr(from, separator, (size_t)(end - from));
        *size = (size_t)((next == NULL ? end : next) - from);
        *at = next == NULL ? NULL : next + 1;
        return true;
    }
    for (from++;; *to++ = *from++) {
        if (from == end)
            return false;
        if (*from == '"' && (++from == end || *from != '"'))
            break;
    }
    if (from < end && *from != separator)
        return false;
    *size = (size_t)(to - *field);
    *at = from < end ? from + 1 : NULL;
    return true;
}
