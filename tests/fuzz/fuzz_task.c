/* fuzz_task.c - any bytes as a task's YAML, and behind a line "---" as its items: an answer with a sentence. */
#include "data/task.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cab_task *task = NULL;
    char *text = malloc(size + 1);
    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    char *lines = strstr(text, "\n---\n");
    const size_t length = lines != NULL ? (size_t)(lines + 1 - text) : size;
    if (cab_task_parse("t.yaml", text, length, &task) != CAB_OK) {
        if (task != NULL || cab_error_text()[0] == '\0')
            abort();
    } else if (lines != NULL && cab_task_read_lines(task, "t.jsonl", lines + 5, NULL, 0) != CAB_OK &&
               cab_error_text()[0] == '\0') {
        abort();
    }
    cab_task_free(task);
    free(text);
    return 0;
}
