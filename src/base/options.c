/* options.c - reading, writing and describing the fields that option tables list.
 *
 * Values come as text, from a recipe file as from the command line, and are checked here once: the whole text must be
 * read, numbers must be finite and in range, words must be among the option's. */
#include "base/options.h"

#include "base/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIST_MAX = 65536, WORD_MAX = 64, EXPECTED_MAX = 512 };

static void *field(const cab_option *option, void *object)
{
    return (char *)object + option->offset;
}

static const void *field_const(const cab_option *option, const void *object)
{
    return (const char *)object + option->offset;
}

static void set_given(const cab_option *option, void *object, bool given)
{
    if (option->given > 0)
        *(bool *)((char *)object + option->given) = given;
}

bool cab_option_given(const cab_option *option, const void *object)
{
    return option->given > 0 && *(const bool *)((const char *)object + option->given);
}

void cab_option_forget(const cab_option *option, void *object)
{
    set_given(option, object, false);
}

static void empty(const cab_option *option, void *object);

/* The default into a field; what it held is freed. */
static cab_status put_default(const cab_option *option, void *object)
{
    void *at = field(option, object);
    char *copy = NULL;
    switch (option->kind) {
    case CAB_OPTION_INT:
    case CAB_OPTION_ENUM:
        *(int64_t *)at = option->whole;
        break;
    case CAB_OPTION_REAL:
        *(double *)at = option->real;
        break;
    case CAB_OPTION_BOOL:
        *(bool *)at = option->whole != 0;
        break;
    case CAB_OPTION_TEXT:
        CAB_TRY(cab_strdup(&copy, option->text));
        cab_free(*(char **)at);
        *(char **)at = copy;
        break;
    case CAB_OPTION_LIST:
    case CAB_OPTION_INTS:
        empty(option, object);
        break;
    }
    return CAB_OK;
}

cab_status cab_options_init(cab_option_table table, void *object)
{
    for (unsigned i = 0; i < table.count; i++) {
        CAB_TRY(put_default(&table.rows[i], object));
        cab_option_forget(&table.rows[i], object);
    }
    return CAB_OK;
}

cab_status cab_option_reset(const cab_option *option, void *object)
{
    return cab_option_given(option, object) ? CAB_OK : put_default(option, object);
}

static void empty(const cab_option *option, void *object)
{
    if (option->kind == CAB_OPTION_LIST) {
        cab_list *list = field(option, object);
        for (unsigned i = 0; i < list->count; i++)
            cab_free(list->items[i]);
        cab_free(list->items);
        *list = (cab_list){0};
    } else if (option->kind == CAB_OPTION_INTS) {
        cab_int_list *list = field(option, object);
        cab_free(list->items);
        *list = (cab_int_list){0};
    }
}

void cab_option_empty(const cab_option *option, void *object)
{
    empty(option, object);
    set_given(option, object, true);
}

void cab_options_clear(cab_option_table table, void *object)
{
    for (unsigned i = 0; i < table.count; i++) {
        const cab_option *option = &table.rows[i];
        if (option->kind == CAB_OPTION_TEXT) {
            char **text = field(option, object);
            cab_free(*text);
            *text = NULL;
        }
        empty(option, object);
        cab_option_forget(option, object);
    }
}

const cab_option *cab_option_find(cab_option_table table, const char *key)
{
    for (unsigned i = 0; i < table.count; i++) {
        const char *a = table.rows[i].key, *b = key;
        while (*a && (*a == *b || (*a == '_' && *b == '-')))
            a++, b++;
        if (*a == '\0' && *b == '\0')
            return &table.rows[i];
    }
    return NULL;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

/* Digits, optionally signed, or a decimal number without a fraction: 50e6 is how people write fifty million. */
static bool read_whole(const char *text, int64_t *out)
{
    char *end;
    if (text[0] == '\0' || strspn(text, "+-0123456789.eE") != strlen(text))
        return false;
    errno = 0;
    long long whole = strtoll(text, &end, 10);
    if (end != text && *end == '\0') {
        *out = whole;
        return errno == 0;
    }
    double real = strtod(text, &end);
    if (end == text || *end != '\0' || !(fabs(real) < 9007199254740992.0) || real != floor(real))
        return false;
    *out = (int64_t)real;
    return true;
}

static bool read_real(const char *text, double *out)
{
    char *end;
    if (text[0] == '\0' || strspn(text, "+-0123456789.eE") != strlen(text))
        return false;
    *out = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*out);
}

