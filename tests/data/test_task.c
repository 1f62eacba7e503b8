/* Tasks: what their YAML may say, templates, labels, items out of JSON lines; every mistake by file and line. */
#include "base/memory.h"
#include "data/task.h"
#include "scratch.h"

static cab_task *parse(const char *yaml)
{
    cab_task *task = NULL;
    assert_ok(cab_task_parse("folder/quiz.yaml", yaml, strlen(yaml), &task));
    return task;
}

static const char two[] = "data: [a.jsonl]\ncontext: \"Question: {q}\\nAnswer:\"\nchoices: [\" {x}\", \" {y}\"]\n";

static void test_items(void **state)
{
    (void)state;
    cab_task *task = parse(two);
    assert_string_equal(task->name, "quiz");
    assert_ok(cab_task_read_lines(task, "a.jsonl",
                                  "{\"q\": \"1+1?\", \"x\": 2, \"y\": \"3 {q}\", \"label\": \"0\"}\r\n\n"
                                  "{\"q\": \"\", \"x\": \"b\", \"y\": 1.5, \"label\": 1}",
                                  NULL, 0));
    assert_int_equal(task->n_items, 2);
    assert_string_equal(task->items[0].context, "Question: 1+1?\nAnswer:");
    assert_string_equal(task->items[0].choices[0], " 2");
    assert_string_equal(task->items[0].choices[1], " 3 {q}"); /* what is filled in is no template */
    assert_int_equal(task->items[0].label, 0);
    assert_string_equal(task->items[1].choices[1], " 1.5");
    assert_int_equal(task->items[1].label, 1);
    cab_task_free(task);
}

/* A list of choices with names; labels in a file of their own that count from 1; fewer than all. */
static void test_labels(void **state)
{
    (void)state;
    cab_task *task =
        parse("data: [a.jsonl]\nlabel: key\nnames: c.label\ncontext: \"{{{q}}}\"\nchoices: \" {c.text}\"\n");
    assert_ok(
        cab_task_read_lines(task, "a.jsonl",
                            "{\"q\": \"x\", \"key\": \"C\", \"c\": [{\"label\": \"A\", \"text\": \"one\"}, {\"label\": "
                            "\"B\", \"text\": \"two\"}, {\"label\": \"C\", \"text\": \"three\"}]}",
                            NULL, 0));
    assert_string_equal(task->items[0].context, "{x}");
    assert_int_equal(task->items[0].n_choices, 3);
    assert_string_equal(task->items[0].choices[2], " three");
    assert_int_equal(task->items[0].label, 2);
    cab_task_free(task);
    task = parse("data: [a.jsonl]\nfirst: 1\nlabels: l\ncontext: c\nchoices: [a, b]\n");
    assert_ok(cab_task_read_lines(task, "a.jsonl", "{}\n{}\n{}\n", "2\n1\n2\n", 2));
    assert_int_equal(task->n_items, 2);
    assert_int_equal(task->items[0].label, 1);
    assert_int_equal(task->items[1].label, 0);
    cab_task_free(task);
}

static void test_last_word(void **state)
{
    (void)state;
    cab_task *task = parse("data: [a.jsonl]\nmeasure: last-word\ncontext: \"{text}\"\n");
    assert_ok(cab_task_read_lines(task, "a.jsonl", "{\"text\": \"He said:\\n\\\"no way \\n\"}\n", NULL, 0));
    assert_string_equal(task->items[0].context, "He said:\n\"no");
    assert_string_equal(task->items[0].choices[0], " way");
    assert_int_equal(task->items[0].n_choices, 1);
    cab_task_free(task);
}

static void test_files(void **state)
{
    const char *a = scratch_text(state, "a.jsonl", "{\"q\": 1, \"x\": 1, \"y\": 2, \"label\": 0}\n");
    char folder[CAB_PATH_MAX];
    const char *folders[] = {"nowhere", folder};
    cab_task *task = parse(two);
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(a, '/') - a), a);
    assert_ok(cab_task_read(task, folders, 2, 0));
    assert_int_equal(task->n_items, 1);
    cab_task_free(task);
    task = parse(two);
    check_error(cab_task_read(task, folders, 1, 0), CAB_EIO, "nowhere", "task \"quiz\": no a.jsonl there");
    check_error(cab_task_read(task, NULL, 0, 0), CAB_EARG, "quiz", "--data=DIR");
    cab_task_free(task);
}

