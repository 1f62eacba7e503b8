/* test_recipe.c - recipes: defaults, presets, precedence, errors that name line and key, overrides, hostile files. */
#include "base/memory.h"
#include "distill/augmentation.h"
#include "distill/recipe_domain.h"
#include "distill/students.h"
#include "temp.h"

static cab_recipe *parse(const char *text)
{
    cab_recipe *recipe = NULL;
    if (cab_recipe_parse("r.yaml", text, strlen(text), &recipe) != CAB_OK)
        fail_msg("%s", cab_error_text());
    return recipe;
}

static void refused(const char *text, const char *sentence)
{
    cab_recipe *recipe = NULL;
    assert_int_equal(cab_recipe_parse("r.yaml", text, strlen(text), &recipe), CAB_EFORMAT);
    assert_string_equal(cab_error_text(), sentence);
    assert_null(recipe);
}

static cab_recipe *preset(const char *method)
{
    cab_recipe *recipe = NULL;
    assert_int_equal(cab_recipe_preset(method, &recipe), CAB_OK);
    return recipe;
}

static void set(cab_recipe *recipe, const char *key, const char *value)
{
    if (cab_recipe_set(recipe, key, value) != CAB_OK)
        fail_msg("%s", cab_error_text());
}

static char *print(const cab_recipe *recipe)
{
    char *text;
    size_t size;
    if (cab_recipe_print(recipe, &text, &size) != CAB_OK)
        fail_msg("%s", cab_error_text());
    return text;
}

static cab_recipe *complete(const char *method)
{
    cab_recipe *recipe = preset(method);
    set(recipe, "teacher.path", "teacher");
    set(recipe, "data.train", "a.txt,b.txt");
    set(recipe, "data.eval", "c.txt");
    set(recipe, "out", "run");
    set(recipe, "train.tokens", "1000000");
    return recipe;
}

static void test_presets(void **state)
{
    (void)state;
    static const struct {
        const char *method;
        unsigned stages;
        int weights;
    } cases[] = {{"vanilla", 1, CAB_INIT_SCRATCH},        {"soft", 1, CAB_INIT_SCRATCH},
                 {"cab-published", 2, CAB_INIT_SCRATCH},  {"cab", 1, CAB_INIT_SCRATCH},
                 {"weight-reuse", 1, CAB_INIT_TEACHER},   {"multi-stage", 3, CAB_INIT_TEACHER},
                 {"attention-copy", 1, CAB_INIT_TEACHER}, {"cab-best", 1, CAB_INIT_TEACHER}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32];
        cab_recipe *recipe = complete(cases[i].method);
        assert_string_equal(cab_recipe_method_name(recipe, name, sizeof name), cases[i].method);
        assert_int_equal(recipe->stages_count, cases[i].stages);
        assert_int_equal(recipe->init.weights, cases[i].weights);
        assert_int_equal(cab_recipe_validate(recipe), CAB_OK);
        cab_recipe_free(recipe);
    }
    cab_recipe *recipe = preset("cab-published");
    assert_true(recipe->stages[0].align > 0 && recipe->stages[0].ce == 0 && recipe->stages[0].kl == 0);
    assert_true(recipe->stages[1].align == 0 && recipe->stages[1].ce > 0 && recipe->stages[1].kl > 0);
    cab_recipe_free(recipe);
    assert_int_equal(cab_recipe_preset("cab-beast", &recipe), CAB_EARG);
    assert_non_null(strstr(cab_error_text(), "did you mean \"cab-best\"?"));
}

/* From one preset to another: as if it had been the only one. */
static void expect_nothing_left(int before, int method, bool images)
{
    cab_recipe *direct, *detour;
    assert_int_equal(cab_recipe_new(&direct), CAB_OK);
    assert_int_equal(cab_recipe_new(&detour), CAB_OK);
    set(direct, "student.architecture", images ? "vim" : "phi-mamba");
    set(detour, "student.architecture", images ? "vim" : "phi-mamba");
    assert_int_equal(cab_recipe_apply_method(detour, before), CAB_OK);
    assert_int_equal(cab_recipe_apply_method(detour, method), CAB_OK);
    assert_int_equal(cab_recipe_apply_method(direct, method), CAB_OK);
    char *one = print(direct), *two = print(detour);
    assert_string_equal(one, two);
    cab_free(one);
    cab_free(two);
    cab_recipe_free(direct);
    cab_recipe_free(detour);
}

