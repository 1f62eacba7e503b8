/* chat_templates.c - a row per template, the special before the general. A template that reasons, or takes more than text, is none of
 * them. */
#include "data/chat_templates.h"

#include <string.h>

#define L3(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define DATE "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"

static const cab_chat_template templates[] = {
    {.name = "ChatML",
     .needs = {"<|im_start|>", "<|im_end|>"},
     .begin = {"<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n"},
     .end = {"<|im_end|>\n", "<|im_end|>\n", "<|im_end|>"},
     .after = "\n",
     .prompt = "<|im_start|>assistant\n",
     .stop = "<|im_end|>"},
    /* 3.1 and 3.2 tell the date; that of the template's text, not today's. */
    {.name = "Llama-3.1",
     .needs = {"<|start_header_id|>", "<|eot_id|>", "Cutting Knowledge Date: December 2023", "26 Jul 2024"},
     .first = "\1",
     .begin = {L3("system") DATE, L3("user"), L3("assistant")},
     .end = {"<|eot_id|>", "<|eot_id|>", "<|eot_id|>"},
     .prompt = L3("assistant"),
     .stop = "<|eot_id|>",
     .trim = {true, true, true},
     .no_system = L3("system") DATE "<|eot_id|>"},
    {.name = "Llama-3",
     .needs = {"<|start_header_id|>", "<|eot_id|>"},
     .forbids = {"Knowledge Date", "<|image|>"},
     .first = "\1",
     .begin = {L3("system"), L3("user"), L3("assistant")},
     .end = {"<|eot_id|>", "<|eot_id|>", "<|eot_id|>"},
     .prompt = L3("assistant"),
     .stop = "<|eot_id|>",
     .trim = {true, true, true}},
    {.name = "Gemma 3",
     .needs = {"<start_of_turn>", "<end_of_turn>", "first_user_prefix"},
     .first = "\1",
     .begin = {"", "<start_of_turn>user\n", "<start_of_turn>model\n"},
     .end = {"", "<end_of_turn>\n", "<end_of_turn>"},
     .after = "\n",
     .prompt = "<start_of_turn>model\n",
     .stop = "<end_of_turn>",
     .trim = {false, true, true},
     .alternate = true,
     .system = CAB_CHAT_SYSTEM_FIRST,
     .system_begin = "",
     .system_end = "\n\n"},
    {.name = "Gemma",
     .needs = {"<start_of_turn>", "<end_of_turn>", "System role not supported"},
     .first = "\1",
     .begin = {"", "<start_of_turn>user\n", "<start_of_turn>model\n"},
     .end = {"", "<end_of_turn>\n", "<end_of_turn>"},
     .after = "\n",
     .prompt = "<start_of_turn>model\n",
     .stop = "<end_of_turn>",
     .trim = {false, true, true},
     .alternate = true,
     .system = CAB_CHAT_SYSTEM_REFUSED},
    {.name = "Llama-2",
     .needs = {"<<SYS>>", "[INST] ", "content.strip()", "eos_token"},
     .begin = {"", "\1[INST] ", " "},
     .end = {"", " [/INST]", " \2"},
     .prompt = "",
     .stop = "\2",
     .trim = {false, true, true},
     .alternate = true,
     .system = CAB_CHAT_SYSTEM_FIRST,
     .system_begin = "<<SYS>>\n",
     .system_end = "\n<</SYS>>\n\n"},
    {.name = "Mistral v3",
     .needs = {"[AVAILABLE_TOOLS]", "\"[INST] \" + ", "\"[/INST]\"", "\" \" + message[\"content\"]|trim + eos_token"},
     .first = "\1",
     .begin = {"", "[INST] ", " "},
     .end = {"", "[/INST]", "\2"},
     .prompt = "",
     .stop = "\2",
     .trim = {false, false, true},
     .alternate = true,
     .system = CAB_CHAT_SYSTEM_LAST,
     .system_begin = "",
     .system_end = "\n\n"},
    {.name = "Mistral v2",
     .needs = {"loop.first and system_message", "' [INST] ' + ", "' [/INST]'", "' ' + message['content'] + eos_token"},
     .first = "\1",
     .begin = {"", " [INST] ", " "},
     .end = {"", " [/INST]", "\2"},
     .prompt = "",
     .stop = "\2",
     .alternate = true,
     .system = CAB_CHAT_SYSTEM_FIRST,
     .system_begin = "",
     .system_end = "\n\n"},
    {.name = "Mistral v0.1",
     .needs = {"'[INST] ' + message['content'] + ' [/INST]'", "{{ message['content'] + eos_token + ' ' }}"},
     .first = "\1",
     .begin = {"", "[INST] ", ""},
     .end = {"", " [/INST]", "\2"},
     .after = " ",
     .prompt = "",
     .stop = "\2",
     .alternate = true,
     .system = CAB_CHAT_SYSTEM_REFUSED},
    {.name = "Mistral",
     .needs = {"'[INST] ' + message['content'] + ' [/INST]'", "{{ message['content'] + eos_token"},
     .forbids = {"+ eos_token +"},
     .first = "\1",
     .begin = {"", "[INST] ", ""},
     .end = {"", " [/INST]", "\2"},
     .prompt = "",
     .stop = "\2",
     .alternate = true,
     .system = CAB_CHAT_SYSTEM_REFUSED},
    {.name = "Phi-4-mini",
     .needs = {"'<|' + message['role'] + '|>' + message['content'] + '<|end|>'", "<|assistant|>"},
     .begin = {"<|system|>", "<|user|>", "<|assistant|>"},
     .end = {"<|end|>", "<|end|>", "<|end|>"},
     .last = "\2",
     .prompt = "<|assistant|>",
     .stop = "<|end|>"},
    {.name = "Phi-3",
     .needs = {"<|user|>", "<|assistant|>", "<|end|>", "<|system|>"},
     .begin = {"<|system|>\n", "<|user|>\n", "<|assistant|>\n"},
     .end = {"<|end|>\n", "<|end|>\n", "<|end|>"},
     .after = "\n",
     .last = "\2",
     .prompt = "<|assistant|>\n",
     .stop = "<|end|>"},
    {.name = "Zephyr",
     .needs = {"<|user|>", "<|system|>", "<|assistant|>", "message['content'] + eos_token"},
     .forbids = {"<|end|>"},
     .begin = {"<|system|>\n", "<|user|>\n", "<|assistant|>\n"},
     .end = {"\2\n", "\2\n", "\2"},
     .after = "\n",
     .prompt = "<|assistant|>\n",
     .stop = "\2"},
};

/* What no row knows to do: reasoning is taken out of old answers, or put into new ones. */
static const char *const beyond[] = {"<think", "reasoning", "thinking", "<|channel", NULL};

static bool holds_all(const char *text, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n && words[i] != NULL; i++)
        if (strstr(text, words[i]) == NULL)
            return false;
    return true;
}

static bool holds_any(const char *text, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n && words[i] != NULL; i++)
        if (strstr(text, words[i]) != NULL)
            return true;
    return false;
}

const cab_chat_template *cab_chat_template_find(const char *text)
{
    if (holds_any(text, beyond, sizeof beyond / sizeof *beyond))
        return NULL;
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        const cab_chat_template *t = &templates[i];
        if (holds_all(text, t->needs, 4) && !holds_any(text, t->forbids, 3))
            return t;
    }
    return NULL;
}