static bool read_bool(const char *text, bool *out)
{
    static const char *const words[][2] = {{"false", "true"}, {"no", "yes"}, {"off", "on"}, {"0", "1"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        for (int value = 0; value < 2; value++) {
            if (strcmp(text, words[i][value]) == 0) {
                *out = value;
                return true;
            }
        }
    }
    return false;
}

static cab_status refuse(const cab_option *option, const char *name, const char *value)
{
    char expected[EXPECTED_MAX], found[WORD_MAX], word[WORD_MAX];
    cab_option_expected(option, expected, sizeof expected);
    cab_printable(value, found, sizeof found);
    if (option->kind == CAB_OPTION_ENUM) {
        cab_nearest nearest = cab_nearest_begin(value);
        for (unsigned i = 0; cab_words_get(option->words, i, word, sizeof word); i++)
            cab_nearest_offer(&nearest, word, NULL);
        if (nearest.best[0])
            return cab_fail(CAB_EARG, "%s: found \"%s\", did you mean \"%s\"? Expected %s", name, found, nearest.best,
                            expected);
    }
    return cab_fail(CAB_EARG, "%s: found \"%s\", expected %s", name, found, expected);
}

static cab_status append_text(cab_list *list, const char *name, const char *value)
{
    size_t capacity = list->count;
    if (list->count >= LIST_MAX)
        return cab_fail(CAB_EARG, "%s: more than %d items", name, LIST_MAX);
    if ((list->count & (list->count - 1)) == 0) { /* room is doubled at powers of two */
        CAB_TRY(CAB_GROW(&list->items, &capacity, list->count ? 2 * (size_t)list->count : 1, "list of options"));
    }
    CAB_TRY(cab_strdup(&list->items[list->count], value));
    list->count++;
    return CAB_OK;
}

static cab_status append_whole(cab_int_list *list, const char *name, int64_t value)
{
    size_t capacity = list->count;
    if (list->count >= LIST_MAX)
        return cab_fail(CAB_EARG, "%s: more than %d items", name, LIST_MAX);
    if ((list->count & (list->count - 1)) == 0) {
        CAB_TRY(CAB_GROW(&list->items, &capacity, list->count ? 2 * (size_t)list->count : 1, "list of options"));
    }
    list->items[list->count++] = value;
    return CAB_OK;
}

static cab_status append(const cab_option *option, void *object, const char *name, const char *value)
{
    if (option->kind == CAB_OPTION_LIST)
        return append_text(field(option, object), name, value);
    int64_t whole;
    if (!read_whole(value, &whole) || whole < option->low || whole > option->high)
        return refuse(option, name, value);
    return append_whole(field(option, object), name, whole);
}

cab_status cab_option_append(const cab_option *option, void *object, const char *name, const char *value)
{
    CAB_TRY(append(option, object, name, value));
    set_given(option, object, true);
    return CAB_OK;
}

static cab_status set_list(const cab_option *option, void *object, const char *name, const char *value)
{
    empty(option, object);
    if (value[0] == '\0')
        return CAB_OK;
    char *copy;
    cab_status status = CAB_OK;
    CAB_TRY(cab_strdup(&copy, value));
    for (char *item = copy, *comma; status == CAB_OK && item; item = comma ? comma + 1 : NULL) {
        comma = strchr(item, ',');
        if (comma)
            *comma = '\0';
        status = append(option, object, name, item);
    }
    cab_free(copy);
    return status;
}

static cab_status put(const cab_option *option, void *object, const char *name, const char *value)
{
    void *at = field(option, object);
    switch (option->kind) {
    case CAB_OPTION_INT: {
        int64_t whole;
        if (!read_whole(value, &whole) || whole < option->low || whole > option->high)
            return refuse(option, name, value);
        *(int64_t *)at = whole;
        return CAB_OK;
    }
    case CAB_OPTION_REAL: {
        double real;
        if (!read_real(value, &real) || !(real >= option->real_low && real <= option->real_high))
            return refuse(option, name, value);
        *(double *)at = real;
        return CAB_OK;
    }
    case CAB_OPTION_BOOL:
        return read_bool(value, at) ? CAB_OK : refuse(option, name, value);
    case CAB_OPTION_ENUM: {
        int index = cab_words_find(option->words, value);
        if (index < 0)
            return refuse(option, name, value);
        *(int64_t *)at = index;
        return CAB_OK;
    }
    case CAB_OPTION_TEXT: {
        char *copy;
        CAB_TRY(cab_strdup(&copy, value));
        cab_free(*(char **)at);
        *(char **)at = copy;
        return CAB_OK;
    }
    case CAB_OPTION_LIST:
    case CAB_OPTION_INTS:
        return set_list(option, object, name, value);
    }
    return cab_fail(CAB_EARG, "%s: an option of unknown kind", name);
}

cab_status cab_option_set(const cab_option *option, void *object, const char *name, const char *value)
{
    CAB_TRY(put(option, object, name, value));
    set_given(option, object, true);
    return CAB_OK;
}

cab_status cab_option_preset(const cab_option *option, void *object, const char *name, const char *value)
{
    return cab_option_given(option, object) ? CAB_OK : put(option, object, name, value);
}

/* ---- writing and describing ------------------------------------------------------------------------------------- */

unsigned cab_option_count(const cab_option *option, const void *object)
{
    if (option->kind == CAB_OPTION_LIST)
        return ((const cab_list *)field_const(option, object))->count;
    if (option->kind == CAB_OPTION_INTS)
        return ((const cab_int_list *)field_const(option, object))->count;
    return 1;
}

/* The shortest decimal that reads back to the same double. */
static void format_real(double value, char *out, size_t size)
{
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(out, size, "%.*g", digits, value);
        if (strtod(out, NULL) == value)
            return;
    }
}