/* Every preset names the same keys outside init and stages, so that going from one to another leaves nothing behind. */
static void test_presets_leave_nothing_behind(void **state)
{
    (void)state;
    for (int images = 0; images < 2; images++)
        for (int a = CAB_METHOD_VANILLA; a <= CAB_METHOD_CAB_BEST; a++)
            for (int b = CAB_METHOD_VANILLA; b <= CAB_METHOD_CAB_BEST; b++)
                expect_nothing_left(a, b, images != 0);
}

static void test_order_in_file_has_no_meaning(void **state)
{
    (void)state;
    cab_recipe *first = parse("method: weight-reuse\ninit:\n  std: 0.5\ntrain: {lr: 2e-4, batch: 32}\n");
    cab_recipe *last = parse("train: {batch: 32, lr: 2e-4}\ninit:\n  std: 0.5\nmethod: weight-reuse\n");
    char *one = print(first), *two = print(last);
    assert_string_equal(one, two);
    assert_true(first->init.std == 0.5 && first->init.weights == CAB_INIT_TEACHER && first->train.lr == 2e-4);
    cab_free(one);
    cab_free(two);
    cab_recipe_free(first);
    cab_recipe_free(last);
}

static void test_file_stages_replace_the_presets(void **state)
{
    (void)state;
    cab_recipe *recipe =
        parse("stages:\n  - {name: only, kl: 2, freeze: [\"embed*\", 'a,b']}\nmethod: cab-published\n");
    assert_int_equal(recipe->stages_count, 1);
    assert_string_equal(recipe->stages[0].name, "only");
    assert_true(recipe->stages[0].kl == 2 && recipe->stages[0].align == 0);
    assert_int_equal(recipe->stages[0].freeze.count, 2);
    assert_string_equal(recipe->stages[0].freeze.items[1], "a,b");
    set(recipe, "method", "cab-published");
    assert_int_equal(recipe->stages_count, 2);
    cab_recipe_free(recipe);
}

static void test_typos(void **state)
{
    (void)state;
    refused("seed: 3\ntrain:\n  lr: 1e-3\n\n  # a comment\n  weigth_decay: 3\n",
            "r.yaml:6: unknown key \"train.weigth_decay\"; did you mean \"train.weight_decay\"?");
    refused("sead: 3\n", "r.yaml:1: unknown key \"sead\"; did you mean \"seed\"?");
    refused("seed: 3\nlr: 1\n", "r.yaml:2: unknown key \"lr\"; did you mean \"train.lr\"?");
    refused("method: soft\nstages:\n- {kl: 1}\n-\n  kl: 1\n  tempratur: 2\n",
            "r.yaml:6: unknown key \"stages[1].tempratur\"; did you mean \"stages[0].temperature\"?");
    refused("teacher:\n  zzzzzzzzzzzzzzzz: 2\n",
            "r.yaml:2: unknown key \"teacher.zzzzzzzzzzzzzzzz\"; its group has path, precision, cache, cache_words");
    refused("qqqqqqqqqqqqqqq: 2\n",
            "r.yaml:1: unknown key \"qqqqqqqqqqqqqqq\"; groups are teacher, student, data, augment, init, "
            "bridge, train, eval, stages[N]");
    refused("\"a\\e[31m\": 2\n",
            "r.yaml:1: unknown key \"a\\x1b[31m\"; groups are teacher, student, data, augment, init, "
            "bridge, train, eval, stages[N]");
}

