/* Decoding: recurrent steps against the whole text at once, and generation as a user calls it. */
#include "base/log.h"
#include "base/thread.h"
#include "data/tokenizer.h"
#include "models/model.h"
#include "runs.h"
#include "train/decode.h"
#include "train/generate.h"

#include <math.h>

/* Text of a generation, collected; stops it after `limit` bytes. */
typedef struct collected {
    char text[4096];
    size_t size, limit;
} collected;

static bool collect(void *user, const char *text, size_t size)
{
    collected *c = user;
    assert_true(c->size + size < sizeof c->text);
    memcpy(c->text + c->size, text, size);
    c->size += size;
    c->text[c->size] = '\0';
    return c->limit == 0 || c->size < c->limit;
}

static collected generate(cab_model *model, const char *prompt, cab_generate_options o, size_t limit)
{
    collected c = {.limit = limit};
    assert_ok(cab_generate(model, prompt, &o, collect, &c));
    return c;
}

static void test_teacher_continues_its_prompt(void **state)
{
    (void)state;
    cab_model *model = NULL;
    assert_ok(cab_model_load_on(test_device(), runs_teacher, CAB_PRECISION_FP32, &model));
    cab_generate_options o = cab_generate_defaults();
    o.max_tokens = 24;
    o.temperature = 0;
    collected a = generate(model, "Once upon a", o, 0);
    assert_memory_equal(a.text, " time", 5);
    o.temperature = 1;
    collected first = generate(model, "Once upon a", o, 0), again = generate(model, "Once upon a", o, 0);
    assert_string_equal(first.text, again.text);
    o.seed = 5;
    assert_string_not_equal(generate(model, "Once upon a", o, 0).text, first.text);
    o.seed = 1; /* a longer generation begins as the shorter one */
    o.max_tokens = 8;
    collected begun = generate(model, "Once upon a", o, 0);
    assert_true(begun.size < first.size && memcmp(begun.text, first.text, begun.size) == 0);
    assert_true(generate(model, "", o, 0).size > 0);
    o.max_tokens = 0;
    assert_int_equal(generate(model, "Once", o, 0).size, 0);
    o.max_tokens = 100;
    collected cut = generate(model, "Once upon a", o, 3);
    assert_true(cut.size >= 3 && cut.size < 3 + 20);
    cab_model_free(model);
}

static void test_contexts_end(void **state)
{
    (void)state;
    cab_model *model = NULL;
    char prompt[256 * 4 + 1];
    assert_ok(cab_model_load_on(test_device(), runs_teacher, CAB_PRECISION_FP32, &model));
    for (int i = 0; i < 256; i++)
        memcpy(prompt + 4 * i, "Zzy ", 4);
    prompt[sizeof prompt - 1] = '\0';
    collected c = {.limit = 0};
    cab_generate_options o = cab_generate_defaults();
    assert_fails(cab_generate(model, prompt, &o, collect, &c), CAB_ESHAPE, "context of 256 tokens is full");
    o.max_tokens = 1000; /* fills the context and stops there */
    o.ignore_end = true;
    o.temperature = 0;
    assert_ok(cab_generate(model, "Once upon a time", &o, collect, &c));
    assert_true(c.size > 256);
    cab_model_free(model);
}

/* Any of the ids that generation_config.json lists ends a text, and an empty prompt begins with what it says. */
static void test_ends_of_a_list(void **state)
{
    static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
    char path[CAB_PATH_MAX];
    cab_model *model = NULL;
    cab_tokenizer *tokenizer = NULL;
    int32_t stop = -1, first = -1;
    for (int i = 0; i < 3; i++) {
        assert_ok(cab_path_join(path, runs_teacher, files[i]));
        assert_ok(cab_file_copy(path, temp_path(state, files[i])));
    }
    assert_ok(cab_tokenizer_load(temp_path(state, "tokenizer.json"), &tokenizer));
    assert_true(cab_tokenizer_find(tokenizer, ".", &stop) && cab_tokenizer_find(tokenizer, "Once", &first));
    assert_ok(cab_model_load_on(test_device(), *state, CAB_PRECISION_FP32, &model));
    cab_generate_options o = cab_generate_defaults();
    o.max_tokens = 60;
    o.temperature = 0;
    const collected whole = generate(model, "Once", o, 0), after = generate(model, "Once", o, 0);
    const char *at = strchr(whole.text, '.');
    assert_non_null(at);
    snprintf(path, sizeof path, "{\"bos_token_id\": %d, \"eos_token_id\": [1, %d]}", first, stop);
    assert_ok(cab_file_write(temp_path(state, "generation_config.json"), path, strlen(path)));
    const collected cut = generate(model, "Once", o, 0), empty = generate(model, "", o, 0);
    assert_int_equal(cut.size, at - whole.text);
    assert_memory_equal(cut.text, whole.text, cut.size);
    assert_memory_equal(empty.text, after.text, empty.size);
    assert_int_equal(empty.size, cut.size);
    o.ignore_end = true;
    assert_string_equal(generate(model, "Once", o, 0).text, whole.text);
    cab_tokenizer_free(tokenizer);
    cab_model_free(model);
}

