/* test_chat.c - conversations through chat templates: what is rendered, what is refused, which tokens are answers'. The expected texts are
 * those of Jinja on the same templates. */
#include "data/cache.h"
#include "data/chat.h"
#include "data/dataset.h"
#include "data/scratch.h"

#define S(text)                                                                                                        \
    {                                                                                                                  \
        CAB_CHAT_SYSTEM, text, sizeof(text) - 1                                                                        \
    }
#define U(text)                                                                                                        \
    {                                                                                                                  \
        CAB_CHAT_USER, text, sizeof(text) - 1                                                                          \
    }
#define A(text)                                                                                                        \
    {                                                                                                                  \
        CAB_CHAT_ASSISTANT, text, sizeof(text) - 1                                                                     \
    }

static const char chatml[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
    "'<|im_start|>system\\nYou are kind.<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + "
    "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\\n' }}{% endif %}";
static const char llama2[] =
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
    "messages[0]['content'] %}{% endif %}{% for message in loop_messages %}{% if loop.index0 == 0 %}{% set content = "
    "'<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% endif %}{% if message['role'] == "
    "'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' "
    "' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}";
static const char llama3[] =
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = "
    "bos_token + content %}{% endif %}{{ content }}{% endfor %}";
static const char gemma[] =
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif "
    "%}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}";
static const char phi3[] =
    "{% if message['role'] == 'system' %}{{'<|system|>\\n' + message['content'] + '<|end|>\\n'}}{% elif "
    "message['role'] == 'user' %}{{'<|user|>\\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\\n'}}{% "
    "endif %}{% else %}{{ eos_token }}{% endif %}";
static const char zephyr[] = "{{ '<|user|>\\n' + message['content'] + eos_token }}{{ '<|system|>\\n' }}{{ "
                             "'<|assistant|>\\n'  + message['content'] + eos_token }}";
static const char mistral[] =
    "{{ bos_token }}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif "
    "message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% endif %}";

static cab_chat *parse(const char *template)
{
    cab_chat *chat = NULL;
    assert_ok(cab_chat_parse(template, "model", "<s>", "</s>", &chat));
    return chat;
}

static void expect(const char *template, const cab_message *messages, size_t count, bool prompt, const char *text)
{
    cab_chat *chat = parse(template);
    cab_conversation c = {0};
    assert_ok(cab_chat_render(chat, messages, count, prompt, &c));
    assert_ok(cab_bytes_append(&c.text, "", 1));
    assert_string_equal(c.text.data, text);
    cab_conversation_free(&c);
    cab_chat_free(chat);
}

static void test_rendered(void **state)
{
    (void)state;
    const cab_message two[] = {U(" Hi "), A(" Yes.\n")}, three[] = {S("Be brief."), U("Hi"), A("Yes.")};
    expect(chatml, two, 2, false,
           "<|im_start|>system\nYou are kind.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n "
           "Yes.\n<|im_end|>\n");
    expect(chatml, three, 2, true,
           "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    expect(llama2, three, 3, false, "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Yes. </s>");
    expect(llama2, two, 2, false, "<s>[INST] Hi [/INST] Yes. </s>");
    expect(llama3, two, 2, true,
           "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>"
           "\n\nYes.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
    expect(gemma, two, 2, false, "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nYes.<end_of_turn>\n");
    expect(phi3, two, 2, false, "<|user|>\n Hi <|end|>\n<|assistant|>\n Yes.\n<|end|>\n</s>");
    expect(phi3, two, 1, true, "<|user|>\n Hi <|end|>\n<|assistant|>\n");
    expect(zephyr, two, 1, true, "<|user|>\n Hi </s>\n<|assistant|>\n");
    expect(mistral, two, 2, false, "<s>[INST]  Hi  [/INST] Yes.\n</s>");
}

static void test_refused(void **state)
{
    (void)state;
    const cab_message system[] = {S("Be brief."), U("Hi")}, twice[] = {U("Hi"), U("Hello?")};
    const struct {
        const char *template;
        const cab_message *messages;
        const char *text;
    } cases[] = {{gemma, system, "a message of the system, which the template (Gemma) does not take"},
                 {gemma, twice, "message 2 is the user's, expected the assistant's"},
                 {"{{ messages }}", twice, "model: its chat template is not known; known are those of ChatML, Llama-2"},
                 {"{{ '<|im_start|>' + '<think>' + '<|im_end|>' }}", twice, "model: its chat template is not known"},
                 {NULL, twice, "model: it has no chat template; known are"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cab_chat *chat = parse(cases[i].template);
        cab_conversation c = {0};
        assert_true(cab_chat_render(chat, cases[i].messages, 2, false, &c) != CAB_OK);
        if (strstr(cab_error_text(), cases[i].text) == NULL)
            fail_msg("\"%s\", expected \"%s\"", cab_error_text(), cases[i].text);
        cab_conversation_free(&c);
        cab_chat_free(chat);
    }
}

/* ---- as data -------------------------------------------------------------------------------------------------------- */

static const char lines[] =
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Who sat?\"}, {\"role\": \"assistant\", \"content\": "
    "\"The cat.\"}, {\"role\": \"user\", \"content\": \"Where?\"}, {\"role\": \"assistant\", \"content\": "
    "\"Here.\"}]}\n"
    "{\"conversations\": [{\"from\": \"human\", \"value\": \"Tom ran?\"}, {\"from\": \"gpt\", \"value\": \"Yes!\"}]}\n"
    "{\"text\": \"Plain words.\"}\n";

/* The tokens that are labels, as text; -1 as "_" once. */
static void read_labels(const cab_dataset *d, const cab_tokenizer *t, cab_bytes *out)
{
    enum { LENGTH = 16 };
    bool gap = false;
    for (uint64_t w = 0; w < cab_dataset_eval_windows(d, LENGTH); w++) {
        int32_t ids[LENGTH], labels[LENGTH];
        const uint64_t n = cab_dataset_eval_window(d, LENGTH, w, ids, labels);
        for (uint64_t i = 0; i < n; i++) {
            if (labels[i] < 0 && !gap)
                assert_ok(cab_bytes_append(out, "_", 1));
            gap = labels[i] < 0;
            if (!gap)
                assert_ok(cab_tokenizer_decode(t, &labels[i], 1, false, out));
        }
    }
    assert_ok(cab_bytes_append(out, "", 1));
}

static void test_answers_alone(void **state)
{
    static const char *const expected[] = {
        "_The cat.<|im_end|>_Here.<|im_end|>_Yes!<|im_end|>_Plain words.<|endoftext|>",
        "im_start|>system\nYou are kind.<|im_end|>\n<|im_start|>user\nWho sat?"};
    cab_tokenizer *t = NULL;
    cab_chat *chat = parse(chatml);
    const char *path = scratch_text(state, "chat.jsonl", lines);
    assert_ok(cab_tokenizer_load("examples/tales/teacher/tokenizer.json", &t));
    for (int all = 0; all < 2; all++) {
        cab_dataset *d = NULL;
        cab_bytes text = {0};
        const cab_dataset_options options = {.tokenizer = t,
                                             .chat = chat,
                                             .answers_only = !all,
                                             .cache = scratch_path(state, "cache"),
                                             .vocab_size = cab_tokenizer_vocab_size(t),
                                             .end_id = 0,
                                             .fraction = 1,
                                             .seed = 1};
        assert_ok(cab_dataset_open(&path, 1, &options, &d));
        assert_int_equal(cab_dataset_documents(d), 3);
        read_labels(d, t, &text);
        if (all == 0)
            assert_string_equal(text.data, expected[0]);
        else if (strstr(text.data, expected[1]) == NULL || strstr(text.data, "_The") != NULL)
            fail_msg("\"%s\" does not hold \"%s\"", text.data, expected[1]);
        cab_bytes_free(&text);
        cab_dataset_free(d);
    }
    cab_chat_free(chat);
    cab_tokenizer_free(t);
}

static void test_bad_conversations(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"messages\": []}", "chat.jsonl: line 1: the conversation is empty"},
        {"{\"messages\": [3]}", "line 1: message 1 of \"messages\": expected an object with strings \"role\" and"},
        {"{\"messages\": [{\"role\": \"tool\", \"content\": \"x\"}]}", "\"role\" is \"tool\"; supported are system"},
        {"{\"conversations\": [{\"from\": \"human\", \"value\": [1]}]}", "strings \"from\" and \"value\""},
        {"{\"messages\": 5}", "expected an object with a string field \"text\""}};
    cab_chat *chat = parse(chatml);
    const cab_text_options options = {.separator = "-", .field = "text", .chat = chat};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cab_text *text = NULL;
        const char *document;
        size_t size;
        assert_ok(cab_text_parse(cases[i][0], strlen(cases[i][0]), "chat.jsonl", &options, &text));
        assert_true(cab_text_next(text, &document, &size) != CAB_OK);
        if (strstr(cab_error_text(), cases[i][1]) == NULL)
            fail_msg("\"%s\", expected \"%s\"", cab_error_text(), cases[i][1]);
        cab_text_close(text);
    }
    cab_chat_free(chat);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rendered),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_bad_conversations),
        cmocka_unit_test_setup_teardown(test_answers_alone, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests_name("chat", tests, NULL, NULL);
}
