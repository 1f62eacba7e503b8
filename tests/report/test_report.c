/* test_report.c - runs read back, the table, the page; with directories as a crash or an enemy leaves them. */
#include "base/memory.h"
#include "report/report.h"
#include "temp.h"
#include "train/log.h"

#include <math.h>

static void write_file(const char *directory, const char *name, const char *text)
{
    char path[CAB_PATH_MAX];
    assert_ok(cab_path_join(path, directory, name));
    assert_ok(cab_file_write(path, text, strlen(text)));
}

/* The terms that there were when this was written; those that came later are absent. */
static void set_terms(cab_run_step *step, double ce, double kl, double align)
{
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        step->terms[t] = NAN;
    step->terms[CAB_TERM_CE] = ce;
    step->terms[CAB_TERM_KL] = kl;
    step->terms[CAB_TERM_ALIGN] = align;
}

/* A run of `steps` steps with an evaluation after every tenth; finished if perplexity > 0. */
static void make_run(const char *directory, unsigned steps, double perplexity)
{
    cab_run_log log;
    assert_ok(cab_directory_make(directory));
    assert_ok(cab_run_log_open(&log, directory, 0, false));
    for (unsigned i = 1; i <= steps; i++) {
        cab_run_step step = {.step = i,
                             .tokens = 100 * i,
                             .stage = "s",
                             .loss = 3,
                             .lr = 1e-3,
                             .grad_norm = 1,
                             .tokens_per_s = 10,
                             .seconds = i,
                             .unit = "tokens"};
        set_terms(&step, 2, 1.0 / i, NAN);
        const cab_run_eval eval = {.step = i,
                                   .tokens = 100 * i,
                                   .loss = 2,
                                   .perplexity = 1000.0 / i,
                                   .kl = 0.5,
                                   .agreement = 0.25,
                                   .top1 = NAN,
                                   .top5 = NAN,
                                   .seconds = i,
                                   .unit = "tokens"};
        assert_ok(cab_run_log_step(&log, &step));
        if (i % 10 == 0)
            assert_ok(cab_run_log_eval(&log, &eval));
    }
    cab_run_log_close(&log);
    const cab_run_summary summary = {.result = {.loss = log10(perplexity),
                                                .perplexity = perplexity,
                                                .kl = 0.5,
                                                .agreement = 0.625,
                                                .top1 = NAN,
                                                .top5 = NAN,
                                                .tokens_per_second = 1234,
                                                .seconds = 61,
                                                .peak_memory = 1 << 30,
                                                .tokens = 100 * steps,
                                                .steps = steps},
                                     .method = "soft",
                                     .teacher = "t",
                                     .sample = "Once <upon> a \"time\" & more",
                                     .fraction = 0.05,
                                     .teacher_perplexity = 6.25,
                                     .teacher_top1 = NAN,
                                     .teacher_top5 = NAN,
                                     .unit = "tokens",
                                     .parameters = 1500000};
    if (perplexity > 0)
        assert_ok(cab_run_summary_write(directory, &summary));
}

static char *page_of(void **state, const cab_report_runs *runs, const char *title)
{
    char *text;
    size_t size;
    assert_ok(cab_report_html(runs, &(cab_report_page){.title = title}, temp_path(state, "page.html")));
    assert_ok(cab_file_read(temp_path(state, "page.html"), 1 << 24, &text, &size));
    assert_int_equal(strlen(text), size);
    assert_non_null(strstr(text, "</html>\n"));
    char *foot = strstr(text, "<footer>"); /* before it lies all that comes from runs */
    assert_non_null(foot);
    *foot = '\0';
    return text;
}

