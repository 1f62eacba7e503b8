/* options.h - option tables: one row is the struct field, its default, its key, its flag and its line in every manual.
 *
 * A table is an X-macro over seven row kinds; the same rows give the struct (CAB_FIELDS) and the descriptors
 * (CAB_OPTION_TABLE), so that neither can be forgotten:
 *
 *     #define PAINT_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS) \
 *         INT(coats, 2, 1, 9, "coats of paint")                      \
 *         ENUM(finish, 0, "matt|gloss", "how it shines")
 *     struct paint { CAB_FIELDS(PAINT_OPTIONS) };
 *     CAB_OPTION_TABLE(paint_table, struct paint, PAINT_OPTIONS)
 *
 * A field knows whether it was set: cab_option_set() and its kin note it beside the value, so that what is set to the default
 * is still set; cab_option_preset() fills in what was not.
 *
 * Rows of a recipe:      INT(field, default, low, high, help)   REAL(field, default, low, high, help)
 *                        BOOL(field, default, help)             TEXT(field, default, help)
 *                        ENUM(field, default, "a|b|c", help)    LIST(field, help)    INTS(field, help)
 * Rows of a command line (CAB_FLAG_TABLE) have the short letter (0: none) and the word that stands for the value in
 * the manual after the field: INT(field, 'n', "N", default, low, high, help); a BOOL only the letter. */
#ifndef CAB_BASE_OPTIONS_H
#define CAB_BASE_OPTIONS_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct cab_list {
    char **items;
    unsigned count;
} cab_list;

typedef struct cab_int_list {
    int64_t *items;
    unsigned count;
} cab_int_list;

typedef enum cab_option_kind {
    CAB_OPTION_INT,  /* int64_t */
    CAB_OPTION_REAL, /* double */
    CAB_OPTION_BOOL, /* bool */
    CAB_OPTION_TEXT, /* char *, owned, never NULL after cab_options_init() */
    CAB_OPTION_ENUM, /* int64_t, the index of the word */
    CAB_OPTION_LIST, /* cab_list */
    CAB_OPTION_INTS  /* cab_int_list */
} cab_option_kind;

typedef struct cab_option {
    cab_option_kind kind;
    char letter;      /* short flag; 0: none */
    const char *key;  /* field name; flags write '-' for '_' */
    const char *hint; /* FILE, DIR, N ... in the manual of a flag */
    const char *help;
    size_t offset;
    size_t given;                     /* of the bool that says whether it was set; 0: not kept */
    int64_t whole, low, high;         /* INT; default of BOOL and ENUM */
    double real, real_low, real_high; /* REAL */
    const char *text;                 /* default of TEXT */
    const char *words;                /* ENUM: "a|b|c" */
} cab_option;

typedef struct cab_option_table {
    const cab_option *rows;
    unsigned count;
} cab_option_table;

/* The value, and whether somebody has set it: field_given. */
#define CAB_FIELD(type, field)                                                                                         \
    type field;                                                                                                        \
    bool field##_given;
#define CAB_FIELD_INT(field, ...) CAB_FIELD(int64_t, field)
#define CAB_FIELD_REAL(field, ...) CAB_FIELD(double, field)
#define CAB_FIELD_BOOL(field, ...) CAB_FIELD(bool, field)
#define CAB_FIELD_TEXT(field, ...) CAB_FIELD(char *, field)
#define CAB_FIELD_ENUM(field, ...) CAB_FIELD(int64_t, field)
#define CAB_FIELD_LIST(field, ...) CAB_FIELD(cab_list, field)
#define CAB_FIELD_INTS(field, ...) CAB_FIELD(cab_int_list, field)
#define CAB_FIELDS(SECTION)                                                                                            \
    SECTION(CAB_FIELD_INT, CAB_FIELD_REAL, CAB_FIELD_BOOL, CAB_FIELD_TEXT, CAB_FIELD_ENUM, CAB_FIELD_LIST,             \
            CAB_FIELD_INTS)

