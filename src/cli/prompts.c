/* prompts.c - prompts from flags, files and standard input. */
#include "cli/prompts.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/buffer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const size_t prompt_max = (size_t)64 << 20;
static const cab_option texts_option = {.kind = CAB_OPTION_LIST, .key = "prompt"};

void cli_prompts_free(cli_prompts *prompts)
{
    cab_option_empty(&texts_option, &prompts->texts);
}

static cab_status add(cli_prompts *prompts, const char *text)
{
    return cab_option_append(&texts_option, &prompts->texts, "--prompt", text);
}

/* The text of a file, without a byte order mark and without its last line end, which editors and echo put there. */
static cab_status add_contents(cli_prompts *prompts, const char *name, char *text, size_t size)
{
    const char *zero = memchr(text, '\0', size);
    if (zero != NULL)
        return cab_fail(CAB_EFORMAT, "%s: byte %zu is 0, expected text", name, (size_t)(zero - text));
    if (size > 0 && text[size - 1] == '\n')
        size--;
    if (size > 0 && text[size - 1] == '\r')
        size--;
    text[size] = '\0';
    return add(prompts, strncmp(text, "\xef\xbb\xbf", 3) == 0 ? text + 3 : text);
}

static cab_status read_stdin(cab_bytes *bytes)
{
    char piece[4096];
    size_t size;
    while ((size = fread(piece, 1, sizeof piece, stdin)) > 0) {
        if (bytes->count + size > prompt_max)
            return cab_fail(CAB_EFORMAT, "standard input: longer than %zu MiB, too long for a prompt",
                            prompt_max >> 20);
        CAB_TRY(cab_bytes_append(bytes, piece, size));
    }
    if (ferror(stdin))
        return cab_fail_errno(CAB_EIO, errno, "standard input: cannot be read");
    return cab_bytes_append(bytes, "", 1);
}

static cab_status add_stdin(cli_prompts *prompts)
{
    cab_bytes bytes = {0};
    cab_status status = read_stdin(&bytes);
    if (status == CAB_OK)
        status = add_contents(prompts, "standard input", bytes.data, bytes.count - 1);
    cab_bytes_free(&bytes);
    return status;
}

static cab_status add_file(cli_prompts *prompts, const char *path)
{
    char *text = NULL;
    size_t size = 0;
    if (strcmp(path, "-") == 0)
        return add_stdin(prompts);
    CAB_TRY(cab_file_read(path, prompt_max, &text, &size));
    cab_status status = add_contents(prompts, path, text, size);
    cab_free(text);
    return status;
}

/* Something was put there for this command: not a terminal, and not /dev/null. */
static bool stdin_holds_text(void)
{
    struct stat info;
    return fstat(STDIN_FILENO, &info) == 0 && (S_ISFIFO(info.st_mode) || S_ISREG(info.st_mode));
}

cab_status cli_prompts_gather(const cab_list *given, const cab_list *files, cli_prompts *prompts)
{
    for (unsigned i = 0; i < given->count; i++)
        CAB_TRY(add(prompts, given->items[i]));
    for (unsigned i = 0; i < files->count; i++)
        CAB_TRY(add_file(prompts, files->items[i]));
    if (prompts->texts.count > 0)
        return CAB_OK;
    return stdin_holds_text() ? add_stdin(prompts) : add(prompts, "");
}