static void runs_are_read_back(void **state)
{
    cab_report_runs runs = {0};
    make_run(temp_path(state, "b"), 25, 9.5);
    make_run(temp_path(state, "a"), 12, 0);
    write_file(temp_path(state, "a"), "recipe.yaml",
               "method: cab\nteacher: {path: some/teacher}\ndata: {fraction: 0.5}\n");
    assert_ok(cab_report_runs_read((const char *[]){*state}, 1, &runs));
    assert_int_equal(runs.count, 2);
    assert_string_equal(runs.items[0].method, "cab");
    assert_string_equal(runs.items[0].teacher, "some/teacher");
    assert_true(runs.items[0].fraction == 0.5);
    assert_string_equal(runs.items[0].name, "a");
    assert_false(runs.items[0].finished);
    assert_int_equal(runs.items[0].training.count, 12);
    assert_true(runs.items[0].perplexity == 100 && runs.items[0].tokens == 1200 && isnan(runs.items[0].peak_memory));
    assert_true(runs.items[1].finished && runs.items[1].perplexity == 9.5 && runs.items[1].evaluations.count == 2);
    assert_true(isnan(runs.items[1].training.items[3].terms[CAB_TERM_ALIGN]) &&
                runs.items[1].training.items[3].kl == 0.25);
    cab_report_runs_free(&runs);
    assert_ok(cab_report_runs_read((const char *[]){temp_path(state, "b"), temp_path(state, "b//")}, 2, &runs));
    assert_string_equal(runs.items[0].name, runs.items[0].directory);
    cab_report_runs_free(&runs);
    assert_fails(cab_report_runs_read((const char *[]){temp_path(state, "c")}, 1, &runs), CAB_EIO, "no directory");
    cab_report_runs_free(&runs);
}

static void the_table_is_for_people_and_programs(void **state)
{
    cab_report_runs runs = {0};
    char text[1024] = "";
    make_run(temp_path(state, "a name\n"), 12, 0);
    make_run(temp_path(state, "b"), 10, 9.5);
    assert_ok(cab_report_runs_read((const char *[]){*state}, 1, &runs));
    FILE *out = tmpfile();
    assert_non_null(out);
    assert_ok(cab_report_table(&runs, out));
    rewind(out);
    size_t size = fread(text, 1, sizeof text - 1, out);
    fclose(out);
    text[size] = '\0';
    assert_string_equal(text, "run      perplexity  KL/token  agreement  tokens/s   seconds  peak_MiB\n"
                              "teacher        6.25         -          -         -         -         -\n"
                              "a_name_      100.00    0.5000     0.2500        10      12.0         -  unfinished\n"
                              "b              9.50    0.5000     0.6250      1234      61.0      1024\n");
    cab_report_runs_free(&runs);
}

static void the_page_shows_text_as_text(void **state)
{
    cab_report_runs runs = {0};
    make_run(temp_path(state, "<b>&'"), 30, 7);
    write_file(temp_path(state, "<b>&'"), "recipe.yaml", "</pre><script>1</script>\x01");
    assert_ok(cab_report_runs_read((const char *[]){*state}, 1, &runs));
    char *page = page_of(state, &runs, "<i>title</i>");
    assert_non_null(strstr(page, "<h1>&lt;i&gt;title&lt;/i&gt;</h1>"));
    assert_non_null(strstr(page, "&lt;b&gt;&amp;&#39;"));
    assert_non_null(strstr(page, "Once &lt;upon&gt; a &quot;time&quot; &amp; more"));
    assert_non_null(strstr(page, "&lt;/pre&gt;&lt;script&gt;1&lt;/script&gt; "));
    assert_null(strstr(page, "<script>1"));
    assert_null(strstr(page, "<b>"));
    assert_non_null(strstr(page, "1 run, teacher t"));
    cab_free(page);
    cab_report_runs_free(&runs);
}

static void long_samples_are_cut_between_characters(void **state)
{
    char sample[6001] = "";
    cab_report_runs runs = {0};
    for (int i = 0; i < 2000; i++)
        strcat(sample, "\xe2\x82\xac");
    const cab_run_summary summary = {.result = {.perplexity = 5, .top1 = NAN, .top5 = NAN},
                                     .sample = sample,
                                     .teacher_top1 = NAN,
                                     .teacher_top5 = NAN,
                                     .unit = "tokens"};
    assert_ok(cab_run_summary_write(*state, &summary));
    assert_ok(cab_report_runs_read((const char *[]){*state}, 1, &runs));
    char *page = page_of(state, &runs, "t");
    char *end = strstr(page, " \xe2\x80\xa6</p>");
    assert_non_null(end);
    assert_memory_equal(end - 3, "\xe2\x82\xac", 3);
    cab_free(page);
    cab_report_runs_free(&runs);
}

