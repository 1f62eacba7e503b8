/* look.c - colours and dashes of runs. A new method gets a row; until then it takes a spare one by its name. */
#include "report/page.h"

#include <string.h>

struct method_look {
    const char *method, *colour;
    size_t dash;
};

static const struct method_look methods[] = {
    {"vanilla", "#8d6e3f", 2},     {"soft", "#c96f16", 1},           {"cab-published", "#3b7dd8", 3},
    {"cab", "#1f9468", 4},         {"weight-reuse", "#c9477f", 5},   {"cab-best", "#8365cf", 0},
    {"multi-stage", "#1687a0", 6}, {"attention-copy", "#7d7c22", 2},
};
static const char *const spare[] = {"#1687a0", "#cc4e3c", "#7d7c22", "#5f7f9f", "#b05fc0", "#5a8a35"};
static const char *const dashes[] = {"", "9 3", "2 3", "9 3 2 3", "14 4", "5 2", "14 3 2 3 2 3"};
enum {
    METHODS = sizeof methods / sizeof *methods,
    SPARE = sizeof spare / sizeof *spare,
    DASHES = sizeof dashes / sizeof *dashes
};

/* FNV-1a. */
static size_t hash(const char *text)
{
    uint32_t h = 2166136261u;
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 16777619u;
    return h;
}

static struct method_look look_of_method(const char *method)
{
    for (size_t i = 0; i < METHODS; i++)
        if (strcmp(methods[i].method, method) == 0)
            return methods[i];
    return (struct method_look){method, spare[hash(method) % SPARE], hash(method) / SPARE % DASHES};
}

cab_page_look cab_page_look_of(const cab_report_runs *runs, size_t index)
{
    if (index >= runs->count)
        return (cab_page_look){spare[(index - runs->count) % SPARE], ""};
    const char *method = runs->items[index].method;
    const struct method_look look = look_of_method(method);
    size_t before = 0;
    for (size_t i = 0; i < index; i++)
        before += strcmp(runs->items[i].method, method) == 0;
    return (cab_page_look){before > 0 ? spare[(before - 1) % SPARE] : look.colour,
                           dashes[(look.dash + before) % DASHES]};
}

void cab_page_put_key(FILE *out, const cab_report_runs *runs, size_t index)
{
    const cab_page_look look = cab_page_look_of(runs, index);
    fprintf(out,
            "<svg class=\"key\" viewBox=\"0 0 30 10\" aria-hidden=\"true\"><path d=\"M0 5H30\" stroke=\"%s\" "
            "stroke-dasharray=\"%s\"/></svg>",
            look.colour, look.dash);
}

void cab_page_put_teacher_key(FILE *out)
{
    fputs(
        "<svg class=\"key\" viewBox=\"0 0 30 10\" aria-hidden=\"true\"><path class=\"reference\" d=\"M0 5H30\"/></svg>",
        out);
}