static void test_bad_yaml(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *file, *words;
    } rows[] = {
        {"", "q.yaml", "is empty, expected a task"},
        {"- a\n", "q.yaml:1", "expected keys and values"},
        {"data: [a]\nchoises: [a]\n", "q.yaml:2", "unknown key \"choises\"; did you mean \"choices\"?"},
        {"data: [a]\ndata: [b]\n", "q.yaml:2", "data is given twice"},
        {"data: [a]\nfirst: 2\n", "q.yaml:2", "found \"2\", expected a whole number from 0 to 1"},
        {"data: [a]\nmeasure: f1\n", "q.yaml:2", "expected one of choice, last-word"},
        {"data: {a: b}\n", "q.yaml:1", "expected a text"},
        {"about: [a]\n", "q.yaml:1", "expected a text"},
        {"data: &x [a]\nchoices: *x\n", "q.yaml:2", "an alias"},
        {"data: [a\n", "q.yaml:", ""},
        {"data: [a]\ncontext: c\nchoices: [a, b]\n---\nb: 1\n", "q.yaml:4", "not a second document"},
        {"context: c\nchoices: [a, b]\n", "q.yaml", "data is missing"},
        {"data: [../a]\ncontext: c\nchoices: [a, b]\n", "q.yaml", "data: found \"../a\", expected a file's name"},
        {"data: [a]\nchoices: [a, b]\n", "q.yaml", "context is missing"},
        {"data: [a]\ncontext: c\n", "q.yaml", "choices are missing"},
        {"data: [a]\ncontext: c\nmeasure: last-word\nchoices: [a]\n", "q.yaml", "do not go with measure: last-word"},
        {"data: [a]\ncontext: \"c {x\"\nchoices: [a, b]\n", "q.yaml", "context: found \"{x\""},
        {"data: [a]\ncontext: c\nchoices: [a, \"b}\"]\n", "q.yaml", "choices: found \"}\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cab_task *task = NULL;
        check_error(cab_task_parse("q.yaml", rows[i].yaml, strlen(rows[i].yaml), &task), CAB_EFORMAT, rows[i].file,
                    rows[i].words);
        assert_null(task);
    }
}

static void test_bad_lines(void **state)
{
    (void)state;
    static const char listed[] = "data: [a]\nnames: c.n\ncontext: \"{q}\"\nchoices: [\"{c.t}\"]\n";
    static const struct {
        const char *yaml, *lines, *labels, *words;
    } rows[] = {
        {two, "", NULL, "holds no item of \"quiz\""},
        {two, "{\"q\": 1, \"x\": 1, \"y\": 1, \"label\": 0}\n{\"q\": \n", NULL, "line 2"},
        {two, "[1]\n", NULL, "line 1"},
        {two, "{\"q\": 1, \"x\": 1, \"label\": 0}\n", NULL, "line 1: there is no \"y\""},
        {two, "{\"q\": {}, \"x\": 1, \"y\": 1, \"label\": 0}\n", NULL, "line 1: \"q\" is object, expected a text"},
        {two, "{\"q\": [1], \"x\": 1, \"y\": 1, \"label\": 0}\n", NULL, "\"q\" is a list of 1, expected one text"},
        {two, "{\"q\": 1, \"x\": 1, \"y\": 1, \"label\": 2}\n", NULL, "label \"2\", expected a number from 0 to 1"},
        {two, "{\"q\": 1, \"x\": 1, \"y\": 1, \"label\": -1}\n", NULL, "label \"-1\", expected a number from 0 to 1"},
        {two, "{\"q\": 1, \"x\": \"\", \"y\": 1, \"label\": 1.5}\n", NULL, "label \"1.5\", expected a number"},
        {two, "{\"q\": 1, \"x\": 1, \"y\": 1}\n{\"q\": 1, \"x\": 1, \"y\": 1}\n", "0\n", "line 2 has no label"},
        {two, "{\"q\": 1, \"x\": 1, \"y\": 1}\n", "0\n1\n", "the file of labels is longer"},
        {listed, "{\"q\": 1, \"c\": [{\"n\": \"A\", \"t\": 1}], \"label\": \"A\"}\n", NULL,
         "1 choices, expected 2 to 64"},
        {listed, "{\"q\": 1, \"c\": [{\"n\": \"A\", \"t\": 1}, {\"n\": \"B\", \"t\": 2}], \"label\": \"C\"}\n", NULL,
         "label \"C\", expected one of \"c.n\""},
        {listed, "{\"q\": 1, \"c\": [{\"n\": \"A\", \"t\": 1}, {\"t\": 2}], \"label\": \"B\"}\n", NULL,
         "there is no \"c.n\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cab_task *task = parse(rows[i].yaml);
        check_error(cab_task_read_lines(task, "a.jsonl", rows[i].lines, rows[i].labels, 0), CAB_EFORMAT, "a.jsonl",
                    rows[i].words);
        cab_task_free(task);
    }
    cab_task *task = parse("data: [a]\nmeasure: last-word\ncontext: \"{t}\"\n");
    check_error(cab_task_read_lines(task, "a.jsonl", "{\"t\": \"word\"}", NULL, 0), CAB_EFORMAT, "a.jsonl: line 1",
                "expected words with spaces");
    cab_task_free(task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items),     cmocka_unit_test(test_labels),
        cmocka_unit_test(test_last_word), cmocka_unit_test_setup_teardown(test_files, scratch_setup, scratch_teardown),
        cmocka_unit_test(test_bad_yaml),  cmocka_unit_test(test_bad_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