cab_status cab_option_format(const cab_option *option, const void *object, unsigned index, char **out)
{
    const void *at = field_const(option, object);
    char text[WORD_MAX] = "";
    switch (option->kind) {
    case CAB_OPTION_INT:
        snprintf(text, sizeof text, "%" PRId64, *(const int64_t *)at);
        break;
    case CAB_OPTION_REAL:
        format_real(*(const double *)at, text, sizeof text);
        break;
    case CAB_OPTION_BOOL:
        snprintf(text, sizeof text, "%s", *(const bool *)at ? "true" : "false");
        break;
    case CAB_OPTION_ENUM:
        if (!cab_words_get(option->words, (unsigned)*(const int64_t *)at, text, sizeof text))
            return cab_fail(CAB_EARG, "%s: holds %" PRId64 ", which is none of its words", option->key,
                            *(const int64_t *)at);
        break;
    case CAB_OPTION_TEXT:
        return cab_strdup(out, *(char *const *)at);
    case CAB_OPTION_LIST:
        return cab_strdup(out, ((const cab_list *)at)->items[index]);
    case CAB_OPTION_INTS:
        snprintf(text, sizeof text, "%" PRId64, ((const cab_int_list *)at)->items[index]);
        break;
    }
    return cab_strdup(out, text);
}

static void expected_whole(const cab_option *option, const char *what, char *out, size_t size)
{
    if (option->low == INT64_MIN && option->high == INT64_MAX)
        snprintf(out, size, "%s", what);
    else if (option->high == INT64_MAX)
        snprintf(out, size, "%s, %" PRId64 " or more", what, option->low);
    else
        snprintf(out, size, "%s from %" PRId64 " to %" PRId64, what, option->low, option->high);
}

