/* eval_images.c - the figures of an evaluation, the most frequent confusions and the classes, as a table or as JSON. */
#include "cli/eval_images.h"

#include "base/json.h"
#include "base/memory.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FIGURES = 14, SHOWN = 48 };

typedef enum unit { UNIT_NUMBER, UNIT_SHARE, UNIT_COUNT } unit;

typedef struct figure {
    const char *key, *text;
    unit unit;
    int digits;
    double value; /* NaN: not measured, left out */
} figure;

static void collect(const cab_image_evaluation *r, figure out[FIGURES])
{
    const figure figures[FIGURES] = {
        {"top1", "top-1", UNIT_SHARE, 2, r->top1},
        {"top5", "top-5", UNIT_SHARE, 2, r->top5},
        {"loss", "loss, nats per image", UNIT_NUMBER, 4, r->loss},
        {"kl", "KL(teacher || model), nats per image", UNIT_NUMBER, 4, r->kl},
        {"agreement", "top-1 agreement with the teacher", UNIT_SHARE, 2, r->agreement},
        {"teacher_top1", "top-1 of the teacher", UNIT_SHARE, 2, r->teacher_top1},
        {"teacher_top5", "top-5 of the teacher", UNIT_SHARE, 2, r->teacher_top5},
        {"teacher_loss", "loss of the teacher", UNIT_NUMBER, 4, r->teacher_loss},
        {"images", "images", UNIT_COUNT, 0, (double)r->images},
        {"skipped", "skipped", UNIT_COUNT, 0, r->skipped > 0 ? (double)r->skipped : NAN},
        {"classes", "classes", UNIT_COUNT, 0, (double)r->classes},
        {"seconds", "seconds", UNIT_NUMBER, 2, r->seconds},
        {"seconds_waiting", "of these waiting for images", UNIT_NUMBER, 2, r->waited},
        {"images_per_second", "images per second", UNIT_NUMBER, 1, r->images_per_second},
    };
    for (int i = 0; i < FIGURES; i++)
        out[i] = figures[i];
}

/* ---- as text ------------------------------------------------------------------------------------------------------ */

/* What a class is called, and the first of its words where there are some: "n01443537 goldfish". */
static const char *class_text(const cab_classes *classes, int32_t label, const cli_results *results, char out[SHOWN])
{
    char text[SHOWN];
    const char *words = classes->words[label];
    if (words == NULL || *words == '\0' || strcmp(words, classes->names[label]) == 0)
        snprintf(text, SHOWN, "%s", classes->names[label]);
    else
        snprintf(text, SHOWN, "%s %.*s", classes->names[label], (int)strcspn(words, ","), words);
    snprintf(out, SHOWN, "%s", text);
    return results->terminal ? cab_printable(text, out, SHOWN) : out;
}

static double share(uint64_t part, uint64_t whole)
{
    return whole == 0 ? NAN : (double)part / (double)whole;
}

static void print_figures(const figure *figures, FILE *out)
{
    for (int i = 0; i < FIGURES; i++) {
        const figure *f = &figures[i];
        if (!isfinite(f->value))
            continue;
        if (f->unit == UNIT_SHARE)
            fprintf(out, "%-38s%.*f %%\n", f->text, f->digits, 100.0 * f->value);
        else
            fprintf(out, "%-38s%.*f\n", f->text, f->digits, f->value);
    }
}

static void print_confusions(const cab_image_evaluation *r, const cab_classes *classes, const cab_confusion *worst,
                             size_t count, const cli_results *results)
{
    FILE *out = results->stream;
    char from[SHOWN], to[SHOWN];
    if (count > 0)
        fprintf(out, "\n%-14s%-50s%s\n", "most confused", "class", "taken for");
    for (size_t i = 0; i < count; i++)
        fprintf(out, "%4" PRIu64 " of %-6" PRIu64 "%-50s%s\n", worst[i].images, r->class_images[worst[i].label],
                class_text(classes, worst[i].label, results, from),
                class_text(classes, worst[i].predicted, results, to));
}