static void test_values(void **state)
{
    (void)state;
    refused("train:\n  lr: fast\n", "r.yaml:2: train.lr: found \"fast\", expected a number from 0 to 10");
    refused("train:\n  lr: 11\n", "r.yaml:2: train.lr: found \"11\", expected a number from 0 to 10");
    refused("train: {batch: 2.5}\n", "r.yaml:1: train.batch: found \"2.5\", expected a whole number from 1 to 1048576");
    refused("train: {batch: 0x10}\n",
            "r.yaml:1: train.batch: found \"0x10\", expected a whole number from 1 to 1048576");
    refused("train: {lr: .inf}\n", "r.yaml:1: train.lr: found \".inf\", expected a number from 0 to 10");
    refused("train: {lr: nan}\n", "r.yaml:1: train.lr: found \"nan\", expected a number from 0 to 10");
    refused("train:\n  lr:\n", "r.yaml:2: train.lr: found \"\", expected a number from 0 to 10");
    refused("seed: 99999999999999999999\n",
            "r.yaml:1: seed: found \"99999999999999999999\", expected a whole number, 0 or more");
    refused("\nprecision: fp16\n",
            "r.yaml:2: precision: found \"fp16\", did you mean \"fp32\"? Expected one of auto, fp32, bf16");
    refused("init:\n  gate_open: perhaps\n", "r.yaml:2: init.gate_open: found \"perhaps\", expected true or false");
    refused("train:\n  lr: [1]\n", "r.yaml:2: train.lr: found a list, expected a number from 0 to 10");
    refused("\ndata:\n  train: a.txt\n", "r.yaml:3: data.train: found a single value, expected a list of texts");
    refused("seed: {a: 1}\n", "r.yaml:1: seed: found a group of keys, expected a whole number, 0 or more");
    refused("train:\n  - 3\n", "r.yaml:1: train: found a list, expected keys and values");
    refused("stages: 3\n", "r.yaml:1: stages: found a single value, expected a list of stages");
    refused("bridge:\n  layers: [1,\n   2,\n   x]\n",
            "r.yaml:4: bridge.layers[2]: found \"x\", expected a list of whole numbers");
    refused("- 3\n", "r.yaml: the file: found a list, expected keys and values");
    cab_recipe *recipe = parse("train: {tokens: 50e6, recompute: yes}\ndata:\n  train:\nseed: 9223372036854775807\n");
    assert_int_equal(recipe->train.tokens, 50000000);
    assert_int_equal(recipe->seed, INT64_MAX);
    assert_true(recipe->train.recompute);
    cab_recipe_free(recipe);
}

static void test_structure(void **state)
{
    (void)state;
    refused("seed: 3\ntrain:\n  lr: 1\nseed: 4\n", "r.yaml:4: seed is given twice");
    refused("seed: &a 3\nthreads: *a\n", "r.yaml:2: threads is an alias (*name); write the value out");
    refused("seed: 3\ntrain:\n  ? [a, b]\n  : 4\n", "r.yaml:3: a list as a key, expected a word");
    refused("{a: 3}: 4\n", "r.yaml:1: a group of keys as a key, expected a word");
    refused("seed: 3\n\ttrain: 3\n", "r.yaml:2: found a tab character that violates indentation");
    refused("method: \"soft\n", "r.yaml:2: found unexpected end of stream");
    refused("", "r.yaml: is empty, expected a recipe");
    refused("# nothing\n", "r.yaml: is empty, expected a recipe");
}

/* Random damage, deep nesting, many entries: an answer, in good time, and never a crash. */
static void test_hostile(void **state)
{
    (void)state;
    static char text[200000];
    cab_recipe *recipe = NULL;
    memset(text, '[', sizeof text);
    assert_int_equal(cab_recipe_parse("r.yaml", text, sizeof text, &recipe), CAB_EFORMAT);
    strcpy(text, "stages: [");
    for (int i = 0; i < 2000; i++)
        strcat(text, "{kl: 1},");
    strcat(text, "]");
    assert_int_equal(cab_recipe_parse("r.yaml", text, strlen(text), &recipe), CAB_EFORMAT);
    memset(text, 'a', sizeof text);
    memcpy(text, "zork", 4);
    memcpy(text + 100000, ": 3\n", 4);
    assert_int_equal(cab_recipe_parse("r.yaml", text, 100004, &recipe), CAB_EFORMAT);
    cab_recipe *whole = complete("cab-published");
    char *yaml = print(whole);
    size_t size = strlen(yaml);
    uint32_t random = 12345;
    for (int i = 0; i < 400; i++) {
        memcpy(text, yaml, size);
        for (int j = 0; j < 3; j++) {
            random = random * 1664525u + 1013904223u;
            text[(random >> 8) % size] = (char)(random >> 24);
        }
        recipe = NULL;
        cab_status status = cab_recipe_parse("r.yaml", text, size - (size_t)i % 50, &recipe);
        assert_true((status == CAB_OK) == (recipe != NULL));
        cab_recipe_free(recipe);
    }
    cab_free(yaml);
    cab_recipe_free(whole);
}