void cab_option_expected(const cab_option *option, char *out, size_t size)
{
    char word[WORD_MAX];
    size_t used;
    switch (option->kind) {
    case CAB_OPTION_INT:
        expected_whole(option, "a whole number", out, size);
        break;
    case CAB_OPTION_REAL:
        snprintf(out, size, "a number from %g to %g", option->real_low, option->real_high);
        break;
    case CAB_OPTION_BOOL:
        snprintf(out, size, "true or false");
        break;
    case CAB_OPTION_ENUM:
        snprintf(out, size, "one of");
        for (unsigned i = 0; cab_words_get(option->words, i, word, sizeof word); i++) {
            used = strlen(out);
            snprintf(out + used, size - used, "%s %s", i ? "," : "", word);
        }
        break;
    case CAB_OPTION_TEXT:
        snprintf(out, size, "text");
        break;
    case CAB_OPTION_LIST:
        snprintf(out, size, "a list of texts");
        break;
    case CAB_OPTION_INTS:
        expected_whole(option, "a list of whole numbers", out, size);
        break;
    }
}

bool cab_option_at_default(const cab_option *option, const void *object)
{
    const void *at = field_const(option, object);
    switch (option->kind) {
    case CAB_OPTION_INT:
    case CAB_OPTION_ENUM:
        return *(const int64_t *)at == option->whole;
    case CAB_OPTION_REAL:
        return *(const double *)at == option->real;
    case CAB_OPTION_BOOL:
        return *(const bool *)at == (option->whole != 0);
    case CAB_OPTION_TEXT:
        return strcmp(*(char *const *)at, option->text) == 0;
    case CAB_OPTION_LIST:
    case CAB_OPTION_INTS:
        return cab_option_count(option, object) == 0;
    }
    return false;
}

void cab_option_default(const cab_option *option, char *out, size_t size)
{
    switch (option->kind) {
    case CAB_OPTION_INT:
        snprintf(out, size, "%" PRId64, option->whole);
        break;
    case CAB_OPTION_REAL:
        format_real(option->real, out, size);
        break;
    case CAB_OPTION_BOOL:
        snprintf(out, size, "%s", option->whole ? "true" : "false");
        break;
    case CAB_OPTION_ENUM:
        cab_words_get(option->words, (unsigned)option->whole, out, size);
        break;
    case CAB_OPTION_TEXT:
        snprintf(out, size, "%s", option->text[0] ? option->text : "none");
        break;
    case CAB_OPTION_LIST:
    case CAB_OPTION_INTS:
        snprintf(out, size, "none");
        break;
    }
}

/* ---- words ------------------------------------------------------------------------------------------------------ */

bool cab_words_get(const char *words, unsigned index, char *out, size_t size)
{
    for (; index > 0; index--) {
        words = strchr(words, '|');
        if (!words)
            return false;
        words++;
    }
    snprintf(out, size, "%.*s", (int)strcspn(words, "|"), words);
    return true;
}

int cab_words_find(const char *words, const char *word)
{
    char candidate[WORD_MAX];
    for (unsigned i = 0; cab_words_get(words, i, candidate, sizeof candidate); i++) {
        if (strcmp(candidate, word) == 0)
            return (int)i;
    }
    return -1;
}

/* Optimal string alignment distance by three rolling rows; words longer than the rows are never near. */
static unsigned edit_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    unsigned rows[3][WORD_MAX + 1];
    if (n > WORD_MAX || m > WORD_MAX)
        return UINT_MAX;
    unsigned *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= m; j++)
        last[j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
        unsigned *spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[m];
}

cab_nearest cab_nearest_begin(const char *word)
{
    return (cab_nearest){.word = word, .distance = UINT_MAX};
}

/* Near enough: a third of the longer word may differ, and at least one letter of a short one. */
void cab_nearest_offer(cab_nearest *nearest, const char *candidate, const char *shown)
{
    size_t n = strlen(nearest->word), m = strlen(candidate);
    unsigned limit = (unsigned)((n > m ? n : m) + 2) / 3;
    unsigned distance = edit_distance(nearest->word, candidate);
    if (distance <= limit && distance < nearest->distance) {
        snprintf(nearest->best, sizeof nearest->best, "%s", shown ? shown : candidate);
        nearest->distance = distance;
    }
}

const char *cab_printable(const char *text, char *out, size_t size)
{
    size_t n = 0;
    for (; text[n] && n + 1 < size; n++)
        out[n] = (unsigned char)text[n] < 0x20 || text[n] == 0x7f ? '?' : text[n];
    out[n] = '\0';
    return out;
}