/* Every prefix of a log, and random damage to it, gives a report. */
static void damaged_runs_are_reported(void **state)
{
    char *log;
    size_t size;
    uint32_t random = 7;
    make_run(temp_path(state, "r"), 12, 5);
    assert_ok(cab_file_read(temp_path(state, "r/log.jsonl"), 1 << 20, &log, &size));
    for (int i = 0; i < 20; i++) {
        cab_report_runs runs = {0};
        size_t length = size - (size_t)i * 20;
        random = random * 1664525u + 1013904223u;
        log[(random >> 8) % size] = (char)(random >> 24);
        assert_ok(cab_file_write(temp_path(state, "r/log.jsonl"), log, length));
        assert_ok(cab_report_runs_read((const char *[]){*state}, 1, &runs));
        assert_int_equal(runs.count, 1);
        assert_true(runs.items[0].training.count + runs.items[0].evaluations.count + runs.items[0].unreadable > 0);
        cab_report_runs_free(&runs);
    }
    cab_free(log);
    static const char *const results[] = {"", "[]", "{\"loss\":\"x\"}", "{\"method\":3}", "{\"loss\":1"};
    for (size_t i = 0; i < sizeof results / sizeof *results; i++) {
        cab_report_runs runs = {0};
        write_file(temp_path(state, "r"), "result.json", results[i]);
        assert_ok(cab_report_runs_read((const char *[]){*state}, 1, &runs));
        assert_false(runs.items[0].finished);
        cab_free(page_of(state, &runs, "t"));
        cab_report_runs_free(&runs);
    }
}

/* Between two places of a page; "" where the first is missing. */
static const char *part_of(const char *page, const char *from, const char *to, char out[4096])
{
    const char *begin = strstr(page, from), *end = begin ? strstr(begin, to) : NULL;
    snprintf(out, 4096, "%.*s", end ? (int)(end - begin) : 0, begin ? begin : "");
    return out;
}

/* A number that no axis can hold is counted and left out; the others of its chart and the other charts stay. */
static void numbers_out_of_the_world_are_left_out(void **state)
{
    cab_report_runs runs = {0};
    char part[4096];
    assert_ok(cab_directory_make(temp_path(state, "r")));
    write_file(temp_path(state, "r"), "log.jsonl",
               "{\"step\":1,\"tokens\":10,\"ce\":1e308,\"kl\":-5,\"align\":4.9e-324,\"lr\":0}\n"
               "{\"step\":2,\"tokens\":20,\"ce\":3,\"kl\":2,\"align\":1e300,\"lr\":0}\n"
               "{\"step\":3,\"tokens\":30,\"ce\":2,\"kl\":0.01,\"align\":0.5,\"lr\":0}\n"
               "{\"step\":1e9,\"tokens\":1e300,\"ce\":-1e308,\"kl\":Infinity,\"align\":1e300,\"lr\":0}\n"
               "{\"eval\":true,\"step\":1,\"tokens\":1,\"perplexity\":0,\"kl\":NaN,\"agreement\":7}\n"
               "{\"eval\":true,\"step\":2,\"tokens\":2,\"perplexity\":-3,\"kl\":NaN,\"agreement\":7}\n"
               "{\"eval\":true,\"step\":2,\"tokens\":2,\"perplexity\":1e308,\"kl\":NaN,\"agreement\":7}\n");
    write_file(temp_path(state, "r"), "result.json",
               "{\"teacher_perplexity\":0,\"perplexity\":1e308,\"seconds\":1e300}");
    assert_ok(cab_report_runs_read((const char *[]){*state}, 1, &runs));
    char *page = page_of(state, &runs, "t");
    assert_null(strstr(page, ">inf<"));
    assert_null(strstr(page, "nan"));
    part_of(page, "<h3>Cross-entropy, training", "</svg>", part);
    assert_non_null(strstr(part, "2 numbers are not shown"));
    assert_non_null(strstr(part, "class=\"line\""));
    part_of(page, "<h3>KL, training", "</svg>", part); /* 2 and 0.01: a logarithmic axis, with no place for -5 */
    assert_non_null(strstr(part, "log scale"));
    assert_non_null(strstr(part, "2 numbers are not shown"));
    part_of(page, "<h3>Validation perplexity", "</svg>", part); /* 0, -3 and the teacher's 0, drawn on an even axis */
    assert_non_null(strstr(part, "1 number is not shown"));
    assert_null(strstr(part, "log scale"));
    cab_free(page);
    cab_report_runs_free(&runs);
}

