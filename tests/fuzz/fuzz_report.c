/* fuzz_report.c - any bytes as what a run leaves: the table and the page are written, and no text of a file becomes a tag.
 *
 * The input is six texts, parted by the byte 0x1e: a name, log.jsonl, result.json, compare.json, predictions.json,
 * student/kept_attention.json; a text that is not
 * there is a file that is not there. */
#include "base/file.h"
#include "base/memory.h"
#include "report/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PARTS = 6, PART_END = 0x1e };
static const char *const files[PARTS] = {NULL,           "log.jsonl",        "result.json",
                                         "compare.json", "predictions.json", "student/kept_attention.json"};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds)
        abort();
}

/* One directory per process, in memory where there is such a place. */
static const char *directory(void)
{
    static char path[] = "/dev/shm/cab-fuzz-XXXXXX";
    static bool made;
    if (!made && access("/dev/shm", W_OK) != 0)
        memcpy(path, "/tmp/cab-fuzz-XXXXXX", sizeof "/tmp/cab-fuzz-XXXXXX");
    if (!made) {
        char student[sizeof path + sizeof "/student"];
        require(mkdtemp(path) != NULL);
        snprintf(student, sizeof student, "%s/student", path);
        require(cab_directory_make(student) == CAB_OK);
    }
    made = true;
    return path;
}

static size_t count(const char *text, const char *word)
{
    size_t n = 0;
    for (; (text = strstr(text, word)); text += strlen(word))
        n++;
    return n;
}

/* Every '<' of the part that comes from files opens or closes a tag that the page is made of. */
static void check_tags(const char *page)
{
    static const char *const tags[] = {
        "!doctype", "html", "head", "meta",    "title",   "style", "body",   "main",      "h1",  "h2",
        "h3",       "p",    "div",  "span",    "table",   "thead", "tbody",  "tr",        "th",  "td",
        "svg",      "path", "text", "circle",  "rect",    "g",     "image",  "figure",    "img", "ol",
        "li",       "b",    "i",    "details", "summary", "pre",   "script", "figcaption"};
    for (const char *at = page; (at = strchr(at, '<')); at++) {
        const char *name = at[1] == '/' ? at + 2 : at + 1;
        const size_t length = strspn(name, "!abcdefghijklmnopqrstuvwxyz0123456789");
        bool known = false;
        for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
            known = known || (strlen(tags[i]) == length && memcmp(tags[i], name, length) == 0);
        require(known);
    }
    require(count(page, "<script") == count(page, "<script type=\"application/json\">{\"x\":"));
    require(count(page, "</script") == count(page, "<script"));
}

static void write_page(cab_report_runs *runs, const char *name)
{
    char path[CAB_PATH_MAX], *page;
    size_t size;
    if (runs->count && name[0]) {
        cab_free(runs->items[0].name);
        require(cab_strdup(&runs->items[0].name, name) == CAB_OK);
    }
    require(cab_path_join(path, directory(), "report.html") == CAB_OK);
    require(cab_report_html(runs, &(cab_report_page){.title = name}, path) == CAB_OK);
    require(cab_file_read(path, (size_t)1 << 28, &page, &size) == CAB_OK);
    char *foot = strstr(page, "<footer>");
    require(foot != NULL && strlen(page) == size);
    *foot = '\0';
    check_tags(page);
    cab_free(page);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char name[256] = "", path[CAB_PATH_MAX];
    cab_report_runs runs = {0};
    for (int part = 0; part < PARTS; part++) {
        const uint8_t *end = size ? memchr(data, PART_END, size) : NULL;
        const size_t length = end ? (size_t)(end - data) : size;
        if (part == 0) {
            snprintf(name, sizeof name, "%.*s", length < 255 ? (int)length : 255, length ? (const char *)data : "");
        } else {
            require(cab_path_join(path, directory(), files[part]) == CAB_OK);
            require(length || unlink(path) == 0 || !cab_path_exists(path));
            require(!length || cab_file_write(path, data, length) == CAB_OK);
        }
        data += end ? length + 1 : length;
        size -= end ? length + 1 : length;
    }
    if (cab_report_runs_read((const char *[]){directory()}, 1, &runs) == CAB_OK) {
        FILE *sink = fopen("/dev/null", "w");
        require(sink != NULL && cab_report_table(&runs, sink) == CAB_OK);
        fclose(sink);
        write_page(&runs, name);
    } else {
        require(cab_error_text()[0] != '\0');
    }
    cab_report_runs_free(&runs);
    return 0;
}
