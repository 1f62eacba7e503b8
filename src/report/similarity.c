/* similarity.c - comparisons on the page: one box plot of all of them, then the heat maps of each.
 *
 * A picture stands in the page once, as a custom property of its card, and every tile lays its PNG of magnitudes over it. A
 * matrix of text is an SVG: two PNGs of one pixel an entry, the tokens beside and below them. */
#include "base/memory.h"
#include "report/chart.h"
#include "report/heat.h"
#include "report/page.h"

#include <math.h>

/* ---- box plot ------------------------------------------------------------------------------------------------------- */

static cab_status make_series(const cab_report_comparison *from, cab_box_series *series)
{
    const cab_comparison *c = &from->comparison;
    CAB_TRY(CAB_NEW(&series->boxes, (size_t)c->n_layer, "a chart's boxes"));
    series->count = (size_t)c->n_layer;
    for (int l = 0; l < c->n_layer; l++) {
        const cab_similarity *s = &c->layers[l];
        series->boxes[l] = (cab_chart_box){s->layer, s->min, s->q1, s->median, s->q3, s->max};
    }
    return CAB_OK;
}

static cab_status put_boxes(FILE *out, const cab_report_runs *runs)
{
    cab_box_series *series = NULL;
    cab_status status;
    CAB_GOTO(CAB_NEW(&series, runs->n_comparison, "a chart's series"));
    for (size_t i = 0; i < runs->n_comparison; i++) {
        series[i].colour = cab_page_look_of(runs, runs->comparisons[i].look).colour;
        CAB_GOTO(make_series(&runs->comparisons[i], &series[i]));
    }
    const cab_box_chart chart = {.title = "Similarity of attention, layer by layer",
                                 .x_label = "layer of the student",
                                 .y_label = "cosine similarity",
                                 .series = series,
                                 .count = runs->n_comparison};
    fputs("<figure class=\"card chart wide\"><div class=\"slide\" tabindex=\"0\">", out);
    cab_boxes_draw(out, &chart);
    fputs("</div></figure>\n", out);
done:
    for (size_t i = 0; series != NULL && i < runs->n_comparison; i++)
        cab_free(series[i].boxes);
    cab_free(series);
    return status;
}

static void put_key(FILE *out, const cab_report_runs *runs, const cab_report_comparison *c)
{
    cab_page_put_key(out, runs, c->look);
    cab_page_put(out, c->name);
}

/* The numbers stand beside the chart, for those who cannot see it. */
static void put_medians(FILE *out, const cab_report_runs *runs)
{
    fputs("<div class=\"legend\">", out);
    for (size_t i = 0; i < runs->n_comparison; i++) {
        const cab_comparison *c = &runs->comparisons[i].comparison;
        fputs("<span>", out);
        put_key(out, runs, &runs->comparisons[i]);
        fprintf(out, " <span class=\"muted\">median %.3f over %lld %s</span></span>", c->all.median,
                (long long)c->samples, c->images ? "images" : "windows of text");
    }
    fputs("</div>\n", out);
}

/* ---- heat maps ------------------------------------------------------------------------------------------------------ */

static cab_status put_tile(FILE *out, const cab_heat_map *map, const float *values, const char *whose, int layer)
{
    char *png = NULL;
    double full = 0;
    CAB_TRY(cab_heat_png(values, map->rows, map->columns, CAB_HEAT_OVERLAY, &full, &png));
    fprintf(out, "<figure><div class=\"over\"><img alt=\"what the class token of the %s looks at in layer %d of ",
            whose, layer);
    cab_page_put(out, map->name);
    fprintf(out, "\" src=\"data:image/png;base64,%s\"></div><figcaption>%s layer %d, to %.2g</figcaption></figure>",
            png, whose, layer, full);
    cab_free(png);
    return CAB_OK;
}

static cab_status put_picture(FILE *out, const cab_heat_map *map)
{
    fprintf(out, "<div class=\"card heat\" style=\"--picture:url(data:image/jpeg;base64,%s);--layers:%d\">",
            map->thumbnail, map->n_layer);
    fputs("<figure class=\"original\"><div class=\"over\"></div><figcaption>", out);
    cab_page_put(out, map->name);
    fputs("</figcaption></figure><div class=\"slide\"><div class=\"tiles\">", out);
    for (int i = 0; i < map->n_layer; i++)
        CAB_TRY(put_tile(out, map, map->layers[i].teacher, "teacher", map->layers[i].teacher_layer));
    for (int i = 0; i < map->n_layer; i++)
        CAB_TRY(put_tile(out, map, map->layers[i].student, "student", map->layers[i].layer));
    fputs("</div></div></div>\n", out);
    return CAB_OK;
}

/* Pixels of the drawing of a pair of matrices: a cell, the room for words beside and below, that between the two. */
enum { CELL = 11, BESIDE = 76, BELOW = 56, BETWEEN = 14, ABOVE = 16 };

static void put_word(FILE *out, const char *token)
{
    enum { WORD_BYTES = 12 };
    cab_page_put_some(out, token, WORD_BYTES);
}