#define CAB_ROW(kind_, field_, help_)                                                                                  \
    .kind = CAB_OPTION_##kind_, .key = #field_, .offset = offsetof(owner, field_),                                     \
    .given = offsetof(owner, field_##_given), .help = help_
#define CAB_ROW_INT(field_, default_, low_, high_, help_)                                                              \
    {CAB_ROW(INT, field_, help_), .whole = default_, .low = low_, .high = high_},
#define CAB_ROW_REAL(field_, default_, low_, high_, help_)                                                             \
    {CAB_ROW(REAL, field_, help_), .real = default_, .real_low = low_, .real_high = high_},
#define CAB_ROW_BOOL(field_, default_, help_) {CAB_ROW(BOOL, field_, help_), .whole = default_},
#define CAB_ROW_TEXT(field_, default_, help_) {CAB_ROW(TEXT, field_, help_), .text = default_},
#define CAB_ROW_ENUM(field_, default_, words_, help_)                                                                  \
    {CAB_ROW(ENUM, field_, help_), .whole = default_, .words = words_},
#define CAB_ROW_LIST(field_, help_) {CAB_ROW(LIST, field_, help_)},
#define CAB_ROW_INTS(field_, help_) {CAB_ROW(INTS, field_, help_), .low = INT64_MIN, .high = INT64_MAX},

#define CAB_FLAG(kind_, field_, letter_, hint_, help_) CAB_ROW(kind_, field_, help_), .letter = letter_, .hint = hint_
#define CAB_FLAG_INT(field_, letter_, hint_, default_, low_, high_, help_)                                             \
    {CAB_FLAG(INT, field_, letter_, hint_, help_), .whole = default_, .low = low_, .high = high_},
#define CAB_FLAG_REAL(field_, letter_, hint_, default_, low_, high_, help_)                                            \
    {CAB_FLAG(REAL, field_, letter_, hint_, help_), .real = default_, .real_low = low_, .real_high = high_},
#define CAB_FLAG_BOOL(field_, letter_, help_) {CAB_FLAG(BOOL, field_, letter_, NULL, help_)},
#define CAB_FLAG_TEXT(field_, letter_, hint_, default_, help_)                                                         \
    {CAB_FLAG(TEXT, field_, letter_, hint_, help_), .text = default_},
#define CAB_FLAG_ENUM(field_, letter_, hint_, default_, words_, help_)                                                 \
    {CAB_FLAG(ENUM, field_, letter_, hint_, help_), .whole = default_, .words = words_},
#define CAB_FLAG_LIST(field_, letter_, hint_, help_) {CAB_FLAG(LIST, field_, letter_, hint_, help_)},
#define CAB_FLAG_INTS(field_, letter_, hint_, help_)                                                                   \
    {CAB_FLAG(INTS, field_, letter_, hint_, help_), .low = INT64_MIN, .high = INT64_MAX},

/* Defines `static cab_option_table name(void)`. The local typedef is what the rows take their offsets in. */
#define CAB_TABLE(name, type, ROWS)                                                                                    \
    static cab_option_table name(void)                                                                                 \
    {                                                                                                                  \
        typedef type owner;                                                                                            \
        static const cab_option rows[] = {ROWS};                                                                       \
        return (cab_option_table){rows, sizeof rows / sizeof *rows};                                                   \
    }
#define CAB_OPTION_TABLE(name, type, SECTION)                                                                          \
    CAB_TABLE(                                                                                                         \
        name, type,                                                                                                    \
        SECTION(CAB_ROW_INT, CAB_ROW_REAL, CAB_ROW_BOOL, CAB_ROW_TEXT, CAB_ROW_ENUM, CAB_ROW_LIST, CAB_ROW_INTS))
#define CAB_FLAG_TABLE(name, type, SECTION)                                                                            \
    CAB_TABLE(name, type,                                                                                              \
              SECTION(CAB_FLAG_INT, CAB_FLAG_REAL, CAB_FLAG_BOOL, CAB_FLAG_TEXT, CAB_FLAG_ENUM, CAB_FLAG_LIST,         \
                      CAB_FLAG_INTS))

/* Fills every field of the table with its default. `object` must be zeroed or cleared. On failure it stays clearable. */
cab_status cab_options_init(cab_option_table table, void *object);
/* Frees what the fields own and zeroes them. */
void cab_options_clear(cab_option_table table, void *object);
/* The row called `key`, or NULL. '-' matches '_'. */
const cab_option *cab_option_find(cab_option_table table, const char *key);

/* Reads `value` into the field. `name` is how the error calls it ("train.lr", "--seed"): CAB_EARG, "<name>: found "x",
 * expected a number from 0 to 10". Lists are replaced by the comma-separated items of `value` ("" is the empty list). */
cab_status cab_option_set(const cab_option *option, void *object, const char *name, const char *value);
/* The same where nobody has set the field, which it leaves so. */
cab_status cab_option_preset(const cab_option *option, void *object, const char *name, const char *value);
/* Its default again where nobody has set it. */
cab_status cab_option_reset(const cab_option *option, void *object);
/* Whether it was set; then as if it had not been. */
bool cab_option_given(const cab_option *option, const void *object);
void cab_option_forget(const cab_option *option, void *object);
/* LIST and INTS: adds one item as it stands. */
cab_status cab_option_append(const cab_option *option, void *object, const char *name, const char *value);
/* LIST and INTS: makes the list empty. */
void cab_option_empty(const cab_option *option, void *object);

/* Items of a list; 1 for other kinds. */
unsigned cab_option_count(const cab_option *option, const void *object);
/* Item `index` of the field as text that cab_option_set() reads back to the same value; owned by the caller. */
cab_status cab_option_format(const cab_option *option, const void *object, unsigned index, char **out);
/* What values the option takes: "a whole number from 1 to 16", "one of matt, gloss". */
void cab_option_expected(const cab_option *option, char *out, size_t size);
/* Whether the field holds its default. */
bool cab_option_at_default(const cab_option *option, const void *object);
/* Its default as a reader would write it: "2", "matt", "none". */
void cab_option_default(const cab_option *option, char *out, size_t size);

/* Words of "a|b|c": the index of `word`, -1 when it is not there. */
int cab_words_find(const char *words, const char *word);
/* Word `index` in out; false past the last. */
bool cab_words_get(const char *words, unsigned index, char *out, size_t size);

/* The candidate nearest to a mistyped word by edit distance (insert, delete, replace, swap neighbours). Offer them one
 * by one; `best` is empty while none is near enough to be worth a suggestion. */
enum { CAB_NEAREST_MAX = 96 };
typedef struct cab_nearest {
    const char *word;
    char best[CAB_NEAREST_MAX];
    unsigned distance;
} cab_nearest;

cab_nearest cab_nearest_begin(const char *word);
/* `shown` (NULL: the candidate) is what `best` becomes when this candidate is the nearest so far. */
void cab_nearest_offer(cab_nearest *nearest, const char *candidate, const char *shown);

/* `text` cut to fit, control characters replaced by '?': words from outside, fit for a message. Returns out. */
const char *cab_printable(const char *text, char *out, size_t size);

#endif
