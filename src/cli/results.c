/* results.c - results to standard output or into a file. */
#include "cli/results.h"

#include "cli/command.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

cab_status cli_results_open(cli_results *r, const char *out)
{
    *r = (cli_results){.stream = stdout, .to_file = out[0] != '\0'};
    r->terminal = !r->to_file && isatty(STDOUT_FILENO);
    if (!r->to_file)
        return CAB_OK;
    CAB_TRY(cab_writer_open(&r->writer, out));
    r->stream = r->writer.stream;
    return CAB_OK;
}

cab_status cli_results_close(cli_results *r, cab_status status)
{
    if (!r->to_file || r->stream == NULL)
        return status;
    r->stream = NULL;
    if (status == CAB_OK)
        return cab_writer_commit(&r->writer);
    cab_writer_abort(&r->writer);
    return status;
}

cab_status cli_results_flush(const cli_results *r)
{
    if (!r->to_file)
        return cli_flush_results();
    if (fflush(r->stream) != 0)
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot write", r->writer.path);
    return CAB_OK;
}

/* The bytes of the control character at text[0], 0 where there is none: C0 and DEL are one byte, C1 is two in UTF-8. */
static size_t control_bytes(const unsigned char *text, size_t size)
{
    if ((text[0] < 0x20 && text[0] != '\n' && text[0] != '\t') || text[0] == 0x7f)
        return 1;
    return size > 1 && text[0] == 0xc2 && text[1] >= 0x80 && text[1] < 0xa0 ? 2 : 0;
}

bool cli_results_put(const cli_results *r, const char *text, size_t size)
{
    size_t done = 0;
    for (size_t i = 0; r->terminal && i < size; i++) {
        const unsigned char *at = (const unsigned char *)text + i;
        const size_t bytes = control_bytes(at, size - i);
        if (bytes == 0)
            continue;
        if (fwrite(text + done, 1, i - done, r->stream) != i - done ||
            fprintf(r->stream, bytes == 1 ? "\\x%02x" : "\\u%04x", (unsigned)at[bytes - 1]) < 0)
            return false;
        done = i + bytes;
        i = done - 1;
    }
    return fwrite(text + done, 1, size - done, r->stream) == size - done && fflush(r->stream) == 0;
}

const char *cli_results_name(const cli_results *r, const char *name, char *out, size_t size)
{
    return r->terminal ? cab_printable(name, out, size) : name;
}