/* On a logarithmic axis a teacher's perplexity that is not above 0 has no line. */
static void a_teacher_without_a_logarithm_has_no_line(void **state)
{
    static const char *const results[] = {"{\"teacher_perplexity\":6}", "{\"teacher_perplexity\":0}",
                                          "{\"teacher_perplexity\":-1}"};
    char part[4096];
    assert_ok(cab_directory_make(temp_path(state, "r")));
    write_file(temp_path(state, "r"), "log.jsonl",
               "{\"eval\":true,\"step\":1,\"tokens\":1,\"perplexity\":1000}\n"
               "{\"eval\":true,\"step\":2,\"tokens\":2,\"perplexity\":7}\n");
    for (size_t i = 0; i < 3; i++) {
        cab_report_runs runs = {0};
        write_file(temp_path(state, "r"), "result.json", results[i]);
        assert_ok(cab_report_runs_read((const char *[]){*state}, 1, &runs));
        char *page = page_of(state, &runs, "t");
        part_of(page, "<h3>Validation perplexity", "</svg>", part);
        assert_non_null(strstr(part, "log scale"));
        assert_int_equal(strstr(part, "class=\"reference\"") != NULL, i == 0);
        cab_free(page);
        cab_report_runs_free(&runs);
    }
}

/* Colours belong to methods, whatever stands beside them; two runs of one method can be told apart. */
static void methods_keep_their_looks(void **state)
{
    char with_soft[4096], alone[4096];
    cab_report_runs runs = {0};
    static const char *const names[] = {"a", "b", "c"};
    static const char *const results[] = {"{\"method\":\"soft\"}", "{\"method\":\"cab-best\"}",
                                          "{\"method\":\"cab-best\"}"};
    for (size_t i = 0; i < 3; i++) {
        assert_ok(cab_directory_make(temp_path(state, names[i])));
        write_file(temp_path(state, names[i]), "result.json", results[i]);
    }
    assert_ok(cab_report_runs_read((const char *[]){*state}, 1, &runs));
    char *page = page_of(state, &runs, "t");
    part_of(page, "<div class=\"legend\">", "</div>", with_soft);
    cab_free(page);
    cab_report_runs_free(&runs);
    assert_ok(cab_report_runs_read((const char *[]){temp_path(state, "b")}, 1, &runs));
    page = page_of(state, &runs, "t");
    part_of(page, "<div class=\"legend\">", "</span>", alone);
    assert_non_null(strstr(with_soft, strstr(alone, "<span>")));
    const char *b = strstr(with_soft, "stroke=\""), *colours[3];
    for (size_t i = 0; i < 3; i++, b = strstr(b + 1, "stroke=\""))
        assert_non_null(colours[i] = b);
    for (size_t i = 0; i < 3; i++)
        assert_memory_not_equal(colours[i], colours[(i + 1) % 3], strlen("stroke=\"#123456"));
    cab_free(page);
    cab_report_runs_free(&runs);
}

/* What the chart library is given is JSON that ends no <script>, whatever a run is called. */
static void names_cannot_leave_the_data(void **state)
{
    cab_report_runs runs = {0};
    make_run(temp_path(state, "<script>\"&'\\\x01"), 30, 7);
    assert_ok(cab_report_runs_read((const char *[]){*state}, 1, &runs));
    char *page = page_of(state, &runs, "t");
    if (strcmp(cab_report_charts(), "dygraphs") == 0)
        assert_non_null(strstr(page, "\"name\":\"\\u003cscript\\u003e\\u0022\\u0026\\u0027\\u005c\\u0001\""));
    assert_null(strstr(page, "<script>\""));
    cab_free(page);
    cab_report_runs_free(&runs);
}

/* A run on images: its own columns and charts, and none of text. */
static void runs_on_images_have_their_columns(void **state)
{
    cab_report_runs runs = {0};
    char text[1024] = "";
    assert_ok(cab_directory_make(temp_path(state, "v")));
    write_file(
        temp_path(state, "v"), "log.jsonl",
        "{\"step\":1,\"tokens\":64,\"images\":64,\"kl\":2,\"align\":1,\"lr\":0.1,\"images_per_s\":50}\n"
        "{\"eval\":true,\"step\":1,\"tokens\":64,\"loss\":3,\"kl\":1,\"agreement\":0.5,\"top1\":0.25,\"top5\":0.5}\n");
    write_file(
        temp_path(state, "v"), "result.json",
        "{\"method\":\"cab\",\"teacher\":\"t\",\"student\":\"s\",\"loss\":3,\"kl\":1,\"agreement\":0.5,\"top1\":0.2575,"
        "\"top5\":0.5,\"teacher_top1\":0.605,\"teacher_top5\":0.83,\"teacher_parameters\":5690000,\"images_per_"
        "second\":48.2,\"seconds\":3,\"peak_memory\":1048576,"
        "\"tokens\":64}");
    assert_ok(cab_report_runs_read((const char *[]){*state}, 1, &runs));
    assert_true(runs.items[0].images && runs.items[0].evaluations.items[0].top1 == 0.25);
    FILE *out = tmpfile();
    assert_non_null(out);
    assert_ok(cab_report_table(&runs, out));
    rewind(out);
    text[fread(text, 1, sizeof text - 1, out)] = '\0';
    fclose(out);
    assert_string_equal(text, "run       top-1   top-5  KL/image  agreement  images/s   seconds  peak_MiB\n"
                              "teacher   60.50   83.00         -          -         -         -         -\n"
                              "v         25.75   50.00    1.0000     0.5000        48       3.0         1\n");
    char *page = page_of(state, &runs, "t");
    assert_non_null(strstr(page, "<th scope=\"col\">Top-1</th>"));
    assert_null(strstr(page, ">Perplexity</th>"));
    assert_non_null(strstr(page, "Validation top-1"));
    assert_non_null(strstr(page, "25.75\xe2\x80\xaf%"));
    assert_non_null(
        strstr(page, "teacher</th><td>60.50\xe2\x80\xaf%</td><td>83.00\xe2\x80\xaf%</td><td>0.000</td><td>100"));
    assert_non_null(strstr(page, "<td>5.69\xe2\x80\xaf"
                                 "M</td></tr>"));
    cab_free(page);
    cab_report_runs_free(&runs);
}

