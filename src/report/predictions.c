/* predictions.c - a grid of pictures per run: the picture, the true class, the student's likeliest, the teacher's. */
#include "report/page.h"

static void put_choice(FILE *out, const cab_predicted *p, bool right)
{
    fprintf(out, "<li%s><span class=\"bar\" style=\"width:%.0f%%\"></span><b>", right ? " class=\"right\"" : "",
            100 * p->probability);
    cab_page_put(out, p->name);
    fprintf(out, "</b><i>%.0f\xe2\x80\xaf%%</i></li>", 100 * p->probability);
}

static void put_prediction(FILE *out, const cab_prediction *p)
{
    const bool right = p->n_top > 0 && p->top[0].label == p->truth.label;
    fputs("<figure class=\"card guess\"><img alt=\"", out);
    cab_page_put(out, p->name);
    fprintf(out, "\" src=\"data:image/jpeg;base64,%s\">", p->thumbnail);
    fprintf(out, "<figcaption><span class=\"%s\" role=\"img\" aria-label=\"%s\">%s</span> ", right ? "yes" : "no",
            right ? "right" : "wrong", right ? "\xe2\x9c\x93" : "\xe2\x9c\x97");
    cab_page_put(out, p->truth.name);
    fputs("</figcaption><ol>", out);
    for (int i = 0; i < p->n_top; i++)
        put_choice(out, &p->top[i], p->top[i].label == p->truth.label);
    fputs("</ol>", out);
    if (p->taught) {
        fputs("<p class=\"note\">teacher: ", out);
        cab_page_put(out, p->teacher.name);
        fprintf(out, ", %.0f\xe2\x80\xaf%%</p>", 100 * p->teacher.probability);
    }
    fputs("</figure>\n", out);
}

void cab_page_predictions(FILE *out, const cab_report_runs *runs)
{
    bool any = false;
    for (size_t i = 0; i < runs->count; i++) {
        const cab_report_run *run = &runs->items[i];
        if (run->predictions.count == 0)
            continue;
        fputs(any ? ""
                  : "<h2>What the students see</h2>\n<p class=\"note\">The true class, then the student's three "
                    "likeliest.</p>\n",
              out);
        fprintf(out, "<details%s><summary>", any ? "" : " open");
        cab_page_put_key(out, runs, i);
        cab_page_put(out, run->name);
        fputs("</summary><div class=\"guesses\">\n", out);
        for (size_t k = 0; k < run->predictions.count; k++)
            put_prediction(out, &run->predictions.items[k]);
        fputs("</div></details>\n", out);
        any = true;
    }
}
