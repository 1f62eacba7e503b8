/* compare.c - cab compare: how alike a teacher's attention and a student's implied attention are, layer by layer. */
#include "train/compare.h"

#include "base/file.h"
#include "base/log.h"
#include "base/thread.h"
#include "cli/command.h"
#include "cli/find.h"
#include "models/model.h"
#include "report/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMPARE_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                       \
    LIST(data, 'd', "FILE", "images (folder of classes, archive, .csv list) or text (.txt, .jsonl, .npy, .bin)")       \
    TEXT(classes, 'c', "FILE", "", "class map of the images: their names in the drawings")                             \
    INT(samples, 'n', "N", 16, 1, 1000000, "images, or windows of text, to measure; evenly spaced over the data")      \
    INT(maps, 'm', "N", 4, 0, 100, "how many of the samples to draw as heat maps; of text the first one only")         \
    LIST(images, 'i', "FILE", "pictures to draw instead of samples")                                                   \
    TEXT(text, 't', "TEXT", "", "sentence to draw instead of samples")                                                 \
    TEXT(out, 'o', "FILE", "", "write all numbers as .json, or a page with charts and heat maps as .html")             \
    INT(seq_len, 'l', "N", 0, 0, 1048576, "tokens per window; 0: 256, or the teacher's context if that is less")       \
    ENUM(on_error, 0, "WORD", 0, "stop|skip", "what an image that cannot be read does")                                \
    INT(max_member, 0, "MIB", 0, 0, 1 << 30, "what a member of an archive, or a document, may expand to; 0: 1024")     \
    INT(max_expanded, 0, "MIB", 0, 0, 1 << 30, "what a packed file may expand to in all; 0: 256 times its size")       \
    TEXT(separator, 0, "TEXT", "<|endoftext|>", "line that ends a document in .txt files")                             \
    TEXT(text_field, 0, "NAME", "text", "field of .jsonl or .json, column of .csv, that holds the document")           \
    ENUM(bin_type, 0, "NAME", 0, "uint16|uint32", "element type of .bin token files")                                  \
    TEXT(cache, 0, "DIR", "", "token cache; without it $XDG_CACHE_HOME/cab or ~/.cache/cab")                           \
    ENUM(precision, 0, "NAME", 0, "auto|fp32|bf16", "numbers kept for activations and matrices")                       \
    TEXT(device, 0, "NAME", "cpu", "cpu or cuda")                                                                      \
    INT(threads, 0, "N", 0, 0, 1024, "processor threads; 0: all this process may use")                                 \
    BOOL(json, 'j', "print one JSON object instead of the table")                                                      \
    BOOL(quiet, 'q', "no messages but warnings")

struct compare_options {
    CAB_FIELDS(COMPARE_OPTIONS)
};
CAB_FLAG_TABLE(compare_table, struct compare_options, COMPARE_OPTIONS)

static void print_row(const char *layer, const char *teacher, const cab_similarity *s)
{
    printf("%5s  %7s  %7.4f  %7.4f  %7.4f  %7.4f  %7.4f  %7.4f\n", layer, teacher, s->min, s->q1, s->median, s->q3,
           s->max, s->mean);
}

static void print_table(const cab_comparison *c)
{
    printf("layer  teacher      min       q1   median       q3      max     mean\n");
    for (int l = 0; l < c->n_layer; l++) {
        char layer[16], teacher[16];
        snprintf(layer, sizeof layer, "%d", c->layers[l].layer);
        snprintf(teacher, sizeof teacher, "%d", c->layers[l].teacher_layer);
        print_row(layer, teacher, &c->layers[l]);
    }
    print_row("all", "", &c->all);
}

static bool ends_in(const char *path, const char *suffix)
{
    const size_t length = strlen(path), n = strlen(suffix);
    return length > n && strcmp(path + length - n, suffix) == 0;
}

/* Everything that can be refused before the models are run. */
static cab_status check(const struct compare_options *o)
{
    if (o->data.count == 0)
        return cab_fail(CAB_EARG, "nothing to compare on: give --data=FILE");
    if (o->out[0] && !ends_in(o->out, ".json") && !ends_in(o->out, ".html"))
        return cab_fail(CAB_EARG, "--out: found \"%s\", expected a name that ends in .json or .html", o->out);
    return CAB_OK;
}

static cab_status put_page(const char *path, cab_comparison *c)
{
    cab_report_runs runs = {0};
    cab_status status;
    CAB_GOTO(cab_report_runs_add(&runs, cab_path_name(c->student), c));
    status = cab_report_html(&runs, &(cab_report_page){.title = "Teacher and student"}, path);
done:
    cab_report_runs_free(&runs);
    return status;
}