static bool append(void *user, size_t index, const char *text, size_t size)
{
    return collect((collected *)user + index, text, size);
}

/* A text ends before a stop text, and nothing of one is handed over, also where it comes in pieces. */
static void test_stop_texts(void **state)
{
    (void)state;
    static const char *const ball[] = {"zebra", "red ball"}, *const either[] = {"a big", "One day"},
                             *const empty[] = {""};
    static const char *const prompt = "Once";
    cab_model *model = NULL;
    cab_generation account;
    cab_generate_options o = cab_generate_defaults();
    assert_ok(cab_model_load_on(test_device(), runs_teacher, CAB_PRECISION_FP32, &model));
    o.max_tokens = 40;
    o.temperature = 0;
    const collected whole = generate(model, prompt, o, 0);
    const char *at = strstr(whole.text, "red ball");
    assert_non_null(at);
    o.stop = ball;
    o.stop_count = 2;
    collected c[1] = {{.limit = 0}};
    assert_ok(cab_generate_texts(model, 1, &prompt, 1, &o, append, c, &account));
    assert_int_equal(c->size, at - whole.text);
    assert_memory_equal(c->text, whole.text, c->size);
    assert_string_equal(cab_stop_word(account.stop), "stop");
    assert_int_equal(account.prompt_tokens, 1);
    assert_in_range(account.tokens, 2, 39);
    o.stop = either; /* the first in the text, not in the list */
    const collected first = generate(model, prompt, o, 0);
    assert_int_equal(first.size, strstr(whole.text, "One day") - whole.text);
    o.stop_count = 1; /* what may begin a stop text is handed over in the end */
    o.stop = (const char *const[]){"Lily's mom said something else"};
    assert_string_equal(generate(model, prompt, o, 0).text, whole.text);
    o.stop = empty;
    assert_fails(cab_generate(model, "Once", &o, collect, c), CAB_EARG, "a stop text is empty");
    cab_model_free(model);
}

/* What the least probability and the penalty do to a text; 0 and 1 do nothing. */
static void test_filters(void **state)
{
    (void)state;
    cab_model *model = NULL;
    cab_generate_options o = cab_generate_defaults();
    assert_ok(cab_model_load_on(test_device(), runs_teacher, CAB_PRECISION_FP32, &model));
    o.max_tokens = 30;
    const collected plain = generate(model, "Once", o, 0);
    o.repeat_penalty = 1;
    assert_string_equal(generate(model, "Once", o, 0).text, plain.text);
    o.temperature = 0;
    const collected likeliest = generate(model, "Once", o, 0);
    o.temperature = 1.5f;
    o.min_p = 1;
    assert_string_equal(generate(model, "Once", o, 0).text, likeliest.text);
    o.min_p = 0;
    o.temperature = 0;
    o.repeat_penalty = 100; /* no word twice */
    const collected once = generate(model, "tom tom", o, 0);
    assert_null(strstr(once.text, "tom"));
    const char *the = strstr(once.text, " the ");
    assert_true(the == NULL || strstr(the + 1, " the ") == NULL);
    cab_model_free(model);
}

