/* corpus.c - finding where the file ends, then batch after batch: texts, or questions and their answers. */
#include "train/corpus.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/progress.h"
#include "data/buffer.h"
#include "data/chat.h"
#include "train/generate.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Texts of one batch. */
typedef struct written {
    cab_bytes *texts;
    cab_generation *accounts;
    size_t n;
    cab_status status;
} written;

typedef struct author {
    cab_model *model;
    const cab_corpus_options *options;
    const char *path;
    int file;
    cab_tokenizer *tokenizer;
    cab_chat *chat;
    char *header, *closing; /* turns: what stands before a question, and behind it */
    cab_corpus_result *result;
} author;

/* ---- the file ------------------------------------------------------------------------------------------------------------- */

/* The last line must be number count - 1 of a file with this seed. */
static cab_status check_last(const author *a, const char *line, size_t size, uint64_t count)
{
    cab_json json = {0};
    int64_t sample = -1, seed = -1;
    cab_status status;
    CAB_GOTO(cab_json_parse(line, size, a->path, &json));
    CAB_GOTO(cab_json_int(&json, NULL, "sample", 0, INT64_MAX, &sample));
    CAB_GOTO(cab_json_int(&json, NULL, "seed", 0, INT64_MAX, &seed));
    if ((uint64_t)sample + 1 != count || (uint64_t)seed != a->options->sampling.seed)
        status =
            cab_fail(CAB_EFORMAT,
                     "%s: line %" PRIu64 " is sample %" PRId64 " of seed %" PRId64 ", expected %" PRIu64 " of %" PRIu64,
                     a->path, count, sample, seed, count - 1, a->options->sampling.seed);
done:
    cab_json_close(&json);
    return status;
}

/* Counts the whole lines; what a kill has left of another one is cut off. */
static cab_status find_end(author *a)
{
    cab_map map = {0};
    uint64_t lines = 0;
    size_t end = 0, last = 0;
    CAB_TRY(cab_map_open(a->path, &map));
    for (size_t at = 0; at < map.size; at++)
        if (map.data[at] == '\n') {
            lines++;
            last = end;
            end = at + 1;
        }
    cab_status status = lines > 0 ? check_last(a, (const char *)map.data + last, end - last - 1, lines) : CAB_OK;
    const bool torn = end < map.size;
    if (status == CAB_OK && torn && lines == 0 && map.data[0] != '{')
        status =
            cab_fail(CAB_EFORMAT, "%s: found no JSON lines, expected a corpus that is to be gone on with", a->path);
    cab_map_close(&map);
    CAB_TRY(status);
    if (torn && ftruncate(a->file, (off_t)end) != 0)
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot cut off half a line", a->path);
    a->result->found = lines;
    return CAB_OK;
}