static const char *sample_value(const cab_option *option, char *buffer, size_t size)
{
    char word[32];
    unsigned last = 0;
    switch (option->kind) {
    case CAB_OPTION_INT:
        snprintf(buffer, size, "%d", option->high < 17 ? (int)option->high : 17);
        break;
    case CAB_OPTION_REAL:
        snprintf(buffer, size, "%.17g", option->real_high > 0.3 ? 0.1 + 0.2 : option->real_high);
        break;
    case CAB_OPTION_BOOL:
        snprintf(buffer, size, "%s", option->whole ? "false" : "true");
        break;
    case CAB_OPTION_ENUM:
        while (cab_words_get(option->words, last, word, sizeof word))
            last++;
        cab_words_get(option->words, last - 1, buffer, size);
        break;
    case CAB_OPTION_TEXT:
        snprintf(buffer, size, "~ \"x\": # 'y' \\n\n\xc3\xa9 - ");
        break;
    case CAB_OPTION_LIST:
        snprintf(buffer, size, "null,[b],*c, d ,,&e,true");
        break;
    case CAB_OPTION_INTS:
        snprintf(buffer, size, "-1,0,5");
        break;
    }
    return buffer;
}

/* Every key can be overridden, the override shows in the struct, and the saved file loads back to the same text. */
static void test_every_override_and_round_trip(void **state)
{
    (void)state;
    cab_recipe *recipe = preset("cab-published");
    unsigned keys = 0;
    for (unsigned g = 0; g < CAB_RECIPE_GROUPS; g++) {
        cab_recipe_group group = cab_recipe_group_get(g);
        bool stages = g == CAB_RECIPE_STAGES_GROUP;
        void *object = stages ? (void *)&recipe->stages[1] : (void *)((char *)recipe + group.offset);
        for (unsigned i = 0; i < group.table.count; i++) {
            const cab_option *option = &group.table.rows[i];
            char key[96], value[128], *now;
            if (strcmp(option->key, "method") == 0 || strcmp(option->key, "architecture") == 0 ||
                strcmp(option->key, "reads") == 0)
                continue; /* they would put the stages back */
            snprintf(key, sizeof key, "%s%s%s%s", group.name, stages ? "[1]" : "", *group.name ? "." : "", option->key);
            set(recipe, key, sample_value(option, value, sizeof value));
            unsigned count = cab_option_count(option, object);
            assert_int_equal(cab_option_format(option, object, count - 1, &now), CAB_OK);
            const char *comma = count > 1 ? strrchr(value, ',') : NULL;
            if (option->kind == CAB_OPTION_REAL)
                assert_true(strtod(now, NULL) == strtod(value, NULL));
            else
                assert_string_equal(now, comma ? comma + 1 : value);
            cab_free(now);
            keys++;
        }
    }
    assert_true(keys > 60);
    char *yaml = print(recipe);
    cab_recipe *again = parse(yaml);
    char *twice = print(again);
    assert_string_equal(yaml, twice);
    assert_string_equal(again->teacher.path, recipe->teacher.path);
    assert_int_equal(again->data.train.count, recipe->data.train.count);
    for (unsigned i = 0; i < recipe->data.train.count; i++)
        assert_string_equal(again->data.train.items[i], recipe->data.train.items[i]);
    assert_true(again->train.lr == recipe->train.lr);
    cab_free(yaml);
    cab_free(twice);
    cab_recipe_free(recipe);
    cab_recipe_free(again);
}

static void test_set_errors(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"train.lrr", "1", "unknown key \"train.lrr\"; did you mean \"train.lr\"?"},
        {"stages[2].kl", "1", "stages[2].kl: the recipe has 2 stages, counted from 0"},
        {"stages[99999999999999999999].kl", "1",
         "stages[99999999999999999999].kl: the recipe has 2 stages, counted from 0"},
        {"stages[-1].kl", "1", "unknown key \"stages[-1].kl\"; did you mean \"stages[0].kl\"?"},
        {"stages[0].kll", "1", "unknown key \"stages[0].kll\"; did you mean \"stages[0].kl\"?"},
        {"train.beta1", "2", "train.beta1: found \"2\", expected a number from 0 to 1"},
        {"bridge.layers", "1,,2", "bridge.layers: found \"\", expected a list of whole numbers"},
        {"teacher", "1", "unknown key \"teacher\"; its group has path, precision, cache, cache_words"},
    };
    cab_recipe *recipe = preset("cab-published");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(cab_recipe_set(recipe, cases[i][0], cases[i][1]), CAB_EARG);
        assert_string_equal(cab_error_text(), cases[i][2]);
    }
    cab_recipe_free(recipe);
}