/* A text in turns is the text that one would get from all that was said before; the context of a teacher fills up. */
static void test_turns(void **state)
{
    (void)state;
    static const char *const words[] = {"Once upon a time", "\nThen Tom", "\nBut Lily"};
    cab_model *model = NULL;
    cab_dialogue *dialogue = NULL;
    cab_generation g = {0};
    cab_generate_options o = cab_generate_defaults();
    char whole[4096] = "";
    assert_ok(cab_model_load_on(test_device(), runs_teacher, CAB_PRECISION_FP32, &model));
    o.max_tokens = 9;
    o.temperature = 0;
    assert_ok(cab_dialogue_new(model, &o, &dialogue));
    for (int turn = 0; turn < 3; turn++) {
        collected c = {.limit = 0};
        strcat(whole, words[turn]);
        assert_ok(cab_dialogue_turn(dialogue, words[turn], collect, &c, &g));
        assert_string_equal(c.text, generate(model, whole, o, 0).text);
        assert_int_equal(g.tokens, 9);
        strcat(whole, c.text);
    }
    collected rest = {.limit = 0};
    cab_status status = CAB_OK;
    for (int turn = 0; turn < 30 && status == CAB_OK; turn++)
        status = cab_dialogue_turn(dialogue, " and and and and and", collect, &rest, &g);
    assert_int_equal(status, CAB_ESHAPE);
    assert_non_null(strstr(cab_error_text(), "context of 256 tokens is full"));
    cab_dialogue_free(dialogue);
    cab_model_free(model);
}

/* A student's steps give the logits that the whole text gives. */
static void test_student_decodes(void **state)
{
    cab_recipe *recipe = runs_recipe(state, "soft", "run", NULL);
    cab_model *model = NULL;
    cab_decode *decode = NULL;
    assert_ok(cab_distill(recipe, &model, NULL));
    cab_recipe_free(recipe);
    assert_string_equal(cab_model_architecture(model), "phi-mamba");
    cab_graph *g = NULL;
    enum { LENGTH = 40 };
    int32_t ids[LENGTH];
    const size_t words = (size_t)model->config.vocab_size;
    for (int i = 0; i < LENGTH; i++)
        ids[i] = (i * 53 + 7) % (int32_t)words;
    assert_ok(cab_graph_new(model->backend, &g));
    cab_tensor *input = cab_graph_input(g, "ids", CAB_I32, 2, (int64_t[]){1, LENGTH});
    cab_tensor *logits = cab_model_record_logits(g, model, cab_model_record(g, model, input, false, NULL));
    cab_graph_keep(g, logits);
    assert_ok(cab_tensor_write(g, input, ids));
    assert_ok(cab_graph_run(g));
    float *whole = calloc(LENGTH * words, sizeof *whole);
    assert_non_null(whole);
    assert_ok(cab_tensor_read(g, logits, whole));
    float *row = calloc(words, sizeof *row);
    assert_non_null(row);
    const cab_decode_row prompt = {ids, LENGTH, 0};
    assert_ok(cab_decode_new(model, &prompt, 1, &(cab_sampling){0}, &decode));
    double difference = 0, norm = 0;
    for (int i = 0; i < LENGTH; i++) { /* beyond the 16 tokens it was trained on */
        assert_ok(cab_decode_step(decode));
        assert_ok(cab_decode_logits(decode, row));
        for (size_t v = 0; v < words; v++) {
            difference += pow((double)row[v] - (double)whole[(size_t)i * words + v], 2);
            norm += pow((double)row[v], 2);
        }
    }
    assert_true(sqrt(difference / norm) < 1e-5);
    free(row);
    cab_decode_free(decode);
    cab_graph_free(g);
    free(whole);
    assert_true(generate(model, "Once", cab_generate_defaults(), 0).size > 0);
    cab_model_free(model);
}

static void test_models_without_a_tokenizer(void **state)
{
    (void)state;
    cab_model *model = NULL;
    collected c = {.limit = 0};
    const cab_generate_options o = cab_generate_defaults();
    assert_ok(cab_model_load_on(test_device(), runs_teacher, CAB_PRECISION_BF16, &model));
    char *directory = model->directory;
    model->directory = NULL;
    assert_fails(cab_generate(model, "Once", &o, collect, &c), CAB_EARG, "has no directory");
    model->directory = directory;
    assert_fails(cab_generate(model, "\xff\xfe", &o, collect, &c), CAB_EFORMAT, "");
    cab_model_free(model);
}