#define QUARTILES "\"min\":-0.1,\"q1\":0.1,\"median\":0.2,\"q3\":0.3,\"max\":0.4,\"mean\":0.2"
static const char comparison_text[] =
    "{\"teacher\":\"t\",\"student\":\"s\",\"kind\":\"text\",\"tokens\":2,\"samples\":3,\"all\":{" QUARTILES "},"
    "\"layers\":[{\"layer\":0,\"teacher_layer\":1," QUARTILES "}],\"maps\":["
    "{\"name\":\"<u>cat\",\"thumbnail\":\"Zm9v\",\"rows\":2,\"columns\":2,\"layers\":[{\"layer\":0,\"teacher_layer\":1,"
    "\"teacher\":[0,0,0,0],\"student\":[1,-2,3e38,4]}]},"
    "{\"name\":\"words\",\"tokens\":[\"<a>\",\"b\"],\"rows\":2,\"columns\":2,\"layers\":[{\"layer\":0,\"teacher_"
    "layer\":1,"
    "\"teacher\":[1,0,1,1],\"student\":[1,0,1,1]}]}]}";

/* compare.json and predictions.json beside the log are shown; names in them are text. */
static void comparisons_and_predictions_are_shown(void **state)
{
    cab_report_runs runs = {0};
    make_run(temp_path(state, "r"), 12, 5);
    write_file(temp_path(state, "r"), "compare.json", comparison_text);
    write_file(temp_path(state, "r"), "predictions.json",
               "{\"images\":[{\"name\":\"n\",\"thumbnail\":\"Zm9v\",\"truth\":{\"label\":1,\"class\":\"<s>fish\","
               "\"probability\":0.5},"
               "\"predictions\":[{\"label\":1,\"class\":\"<s>fish\",\"probability\":0.5}],"
               "\"teacher\":{\"label\":2,\"class\":\"crane\",\"probability\":0.25}}]}");
    write_file(*state, "other.json", comparison_text);
    assert_ok(cab_report_runs_read((const char *[]){temp_path(state, "r"), temp_path(state, "other.json")}, 2, &runs));
    assert_int_equal(runs.n_comparison, 2);
    assert_string_equal(runs.comparisons[0].name, "r");
    assert_string_equal(runs.comparisons[1].name, "other.json");
    assert_int_equal(runs.comparisons[0].look, 0);
    assert_int_not_equal(runs.comparisons[1].look, 0);
    char *page = page_of(state, &runs, "t");
    assert_non_null(strstr(page, "median 0.200 over 3 windows of text"));
    assert_non_null(strstr(page, "&lt;u&gt;cat"));
    assert_non_null(strstr(page, "&lt;a&gt;"));
    assert_non_null(strstr(page, "&lt;s&gt;fish"));
    assert_non_null(strstr(page, "teacher: crane, 25"));
    assert_null(strstr(page, "<u>"));
    assert_null(strstr(page, "<s>"));
    cab_free(page);
    cab_report_runs_free(&runs);
}