/* A page takes the comparison with it. */
static cab_status put_out(const struct compare_options *o, cab_comparison *c)
{
    json_object *json = NULL;
    cab_status status;
    if (!o->json)
        print_table(c);
    if (!o->json && !o->out[0])
        return CAB_OK;
    CAB_GOTO(cab_comparison_json(c, &json));
    if (o->json)
        printf("%s\n", json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN));
    if (ends_in(o->out, ".json"))
        CAB_GOTO(cab_json_save(json, o->out));
    else if (o->out[0])
        CAB_GOTO(put_page(o->out, c));
    if (o->out[0])
        cab_log_info("comparison: %s", o->out);
done:
    json_object_put(json);
    return status;
}

static cab_status run_compare(const void *given, const cab_list *operands)
{
    const struct compare_options *o = given;
    const cab_precision precisions[] = {cab_precision_auto(o->device), CAB_PRECISION_FP32, CAB_PRECISION_BF16};
    char cache[CAB_PATH_MAX], teacher[CAB_PATH_MAX], student[CAB_PATH_MAX];
    cab_comparison comparison = {0};
    cab_status status;
    CAB_TRY(check(o));
    if (o->out[0])
        CAB_TRY(cab_file_check_writable(o->out));
    CAB_TRY(cli_cache_directory(o->cache, cache));
    CAB_TRY(cli_find_model(operands->items[0], teacher));
    CAB_TRY(cli_find_model(operands->items[1], student));
    const cab_compare_options what = {.teacher = teacher,
                                      .student = student,
                                      .files = (const char *const *)o->data.items,
                                      .files_count = o->data.count,
                                      .classes = o->classes[0] ? o->classes : NULL,
                                      .on_error = o->on_error == 1 ? CAB_ON_ERROR_SKIP : CAB_ON_ERROR_STOP,
                                      .limits = cab_expand_limits_mib(o->max_member, o->max_expanded),
                                      .separator = o->separator,
                                      .text_field = o->text_field,
                                      .bin_uint32 = o->bin_type == 1,
                                      .cache = cache,
                                      .seq_len = o->seq_len,
                                      .samples = o->samples,
                                      .maps = o->maps,
                                      .pictures = (const char *const *)o->images.items,
                                      .pictures_count = o->images.count,
                                      .text = o->text[0] ? o->text : NULL,
                                      .precision = precisions[o->precision],
                                      .device = o->device};
    cab_log_quiet(o->quiet);
    if (o->threads)
        cab_thread_limit((int)o->threads);
    CAB_GOTO(cab_compare(&what, &comparison));
    status = put_out(o, &comparison);
done:
    cab_comparison_free(&comparison);
    return status;
}

static const cli_example examples[] = {
    {"cab compare examples/tales/teacher runs/tales/student --data examples/tales/val.txt",
     "the table: how near each layer came"},
    {"cab compare vit-tiny runs/vim/student --data val.tar.xz -n 32 -o runs/vim/compare.json",
     "kept with the run: cab report draws it beside other runs"},
    {"cab compare vit-tiny runs/vim/student --data val.tar.xz --images cat.jpg -o maps.html",
     "a page with what both models look at; --images again for a second picture"},
    {0}};

const cli_command cli_compare = {
    .name = "compare",
    .summary = "compare a teacher's attention with what a student does in its place",
    .synopsis = "TEACHER STUDENT",
    .description =
        "For samples of the data and for every layer of the student in directory STUDENT, or of the run there, writes "
        "out the matrix by "
        "which it "
        "mixes tokens, M[i,j] = C_i (product of the decays after j up to i) B_j, and the attention matrix softmax(Q "
        "K^T / "
        "sqrt(d)) of the layer of TEACHER that stands at the same part of its depth, and prints the cosine similarity "
        "between the two over all entries: minimum, quartiles, maximum and mean over the samples.\n\n"
        "Attention and Mamba-2 are averaged over heads, Mamba-1 over channels, signs kept; of a bidirectional student "
        "both "
        "directions are added. Image models' tokens are put in one order; a distillation token is left out.\n\n"
        "Heat maps are drawn for six layers at most: of images what the class token takes from each patch, of text the "
        "first 24 tokens by 24. The matrices take memory and time in the square of the number of tokens.",
    .examples = examples,
    .options = compare_table,
    .options_size = sizeof(struct compare_options),
    .operands_min = 2,
    .operands_max = 2,
    .run = run_compare,
};