static void print_classes(const cab_image_evaluation *r, const cab_classes *classes, const cli_results *results)
{
    FILE *out = results->stream;
    char name[SHOWN];
    fprintf(out, "\n%-50s%8s%10s%10s\n", "class", "images", "top-1", "top-5");
    for (size_t c = 0; c < r->classes; c++) {
        fprintf(out, "%-50s%8" PRIu64, class_text(classes, (int32_t)c, results, name), r->class_images[c]);
        if (r->class_images[c] == 0)
            fprintf(out, "%10s%10s\n", "-", "-");
        else
            fprintf(out, "%8.1f %%%8.1f %%\n", 100.0 * share(r->class_top1[c], r->class_images[c]),
                    100.0 * share(r->class_top5[c], r->class_images[c]));
    }
}

/* ---- as JSON ------------------------------------------------------------------------------------------------------ */

static void add_number(json_object *object, const char *key, double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.9g", value);
    json_object_object_add(object, key, isfinite(value) ? json_object_new_double_s(value, text) : NULL);
}

static void add_count(json_object *object, const char *key, uint64_t value)
{
    json_object_object_add(object, key, json_object_new_int64((int64_t)value));
}

static void add_class(json_object *object, const char *key, const cab_classes *classes, int32_t label)
{
    json_object_object_add(object, key, cab_json_text(classes->names[label]));
}

static json_object *confusions_json(const cab_image_evaluation *r, const cab_classes *classes,
                                    const cab_confusion *worst, size_t count)
{
    json_object *list = json_object_new_array();
    for (size_t i = 0; i < count; i++) {
        json_object *item = json_object_new_object();
        add_class(item, "class", classes, worst[i].label);
        add_class(item, "predicted", classes, worst[i].predicted);
        add_count(item, "images", worst[i].images);
        add_count(item, "of", r->class_images[worst[i].label]);
        json_object_array_add(list, item);
    }
    return list;
}

static json_object *classes_json(const cab_image_evaluation *r, const cab_classes *classes)
{
    json_object *list = json_object_new_array();
    for (size_t c = 0; c < r->classes; c++) {
        json_object *item = json_object_new_object();
        add_class(item, "class", classes, (int32_t)c);
        if (classes->words[c] != NULL)
            json_object_object_add(item, "words", cab_json_text(classes->words[c]));
        add_count(item, "images", r->class_images[c]);
        add_number(item, "top1", share(r->class_top1[c], r->class_images[c]));
        add_number(item, "top5", share(r->class_top5[c], r->class_images[c]));
        json_object_array_add(list, item);
    }
    return list;
}

static void print_json(const cab_image_evaluation *r, const cab_classes *classes, const figure *figures,
                       const cab_confusion *worst, size_t count, const cli_image_table *table)
{
    FILE *out = table->results->stream;
    json_object *root = json_object_new_object();
    for (int i = 0; i < FIGURES; i++) {
        const figure *f = &figures[i];
        if (isfinite(f->value) && f->unit == UNIT_COUNT)
            add_count(root, f->key, (uint64_t)f->value);
        else if (isfinite(f->value))
            add_number(root, f->key, f->value);
    }
    json_object_object_add(root, "confusions", confusions_json(r, classes, worst, count));
    if (table->per_class)
        json_object_object_add(root, "per_class", classes_json(r, classes));
    fprintf(out, "%s\n",
            json_object_to_json_string_ext(root, JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(root);
}

cab_status cli_print_images(const cab_image_evaluation *evaluation, const cab_classes *classes,
                            const cli_image_table *table)
{
    figure figures[FIGURES];
    cab_confusion *worst = NULL;
    size_t count = 0;
    CAB_TRY(CAB_NEW(&worst, table->confusions, "confusions"));
    cab_status status = cab_image_evaluation_confusions(evaluation, table->confusions, worst, &count);
    collect(evaluation, figures);
    if (status == CAB_OK && table->json) {
        print_json(evaluation, classes, figures, worst, count, table);
    } else if (status == CAB_OK) {
        print_figures(figures, table->results->stream);
        print_confusions(evaluation, classes, worst, count, table->results);
        if (table->per_class)
            print_classes(evaluation, classes, table->results);
    }
    cab_free(worst);
    return status;
}