/* What stays attention is a heat map; of a damaged file nothing is. */
static void rankings_are_shown(void **state)
{
    static const struct {
        const char *text;
        int cells, kept;
    } files[] = {{"{\"unit\": \"heads\", \"cost\": [[0.1, 2.5, 0.2], [0.1, 0.05, 0.3]], \"kept\": [[1], [2]]}", 6, 2},
                 {"{\"unit\": \"layers\", \"cost\": [[0.1, 2.5, 0.2, 7]], \"kept\": [[1, 3]]}", 4, 2},
                 {"{\"unit\": \"heads\", \"cost\": [], \"kept\": [[1], [2]]}", 0, 0},
                 {"{\"unit\": \"heads\", \"cost\": [[0.1, 2.5], [0.1]], \"kept\": [[1], [2]]}", 0, 0},
                 {"{\"unit\": \"heads\", \"cost\": [[0.1, 2.5]], \"kept\": [[2]]}", 0, 0},
                 {"{\"unit\": \"heads\", \"cost\": [[0.1, \"<b>\"]], \"kept\": [[1]]}", 0, 0},
                 {"{\"unit\": \"<b>\", \"cost\": [[0.1, 2.5]], \"kept\": [[1]]}", 0, 0},
                 {"{\"unit\": \"heads\", \"cost\": [[0.1, NaN]], \"kept\": [[1]]}", 0, 0},
                 {"{\"unit\"", 0, 0}};
    make_run(temp_path(state, "r"), 12, 5);
    assert_ok(cab_directory_make(temp_path(state, "r/student")));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        cab_report_runs runs = {0};
        int cells = 0, kept = 0;
        write_file(temp_path(state, "r"), "student/kept_attention.json", files[i].text);
        assert_ok(cab_report_runs_read((const char *[]){temp_path(state, "r")}, 1, &runs));
        char *page = page_of(state, &runs, "t");
        const char *at = strstr(page, "<h2>What stays attention</h2>");
        assert_true((at != NULL) == (files[i].cells > 0));
        for (const char *cell = at; cell != NULL && (cell = strstr(cell, "nats per token</title>")) != NULL; cell++)
            cells++;
        for (const char *cell = at; cell != NULL && (cell = strstr(cell, "<rect class=\"kept\"")) != NULL; cell++)
            kept++;
        assert_int_equal(cells, files[i].cells);
        assert_int_equal(kept, files[i].kept);
        assert_null(strstr(page, "<b>"));
        cab_free(page);
        cab_report_runs_free(&runs);
    }
}

/* Cut short anywhere or spoiled, they are left out of a run's page; a file that was asked for is an error. */
static void damaged_comparisons_are_left_out(void **state)
{
    char text[sizeof comparison_text];
    uint32_t random = 11;
    make_run(temp_path(state, "r"), 12, 5);
    for (size_t i = 0; i < 60; i++) {
        cab_report_runs runs = {0};
        memcpy(text, comparison_text, sizeof text);
        random = random * 1664525u + 1013904223u;
        if (i % 2 == 0)
            text[(random >> 8) % (sizeof text - 1)] = '\0';
        else
            text[(random >> 8) % (sizeof text - 1)] = (char)(32 + (random >> 24) % 90);
        write_file(temp_path(state, "r"), "compare.json", text);
        write_file(temp_path(state, "r"), "predictions.json", text);
        assert_ok(cab_report_runs_read((const char *[]){temp_path(state, "r")}, 1, &runs));
        assert_int_equal(runs.items[0].predictions.count, 0);
        cab_free(page_of(state, &runs, "t"));
        cab_report_runs_free(&runs);
    }
    cab_report_runs runs = {0};
    write_file(*state, "bad.json", "{");
    assert_fails(cab_report_runs_read((const char *[]){temp_path(state, "bad.json")}, 1, &runs), CAB_EFORMAT,
                 "bad.json");
    cab_report_runs_free(&runs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(runs_are_read_back),
        TEMP_TEST(the_table_is_for_people_and_programs),
        TEMP_TEST(the_page_shows_text_as_text),
        TEMP_TEST(long_samples_are_cut_between_characters),
        TEMP_TEST(damaged_runs_are_reported),
        TEMP_TEST(numbers_out_of_the_world_are_left_out),
        TEMP_TEST(a_teacher_without_a_logarithm_has_no_line),
        TEMP_TEST(methods_keep_their_looks),
        TEMP_TEST(names_cannot_leave_the_data),
        TEMP_TEST(runs_on_images_have_their_columns),
        TEMP_TEST(comparisons_and_predictions_are_shown),
        TEMP_TEST(rankings_are_shown),
        TEMP_TEST(damaged_comparisons_are_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