static cab_status open_file(author *a)
{
    struct stat info;
    a->file = open(a->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0666);
    if (a->file < 0)
        return cab_fail_errno(CAB_EIO, errno, "%s: cannot be written", a->path);
    if (fstat(a->file, &info) != 0 || !S_ISREG(info.st_mode))
        return cab_fail(CAB_EIO, "%s: is no regular file", a->path);
    if (flock(a->file, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return cab_fail(CAB_EARG, "%s: another process is writing it", a->path);
    return find_end(a);
}

static cab_status append(const author *a, const cab_bytes *lines)
{
    for (size_t done = 0; done < lines->count;) {
        const ssize_t n = write(a->file, lines->data + done, lines->count - done);
        if (n < 0 && errno != EINTR)
            return cab_fail_errno(CAB_EIO, errno, "%s: cannot be written", a->path);
        done += n > 0 ? (size_t)n : 0;
    }
    return fdatasync(a->file) == 0 ? CAB_OK : cab_fail_errno(CAB_EIO, errno, "%s: cannot be written", a->path);
}

/* ---- texts ---------------------------------------------------------------------------------------------------------------- */

static void written_free(written *w)
{
    for (size_t i = 0; w->texts != NULL && i < w->n; i++)
        cab_bytes_free(&w->texts[i]);
    cab_free(w->texts);
    cab_free(w->accounts);
}

static bool take(void *user, size_t index, const char *text, size_t size)
{
    written *w = user;
    if (w->status == CAB_OK)
        w->status = cab_bytes_append(&w->texts[index], text, size);
    return w->status == CAB_OK;
}

/* Continuations of n prompts, each its sample number `sample`; or of one prompt n samples from there on. Texts end with a zero. */
static cab_status write_texts(author *a, const char *const *prompts, size_t n, bool one, uint64_t sample,
                              const cab_generate_options *given, written *w)
{
    *w = (written){.n = n};
    CAB_TRY(CAB_NEW(&w->texts, n, "texts"));
    CAB_TRY(CAB_NEW(&w->accounts, n, "texts"));
    CAB_TRY(cab_generate_samples(a->model, one ? 1 : n, prompts, (uint32_t)sample, one ? (uint32_t)n : 1, given, take,
                                 w, w->accounts));
    CAB_TRY(w->status);
    for (size_t i = 0; i < n; i++) {
        a->result->tokens += w->accounts[i].tokens;
        CAB_TRY(cab_bytes_append(&w->texts[i], "", 1));
    }
    return CAB_OK;
}

/* ---- turns ---------------------------------------------------------------------------------------------------------------- */

/* What the template puts around what a user says. */
static cab_status open_turns(author *a)
{
    static const char mark[] = "QUESTION";
    const cab_message said = {CAB_CHAT_USER, mark, sizeof mark - 1};
    cab_conversation text = {0};
    cab_status status;
    CAB_GOTO(cab_tokenizer_open(a->model->directory, &a->tokenizer));
    CAB_GOTO(cab_chat_open(a->model->directory, a->tokenizer, a->model->config.vocab_size, &a->chat));
    CAB_GOTO(cab_chat_render(a->chat, &said, 1, false, &text));
    CAB_GOTO(cab_bytes_append(&text.text, "", 1));
    char *found = strstr(text.text.data, mark);
    if (found == NULL) {
        status = cab_fail(CAB_EUNSUPPORTED, "%s: its chat template leaves out what a user says", a->model->directory);
        goto done;
    }
    *found = '\0';
    char *closing = found + sizeof mark - 1;
    closing += strspn(closing, " \n");
    closing[strcspn(closing, "\n")] = '\0';
    CAB_GOTO(cab_strdup(&a->header, text.text.data));
    status = cab_strdup(&a->closing, closing[0] != '\0' ? closing : cab_chat_end(a->chat));
done:
    cab_conversation_free(&text);
    return status;
}

/* Without space at either end, in place. */
static char *trim(char *text)
{
    static const char space[] = " \t\r\n";
    text += strspn(text, space);
    size_t end = strlen(text);
    while (end > 0 && strchr(space, text[end - 1]) != NULL)
        text[--end] = '\0';
    return text;
}

/* ---- lines ---------------------------------------------------------------------------------------------------------------- */

static json_object *message(const char *role, const char *content)
{
    json_object *object = json_object_new_object();
    json_object_object_add(object, "role", json_object_new_string(role));
    json_object_object_add(object, "content", cab_json_text(content));
    return object;
}

/* question NULL: plain. A conversation that lacks one side is an empty text, which readers pass over. */
static cab_status add_line(const author *a, uint64_t index, const char *question, const char *text,
                           cab_stop_reason stop, cab_bytes *out)
{
    json_object *line = json_object_new_object();
    if (question == NULL || question[0] == '\0' || text[0] == '\0') {
        json_object_object_add(line, "text", cab_json_text(question == NULL ? text : ""));
    } else {
        json_object *messages = json_object_new_array();
        json_object_array_add(messages, message("user", question));
        json_object_array_add(messages, message("assistant", text));
        json_object_object_add(line, "messages", messages);
    }
    json_object_object_add(line, "sample", json_object_new_int64((int64_t)index));
    json_object_object_add(line, "seed", json_object_new_int64((int64_t)a->options->sampling.seed));
    json_object_object_add(line, "stop", json_object_new_string(cab_stop_word(stop)));
    const char *json = json_object_to_json_string_ext(line, JSON_C_TO_STRING_NOSLASHESCAPE);
    cab_status status = cab_bytes_append(out, json, strlen(json));
    if (status == CAB_OK)
        status = cab_bytes_append(out, "\n", 1);
    json_object_put(line);
    return status;
}

/* Texts first .. first + n of prompts, or of none. */
static cab_status write_plain(author *a, uint64_t first, size_t n, const char *const *prompts, cab_bytes *lines)
{
    static const char *const nothing = "";
    const cab_list *given = a->options->prompts;
    cab_bytes whole = {0};
    written w;
    cab_status status;
    CAB_GOTO(write_texts(a, prompts != NULL ? prompts : &nothing, n, prompts == NULL,
                         given->count > 0 ? first / given->count : first, &a->options->sampling, &w));
    for (size_t i = 0; i < n; i++) {
        const char *prompt = prompts != NULL ? prompts[i] : "";
        const bool answer = a->options->kind == CAB_CORPUS_ANSWERS;
        whole.count = 0;
        if (!answer)
            CAB_GOTO(cab_bytes_append(&whole, prompt, strlen(prompt)));
        CAB_GOTO(cab_bytes_append(&whole, w.texts[i].data, w.texts[i].count));
        CAB_GOTO(add_line(a, first + i, answer ? prompt : NULL, answer ? trim(whole.data) : whole.data,
                          w.accounts[i].stop, lines));
    }
done:
    cab_bytes_free(&whole);
    written_free(&w);
    return status;
}

/* Questions behind the user's header, then the answers to them. */
static cab_status write_turns(author *a, uint64_t first, size_t n, cab_bytes *lines)
{
    const char *const stops[] = {a->closing}, *const header = a->header;
    cab_generate_options ask = a->options->sampling, answer = a->options->sampling;
    written questions = {0}, answers = {0};
    const char **said = NULL;
    cab_status status;
    ask.chat = false;
    ask.stop = stops;
    ask.stop_count = 1;
    answer.chat = true;
    CAB_GOTO(CAB_NEW(&said, n, "questions"));
    CAB_GOTO(write_texts(a, &header, n, true, first, &ask, &questions));
    for (size_t i = 0; i < n; i++)
        said[i] = trim(questions.texts[i].data);
    CAB_GOTO(write_texts(a, said, n, false, first, &answer, &answers));
    for (size_t i = 0; i < n; i++)
        CAB_GOTO(add_line(a, first + i, said[i], trim(answers.texts[i].data), answers.accounts[i].stop, lines));
done:
    cab_free(said);
    written_free(&questions);
    written_free(&answers);
    return status;
}

static cab_status write_batch(author *a, uint64_t first, size_t n)
{
    const cab_list *given = a->options->prompts;
    cab_bytes lines = {0};
    const char **prompts = NULL;
    cab_status status;
    if (a->options->kind == CAB_CORPUS_TURNS) {
        CAB_GOTO(write_turns(a, first, n, &lines));
    } else {
        if (given->count > 0)
            CAB_GOTO(CAB_NEW(&prompts, n, "prompts"));
        for (size_t i = 0; prompts != NULL && i < n; i++)
            prompts[i] = given->items[(first + i) % given->count];
        CAB_GOTO(write_plain(a, first, n, prompts, &lines));
    }
    status = append(a, &lines);
    a->result->written += n;
done:
    cab_bytes_free(&lines);
    cab_free(prompts);
    return status;
}

/* Texts in the next batch: of prompts none beyond the round, since all of a batch have one sample number. */
static size_t next_batch(const cab_corpus_options *o, uint64_t done)
{
    uint64_t n = o->batch < o->count - done ? o->batch : o->count - done;
    if (o->prompts->count > 0 && n > o->prompts->count - done % o->prompts->count)
        n = o->prompts->count - done % o->prompts->count;
    return (size_t)n;
}

cab_status cab_corpus_write(cab_model *model, const cab_corpus_options *options, const char *path,
                            cab_corpus_result *result)
{
    author a = {.model = model, .options = options, .path = path, .file = -1, .result = result};
    const double started = cab_seconds();
    cab_progress progress;
    cab_status status;
    *result = (cab_corpus_result){0};
    if (options->kind == CAB_CORPUS_ANSWERS && options->prompts->count == 0)
        return cab_fail(CAB_EARG, "answers need prompts (--prompts)");
    if (options->kind == CAB_CORPUS_TURNS && options->prompts->count > 0)
        return cab_fail(CAB_EARG, "prompts do not go with both turns: the model writes the questions");
    if (options->kind == CAB_CORPUS_TURNS)
        CAB_GOTO(open_turns(&a));
    CAB_GOTO(open_file(&a));
    cab_progress_begin(&progress, "sampling", "texts", result->found, options->count);
    for (uint64_t done = result->found; status == CAB_OK && done < options->count;
         done = result->found + result->written) {
        status = write_batch(&a, done, next_batch(options, done));
        cab_progress_update(&progress, result->found + result->written, "");
    }
    cab_progress_end(&progress);
    result->seconds = cab_seconds() - started;
done:
    if (a.file >= 0)
        close(a.file);
    cab_chat_free(a.chat);
    cab_tokenizer_free(a.tokenizer);
    cab_free(a.header);
    cab_free(a.closing);
    return status;
}