/* The bundled teacher in a directory with a template: ChatML, whose answers are trimmed or not. */
static cab_model *open_chat_model(void **state, bool trims)
{
    static const char *const files[] = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"};
    char directory[CAB_PATH_MAX], from[CAB_PATH_MAX], to[CAB_PATH_MAX], template[512];
    cab_model *model = NULL;
    snprintf(directory, sizeof directory, "%s", temp_path(state, trims ? "trims" : "plain"));
    assert_ok(cab_directory_make(directory));
    for (int i = 0; i < 4; i++) {
        assert_ok(cab_path_join(from, runs_teacher, files[i]));
        assert_ok(cab_path_join(to, directory, files[i]));
        assert_ok(cab_file_copy(from, to));
    }
    snprintf(
        template, sizeof template,
        "{%% for message in messages %%}{{'<|im_start|>' + message['role'] + '\n' + message['content']%s + "
        "'<|im_end|>' + '\n'}}{%% endfor %%}{%% if add_generation_prompt %%}{{ '<|im_start|>assistant\n' }}{%% endif "
        "%%}",
        trims ? " | trim" : "");
    assert_ok(cab_path_join(to, directory, "chat_template.jinja"));
    assert_ok(cab_file_write(to, template, strlen(template)));
    assert_ok(cab_model_load_on(test_device(), directory, CAB_PRECISION_FP32, &model));
    return model;
}

/* Puts more behind a text of at most 4096 bytes. */
static void add(char whole[4096], const char *format, const char *words)
{
    const size_t used = strlen(whole);
    assert_true(used + strlen(format) + strlen(words) < 4096);
    sprintf(whole + used, format, words);
}

/* Every answer is the one that the whole conversation, rendered anew, would get. The model reads what is new alone; all of it, where the
 * template has taken away the blanks that an answer began with. */
static void test_conversation(void **state)
{
    static const char *const says[] = {"Once upon a time there was a cat.", "Tom ran to the park.", "Why?"};
    for (int trims = 0; trims < 2; trims++) {
        cab_model *model = open_chat_model(state, trims);
        cab_dialogue *dialogue = NULL;
        cab_generation g = {0};
        cab_generate_options o = cab_generate_defaults(), plain;
        char whole[4096] = "";
        size_t last = 0;
        o.max_tokens = 9;
        o.temperature = 0;
        plain = o;
        o.chat = true;
        assert_ok(cab_dialogue_new(model, &o, &dialogue));
        for (int turn = 0; turn < 3; turn++) {
            collected c = {.limit = 0};
            add(whole, "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n", says[turn]);
            assert_ok(cab_dialogue_turn(dialogue, says[turn], collect, &c, &g));
            assert_string_equal(c.text, generate(model, whole, plain, 0).text);
            assert_true(c.text[0] == '\n'); /* a blank: what trims is seen */
            assert_true(turn == 0 || (trims ? g.prompt_tokens > last + 9 : g.prompt_tokens < last + 9));
            last = trims || turn == 0 ? g.prompt_tokens : last;
            add(whole, "%s<|im_end|>\n", c.text + (trims ? strspn(c.text, " \n") : 0));
        }
        cab_dialogue_free(dialogue);
        cab_model_free(model);
    }
}

/* Words whose logits differ by less than bf16 tells apart are told apart: logits of a step are fp32. */
static void test_logits_are_not_rounded(void **state)
{
    (void)state;
    const int32_t prompt[3] = {5, 17, 300};
    cab_model *model = NULL;
    cab_decode *decode = NULL;
    float logits[1024];
    int rounded = 0;
    assert_ok(cab_model_load_on(test_device(), runs_teacher, CAB_PRECISION_BF16, &model));
    assert_ok(cab_decode_new(model, &(cab_decode_row){prompt, 3, 0}, 1, &(cab_sampling){.top_p = 1}, &decode));
    for (int i = 0; i < 3; i++)
        assert_ok(cab_decode_step(decode));
    assert_ok(cab_decode_logits(decode, logits));
    for (int i = 0; i < 1024; i++)
        rounded += cab_bf16_to_f32(cab_bf16_from_f32(logits[i])) == logits[i];
    assert_true(rounded < 64);
    cab_decode_free(decode);
    cab_model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_teacher_continues_its_prompt),
        cmocka_unit_test(test_contexts_end),
        TEMP_TEST(test_ends_of_a_list),
        cmocka_unit_test(test_stop_texts),
        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_turns),
        TEMP_TEST(test_conversation),
        cmocka_unit_test(test_logits_are_not_rounded),
        TEMP_TEST(test_student_decodes),
        cmocka_unit_test(test_models_without_a_tokenizer),
    };
    cab_thread_limit(1);
    cab_log_quiet(true);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