static cab_status put_matrix(FILE *out, const cab_heat_map *map, const float *values, int64_t left, const char *whose,
                             int layer)
{
    const int64_t side = map->rows * CELL;
    char *png = NULL;
    double full = 0;
    CAB_TRY(cab_heat_png(values, map->rows, map->columns, CAB_HEAT_PLAIN, &full, &png));
    fprintf(out,
            "<text x=\"%lld\" y=\"11\">%s layer %d, to %.2g</text><rect x=\"%lld\" y=\"%d\" width=\"%lld\" "
            "height=\"%lld\"/>"
            "<image x=\"%lld\" y=\"%d\" width=\"%lld\" height=\"%lld\" href=\"data:image/png;base64,%s\"/>",
            (long long)left, whose, layer, full, (long long)left, (int)ABOVE, (long long)side, (long long)side,
            (long long)left, (int)ABOVE, (long long)side, (long long)side, png);
    cab_free(png);
    for (int64_t i = 0; i < map->columns; i++) {
        const long long x = left + i * CELL + CELL / 2 + 3, y = ABOVE + side + 5;
        fprintf(out, "<text class=\"word\" text-anchor=\"end\" transform=\"translate(%lld %lld) rotate(-90)\">", x, y);
        put_word(out, map->tokens[i]);
        fputs("</text>", out);
    }
    return CAB_OK;
}

/* Both matrices of one layer, with the tokens that look at the left and those they look at below. */
static cab_status put_pair(FILE *out, const cab_heat_map *map, const cab_heat_layer *layer)
{
    const int64_t side = map->rows * CELL;
    fprintf(
        out,
        "<figure class=\"card matrix\"><div class=\"slide\" tabindex=\"0\"><svg viewBox=\"0 0 %lld %lld\" role=\"img\" "
        "aria-label=\"attention of teacher layer %d and student layer %d\">",
        BESIDE + 2LL * side + BETWEEN + 1, ABOVE + (long long)side + BELOW, layer->teacher_layer, layer->layer);
    for (int64_t i = 0; i < map->rows; i++) {
        fprintf(out, "<text class=\"word\" text-anchor=\"end\" x=\"%d\" y=\"%lld\">", BESIDE - 5,
                (long long)(ABOVE + i * CELL + CELL - 2));
        put_word(out, map->tokens[i]);
        fputs("</text>", out);
    }
    CAB_TRY(put_matrix(out, map, layer->teacher, BESIDE, "teacher", layer->teacher_layer));
    CAB_TRY(put_matrix(out, map, layer->student, BESIDE + side + BETWEEN, "student", layer->layer));
    fputs("</svg></div></figure>\n", out);
    return CAB_OK;
}

static cab_status put_sentence(FILE *out, const cab_heat_map *map)
{
    fputs("<p class=\"note\">", out);
    cab_page_put(out, map->name);
    fputs("</p><div class=\"matrices\">\n", out);
    for (int i = 0; i < map->n_layer; i++)
        CAB_TRY(put_pair(out, map, &map->layers[i]));
    fputs("</div>\n", out);
    return CAB_OK;
}

static cab_status put_maps(FILE *out, const cab_report_runs *runs, const cab_report_comparison *from)
{
    const cab_comparison *c = &from->comparison;
    if (c->n_map == 0)
        return CAB_OK;
    fputs("<details open><summary>", out);
    put_key(out, runs, from);
    fputs("</summary><div class=\"maps\">\n", out);
    for (int64_t i = 0; i < c->n_map; i++)
        CAB_TRY(c->maps[i].thumbnail != NULL ? put_picture(out, &c->maps[i]) : put_sentence(out, &c->maps[i]));
    fputs("</div></details>\n", out);
    return CAB_OK;
}

static bool any_maps(const cab_report_runs *runs)
{
    for (size_t i = 0; i < runs->n_comparison; i++)
        if (runs->comparisons[i].comparison.n_map > 0)
            return true;
    return false;
}

cab_status cab_page_similarity(FILE *out, const cab_report_runs *runs)
{
    if (runs->n_comparison == 0)
        return CAB_OK;
    fputs(
        "<h2>Attention and what takes its place</h2>\n<p class=\"note\">Cosine similarity, over all pairs of tokens, "
        "between the teacher's attention matrix (mean over heads) and the matrix by which the student mixes tokens "
        "(mean over heads or channels; both directions added). One value per sample; boxes are quartiles, whiskers the "
        "extremes.</p>\n",
        out);
    put_medians(out, runs);
    CAB_TRY(put_boxes(out, runs));
    if (!any_maps(runs))
        return CAB_OK;
    fputs("<h2>What they look at</h2>\n<p class=\"note\">Of a picture: how much the class token takes from each patch. "
          "Of "
          "text: how much each token, a row, takes from those up to it, columns. Colours stand for magnitudes, from 0 "
          "to the "
          "number above or below each map, which one entry in 50 exceeds.</p>\n"
          "<div class=\"legend\"><span><span class=\"scale picture\"></span>0 to the number: pictures</span>"
          "<span><span class=\"scale plain\"></span>0 to the number: text</span></div>\n",
          out);
    for (size_t i = 0; i < runs->n_comparison; i++)
        CAB_TRY(put_maps(out, runs, &runs->comparisons[i]));
    return CAB_OK;
}