static void test_validate(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"teacher.path", "", "teacher.path is missing: the Hugging Face directory of the teacher (--teacher)"},
        {"data.train", "", "data.train is missing: at least one file to train on (--train)"},
        {"data.eval", "", "data.eval is missing: at least one file to validate on (--eval)"},
        {"out", "", "out is missing: the directory of the run (--out)"},
        {"device", "gpu", "device: found \"gpu\", expected cpu, cuda or cuda:N"},
        {"bridge.layer_map", "list", "bridge.layer_map is list, but bridge.layers is empty"},
        {"bridge.layers", "0,1", "bridge.layers is given, but bridge.layer_map is not list"},
        {"train.eps", "0", "train.eps: found 0, expected more than 0"},
        {"train.beta2", "1", "train.beta2: found 1, expected less than 1"},
        {"train.micro_batch", "3", "train.batch 8 is no multiple of train.micro_batch 3"},
        {"train.tokens", "0",
         "stages[0] \"align\" has no length: set train.tokens (--tokens) or train.passes (--passes), or the stage's "
         "tokens, steps or passes"},
        {"train.passes", "2", "train.tokens and train.passes exclude each other"},
        {"data.classes", "c.tsv",
         "data.classes, image_size, min_side and image_cache are of images, the student phi-mamba reads text; its "
         "teacher must read images, and student.reads be images where that is not there"},
        {"stages[0].align", "0", "stages[0] \"align\": no loss term; give ce, kl, align, layer or matrix a weight"},
        {"stages[1].kl_end", "-0.5", "stages[1].kl_end: found -0.5, expected 0 or more, or -1"},
        {"stages[0].tokens", "5", "stages[0] \"align\": give one of share, tokens, steps and passes, found 2"},
        {"stages[0].share", "1", "stages[1] \"distil\": the other stages leave none of the 1000000 tokens"},
        {"stages[0].share", "0", "stages[0] and stages[1] both have no length: at most one takes the rest"},
        {"stages[1].share", "0.2",
         "stages: their lengths add up to 350000 tokens, train.tokens is 1000000; leave one stage without a length to "
         "take the rest"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cab_recipe *recipe = complete("cab-published");
        set(recipe, "stages[0].share", "0.15");
        set(recipe, cases[i][0], cases[i][1]);
        assert_int_not_equal(cab_recipe_validate(recipe), CAB_OK);
        assert_string_equal(cab_error_text(), cases[i][2]);
        cab_recipe_free(recipe);
    }
    cab_recipe *empty = parse("seed: 1\nteacher: {path: a}\ndata: {train: [a], eval: [b]}\nout: x\n");
    assert_int_equal(cab_recipe_validate(empty), CAB_EARG);
    assert_non_null(strstr(cab_error_text(), "stages: none"));
    cab_recipe_free(empty);
}

static void test_stage_steps(void **state)
{
    (void)state;
    uint64_t steps[CAB_STAGES_MAX];
    cab_recipe *recipe = complete("cab-published");
    set(recipe, "stages[0].share", "0.25");
    set(recipe, "train.batch", "10");
    assert_int_equal(cab_recipe_stage_steps(recipe, 100, 500, steps), CAB_OK);
    assert_int_equal(steps[0], 250);
    assert_int_equal(steps[1], 750);
    set(recipe, "stages[0].share", "0");
    set(recipe, "stages[0].steps", "7");
    assert_int_equal(cab_recipe_stage_steps(recipe, 100, 500, steps), CAB_OK);
    assert_int_equal(steps[0], 7);
    assert_int_equal(steps[1], 993);
    set(recipe, "train.tokens", "0");
    set(recipe, "stages[1].tokens", "1");
    assert_int_equal(cab_recipe_stage_steps(recipe, 100, 500, steps), CAB_OK);
    assert_int_equal(steps[1], 1);
    set(recipe, "stages[0].steps", "9223372036854775807");
    assert_int_equal(cab_recipe_stage_steps(recipe, 1048576, 500, steps), CAB_EARG);
    cab_recipe_free(recipe);
}

