/* ranking.c - what it cost the teacher to leave out one of its heads, or one layer's attention, and which of them stayed: a drawing a run. */
#include "base/memory.h"
#include "report/heat.h"
#include "report/page.h"

/* Pixels of a cell, and the room for words beside and above. */
enum { CELL_WIDTH = 26, CELL_HEIGHT = 16, BESIDE = 62, ABOVE = 34 };

/* What a cost is counted in. */
static const char *unit_of(const cab_kept *k)
{
    return k->by == CAB_KEEP_BY_KL ? "nats per token" : "of the variance";
}

static void put_words(FILE *out, const cab_kept *k, int rows, int columns)
{
    fprintf(out, "<text x=\"%d\" y=\"11\">%s</text>", BESIDE, k->layers ? "layer" : "head");
    for (int i = 0; i < columns; i++)
        fprintf(out, "<text text-anchor=\"middle\" x=\"%d\" y=\"%d\">%d</text>",
                BESIDE + i * CELL_WIDTH + CELL_WIDTH / 2, ABOVE - 6, i);
    for (int l = 0; l < rows && !k->layers; l++)
        fprintf(out, "<text text-anchor=\"end\" x=\"%d\" y=\"%d\">layer %d</text>", BESIDE - 6,
                ABOVE + l * CELL_HEIGHT + CELL_HEIGHT - 5, l);
}

static void put_cells(FILE *out, const cab_kept *k, int rows, int columns)
{
    for (int i = 0; i < rows * columns; i++) {
        const int row = i / columns, column = i % columns;
        const bool kept = k->layers ? cab_kept_has(k, column, 0) : cab_kept_has(k, row, column);
        fprintf(out, "<rect%s x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"><title>%s%.3g %s</title></rect>",
                kept ? " class=\"kept\"" : "", BESIDE + column * CELL_WIDTH + 1, ABOVE + row * CELL_HEIGHT + 1,
                CELL_WIDTH - 2, CELL_HEIGHT - 2, kept ? "stays attention: " : "", (double)k->cost[i], unit_of(k));
    }
}

static cab_status put_ranking(FILE *out, const cab_report_runs *runs, size_t index)
{
    const cab_kept *k = &runs->items[index].kept;
    const int rows = k->layers ? 1 : k->n_layer, columns = k->layers ? k->n_layer : k->n_head;
    char *png = NULL;
    double full = 0;
    CAB_TRY(cab_heat_png(k->cost, rows, columns, CAB_HEAT_PLAIN, &full, &png));
    fputs("<figure class=\"card ranking\"><figcaption>", out);
    cab_page_put_key(out, runs, index);
    cab_page_put(out, runs->items[index].name);
    fprintf(out,
            " <span class=\"muted\">0 to %.2g %s</span></figcaption><div class=\"slide\" tabindex=\"0\"><svg "
            "viewBox=\"0 0 %d %d\" style=\"width:%dpx\" role=\"img\" aria-label=\"cost of every %s\">"
            "<image x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" preserveAspectRatio=\"none\" "
            "href=\"data:image/png;base64,%s\"/>",
            full, unit_of(k), BESIDE + columns * CELL_WIDTH + 2, ABOVE + rows * CELL_HEIGHT + 2,
            BESIDE + columns * CELL_WIDTH + 2, k->layers ? "layer" : "head", BESIDE, ABOVE, columns * CELL_WIDTH,
            rows * CELL_HEIGHT, png);
    cab_free(png);
    put_words(out, k, rows, columns);
    put_cells(out, k, rows, columns);
    fputs("</svg></div></figure>\n", out);
    return CAB_OK;
}

cab_status cab_page_rankings(FILE *out, const cab_report_runs *runs)
{
    bool any = false;
    for (size_t i = 0; i < runs->count; i++) {
        if (runs->items[i].kept.cost == NULL)
            continue;
        fputs(any ? ""
                  : "<h2>What stays attention</h2>\n<p class=\"note\">What it costs to do without a head or without a "
                    "layer's "
                    "attention: what more of that attention's variance mixers leave unexplained after a short "
                    "training, or, in nats per "
                    "token, KL that the teacher loses. Framed are those that the student keeps.</p>\n",
              out);
        any = true;
        CAB_TRY(put_ranking(out, runs, i));
    }
    return CAB_OK;
}