/* The architecture brings its defaults and presets; what a file gives stays, in whatever order it stands there. */
static void test_images(void **state)
{
    (void)state;
    cab_recipe *recipe = preset("cab-published");
    set(recipe, "train.batch", "16");
    set(recipe, "student.architecture", "vim");
    assert_true(cab_recipe_domain_of(recipe) == &cab_recipe_images && recipe->stages_count == 1 &&
                recipe->init.near_identity);
    assert_true(recipe->stages[0].kl == 1 && recipe->stages[0].align == 3 && recipe->stages[0].ce == 0);
    assert_true(recipe->train.batch == 16 && recipe->bridge.hidden == 128 && recipe->train.weight_decay == 0.05);
    assert_int_equal(recipe->bridge.feature_map, CAB_BRIDGE_MAP_SOFTMAX);
    assert_true(cab_recipe_lr(recipe, &recipe->stages[0], 192) == 5e-4 / 512 * 16);
    set(recipe, "student.architecture", "phi-mamba"); /* and back */
    assert_true(recipe->stages_count == 2 && recipe->bridge.hidden == 0 && recipe->train.weight_decay == 0.1);
    cab_recipe_free(recipe);
    recipe = parse("train: {clip: 1, beta2: 0.95}\nmethod: vanilla\nstudent: {architecture: vim}\n");
    assert_true(recipe->train.clip == 1 && recipe->train.beta2 == 0.95 && recipe->train.batch == 64);
    assert_true(recipe->stages[0].ce == 1 && !recipe->init.conv_identity);
    cab_recipe_free(recipe);
    for (int method = CAB_METHOD_VANILLA; method <= CAB_METHOD_CAB_BEST; method++) {
        assert_int_equal(cab_recipe_new(&recipe), CAB_OK);
        set(recipe, "student.architecture", "vim");
        assert_int_equal(cab_recipe_apply_method(recipe, method), CAB_OK);
        assert_int_equal(recipe->bridge.hidden, method == CAB_METHOD_CAB_BEST ? 384 : 128);
        set(recipe, "teacher.path", "vit");
        set(recipe, "data.train", "train.tar");
        set(recipe, "data.eval", "val.tar");
        set(recipe, "data.classes", "classes.tsv");
        set(recipe, "out", "run");
        set(recipe, "train.passes", "2.5");
        if (cab_recipe_validate(recipe) != CAB_OK)
            fail_msg("%s", cab_error_text());
        uint64_t steps[3] = {0};
        assert_int_equal(cab_recipe_stage_steps(recipe, 1, 1000, steps), CAB_OK);
        assert_int_equal(steps[0] + steps[1] + steps[2], 39); /* 2500 images in batches of 64 */
        cab_recipe_free(recipe);
    }
}

/* What a file sets to the default of another architecture or of no method stays when these change. */
static void test_what_was_set_stays(void **state)
{
    (void)state;
    cab_recipe *recipe =
        parse("method: cab-published\ntrain: {batch: 8, warmup: 0.07}\nbridge: {feature_map: none, hidden: 0}\n"
              "init: {conv_identity: false}\n");
    set(recipe, "student.architecture", "vim");
    assert_true(recipe->train.batch == 8 && recipe->train.warmup == 0.07 && recipe->train.beta2 == 0.999);
    assert_int_equal(recipe->bridge.feature_map, CAB_BRIDGE_MAP_NONE);
    assert_true(recipe->bridge.hidden == 0 && recipe->student.d_state == 16);
    assert_true(recipe->init.near_identity && !recipe->init.conv_identity && recipe->stages_count == 1);
    set(recipe, "student.architecture", "phi-mamba"); /* and back, where conv_identity is the preset's */
    assert_true(!recipe->init.conv_identity && !recipe->init.near_identity && recipe->stages_count == 2);
    assert_true(recipe->train.batch == 8 && recipe->train.beta2 == 0.95 && recipe->student.d_state == 0);
    for (int method = CAB_METHOD_VANILLA; method <= CAB_METHOD_CAB_BEST; method++)
        assert_int_equal(cab_recipe_apply_method(recipe, method), CAB_OK);
    set(recipe, "student.architecture", "vim");
    assert_true(recipe->train.batch == 8 && recipe->train.warmup == 0.07);
    assert_int_equal(recipe->bridge.hidden, 0);
    cab_recipe_free(recipe);
    recipe = parse("method: cab-published\nstages: [{name: mine, ce: 1}]\n");
    set(recipe, "student.architecture", "vim");
    assert_int_equal(recipe->stages_count, 1);
    assert_string_equal(recipe->stages[0].name, "mine");
    set(recipe, "method", "cab-published"); /* set after the stages: replaces them */
    assert_string_equal(recipe->stages[0].name, "distil");
    cab_recipe_free(recipe);
}

/* One word is of text or of images, as student.reads says, or the other key, or nothing. */
static void test_which_student(void **state)
{
    (void)state;
    static const struct {
        const char *settings[3];
        const char *architecture, *domain;
        int64_t batch;
    } cases[] = {
        {{NULL}, "phi-mamba", "text", 8},
        {{"student.architecture=in-place"}, "in-place", "text", 8},
        {{"student.reads=images"}, "in-place", "images", 64},
        {{"student.architecture=in-place", "student.reads=images"}, "in-place", "images", 64},
        {{"student.reads=images", "student.architecture=vim"}, "vim", "images", 64},
        {{"student.architecture=vim", "teacher.path=examples/tales/teacher"}, "vim", "images", 64},
        {{"student.reads=images", "teacher.path=examples/tales/teacher"}, "in-place", "images", 64},
        {{"student.architecture=vim", "student.architecture=in-place", "student.reads=text"}, "in-place", "text", 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cab_recipe *recipe = preset("cab-best"), *read = NULL;
        for (int k = 0; k < 3 && cases[i].settings[k] != NULL; k++) {
            const char *equals = strchr(cases[i].settings[k], '=');
            char key[64];
            snprintf(key, sizeof key, "%.*s", (int)(equals - cases[i].settings[k]), cases[i].settings[k]);
            set(recipe, key, equals + 1);
        }
        char *text = print(recipe);
        assert_ok(cab_recipe_parse("printed", text, strlen(text), &read));
        for (int again = 0; again < 2; again++) {
            const cab_recipe *r = again ? read : recipe;
            assert_string_equal(cab_student_of(r)->name, cases[i].architecture);
            assert_string_equal(cab_recipe_domain_of(r)->name, cases[i].domain);
            assert_ptr_equal(cab_student_domain(r), cab_recipe_domain_of(r));
            assert_int_equal(r->train.batch, cases[i].batch);
        }
        cab_free(text);
        cab_recipe_free(recipe);
        cab_recipe_free(read);
    }
}

/* Keys of another student than the recipe's would change nothing: they are refused by name. */
static void test_keys_of_another_student(void **state)
{
    (void)state;
    cab_recipe *recipe = preset("soft");
    set(recipe, "teacher.path", "t");
    set(recipe, "data.train", "a.txt");
    set(recipe, "data.eval", "b.txt");
    set(recipe, "out", "run");
    set(recipe, "train.tokens", "1000");
    assert_ok(cab_recipe_validate(recipe));
    set(recipe, "student.expand", "3");
    assert_fails(cab_recipe_validate(recipe), CAB_EARG, "student.expand is of in-place, the student is phi-mamba");
    set(recipe, "student.expand", "2");
    set(recipe, "student.architecture", "vim");
    assert_ok(cab_recipe_validate(recipe));
    set(recipe, "init.gate_open", "true");
    assert_fails(cab_recipe_validate(recipe), CAB_EARG, "init.gate_open is of phi-mamba, the student is vim");
    set(recipe, "init.gate_open", "false");
    set(recipe, "student.architecture", "in-place");
    set(recipe, "student.reads", "text");
    set(recipe, "student.token_scale", "2");
    assert_fails(cab_recipe_validate(recipe), CAB_EARG,
                 "student.token_scale is of in-place of images, the student is in-place of text");
    set(recipe, "student.token_scale", "4");
    set(recipe, "student.architecture", "vim");
    assert_fails(cab_recipe_validate(recipe), CAB_EARG, "student.reads is text, student.architecture vim reads images");
    cab_recipe_free(recipe);
}

/* A key of two students, methods of a student's own, a rate that only one kind can have. */
static void test_in_place(void **state)
{
    (void)state;
    cab_recipe *recipe = preset("cab-best");
    assert_true(recipe->stages_count == 1);
    set(recipe, "student.architecture", "in-place");
    assert_true(recipe->stages_count == 2 && recipe->stages[0].layer == 1 && recipe->stages[1].kl == 1);
    set(recipe, "teacher.path", "llama");
    set(recipe, "data.train", "a.txt");
    set(recipe, "data.eval", "b.txt");
    set(recipe, "out", "run");
    set(recipe, "train.tokens", "1000");
    set(recipe, "student.expand", "3");
    set(recipe, "stages[1].reused_rate", "0.3");
    assert_ok(cab_recipe_validate(recipe));
    set(recipe, "student.expand", "2");
    set(recipe, "student.architecture", "phi-mamba");
    assert_fails(cab_recipe_validate(recipe), CAB_EARG,
                 "stages[1].reused_rate is of students that keep parts of their teacher, phi-mamba does not");
    cab_recipe_free(recipe);
}

static void test_augmentation(void **state)
{
    (void)state;
    cab_augment augment;
    cab_recipe *recipe = parse("augment: {smoothing: 0, rand: none, erase_mode: rand, repeats: 3}\n");
    assert_int_equal(cab_recipe_augment(recipe, &augment), CAB_OK);
    assert_true(augment.smoothing == 0 && augment.rand.operations == 0 && augment.repeats == 3);
    assert_true(augment.erase_mode == CAB_ERASE_RAND && augment.mixup == 0.8f && augment.jitter == 0.3f);
    set(recipe, "augment.preset", "none");
    set(recipe, "augment.flip", "0.25");
    assert_int_equal(cab_recipe_augment(recipe, &augment), CAB_OK);
    assert_true(augment.flip == 0.25f && augment.scale_max == 0 && augment.mixup == 0);
    set(recipe, "augment.mixup", "-0.5");
    assert_int_equal(cab_recipe_augment(recipe, &augment), CAB_EARG);
    assert_string_equal(cab_error_text(), "augment.mixup: found -0.5, expected 0 or more, or -1");
    set(recipe, "augment.mixup", "-1");
    set(recipe, "augment.scale_min", "0.9");
    assert_int_equal(cab_recipe_augment(recipe, &augment), CAB_EARG); /* more than scale_max */
    cab_recipe_free(recipe);
}

/* Passes over data of 500 tokens: rounded to whole steps, for the whole run or a stage. */
static void test_passes(void **state)
{
    (void)state;
    uint64_t steps[CAB_STAGES_MAX];
    cab_recipe *recipe = complete("cab-published");
    set(recipe, "train.batch", "10");
    set(recipe, "train.tokens", "0");
    set(recipe, "train.passes", "20");
    assert_int_equal(cab_recipe_stage_steps(recipe, 100, 500, steps), CAB_OK);
    assert_true(steps[0] == 2 && steps[1] == 8); /* a fifth of 10000 tokens, and the rest */
    set(recipe, "stages[0].share", "0");
    set(recipe, "stages[0].passes", "10");
    assert_int_equal(cab_recipe_stage_steps(recipe, 100, 500, steps), CAB_OK);
    assert_true(steps[0] == 5 && steps[1] == 5);
    assert_int_equal(cab_recipe_validate(recipe), CAB_OK);
    set(recipe, "stages[0].passes", "30");
    assert_int_equal(cab_recipe_validate(recipe), CAB_EARG);
    cab_recipe_free(recipe);
}

static void test_files(void **state)
{
    char path[CAB_PATH_MAX];
    assert_ok(cab_path_join(path, *state, "recipe.yaml"));
    cab_recipe *recipe = complete("cab-best"), *again = NULL;
    assert_int_equal(cab_recipe_load(path, &again), CAB_EIO);
    assert_ok(cab_recipe_save(recipe, path));
    assert_ok(cab_recipe_load(path, &again));
    char *one = print(recipe), *two = print(again);
    assert_string_equal(one, two);
    cab_free(one);
    cab_free(two);
    cab_recipe_free(recipe);
    cab_recipe_free(again);
    cab_recipe_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_presets_leave_nothing_behind),
        cmocka_unit_test(test_order_in_file_has_no_meaning),
        cmocka_unit_test(test_file_stages_replace_the_presets),
        cmocka_unit_test(test_typos),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_structure),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_every_override_and_round_trip),
        cmocka_unit_test(test_set_errors),
        cmocka_unit_test(test_validate),
        cmocka_unit_test(test_stage_steps),
        cmocka_unit_test(test_images),
        cmocka_unit_test(test_what_was_set_stays),
        cmocka_unit_test(test_which_student),
        cmocka_unit_test(test_keys_of_another_student),
        cmocka_unit_test(test_augmentation),
        cmocka_unit_test(test_passes),
        cmocka_unit_test_setup_teardown(test_files, temp_setup, temp_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
