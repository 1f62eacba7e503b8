/* export.c - the tensors of a GGUF file, each made of a part of a checkpoint's while it is written. */
#include "models/export.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "data/tokenizer.h"
#include "data/tokenizer_gguf.h"
#include "models/export_internal.h"
#include "tensor/blocks.h"

#include <ctype.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* A tensor of the file. */
typedef struct plan {
    const cab_exporter *exporter;
    const cab_safetensors_entry *entry; /* NULL: `values`, or zeros */
    const float *values;
    int64_t begin; /* the element of the entry that is its first */
    cab_gguf_change change;
    bool decay; /* A of A_log */
    bool again; /* another entry's values once more: a tied embedding as the head */
    cab_export_factors factors;
} plan;

/* ---- values --------------------------------------------------------------------------------------------------------- */

static cab_status read_rows(const plan *p, int64_t first, int64_t count, float *out)
{
    const cab_checkpoint *source = p->exporter->source;
    if (p->change.heads == 0)
        return cab_checkpoint_read_part(source, p->entry, p->begin + first, count, out);
    const int64_t rows = p->entry->shape[0], columns = p->entry->n_dim == 1 ? 1 : p->entry->shape[1];
    for (int64_t done = 0; done < count; done += columns) {
        const int64_t row = cab_gguf_row_back(&p->change, rows, (first + done) / columns);
        CAB_TRY(cab_checkpoint_read_part(source, p->entry, row * columns, columns, out + done));
    }
    return CAB_OK;
}

static cab_status read_values(void *user, const void *source, int64_t first, int64_t count, float *out)
{
    const plan *p = source;
    (void)user;
    if (p->entry == NULL) {
        for (int64_t i = 0; i < count; i++)
            out[i] = p->values != NULL ? p->values[first + i] : 0;
        return CAB_OK;
    }
    CAB_TRY(read_rows(p, first, count, out));
    for (int64_t i = 0; i < count; i++)
        out[i] = p->decay ? -expf(out[i]) : out[i] - p->change.added;
    const int64_t columns = p->entry->n_dim == 1 ? 1 : p->entry->shape[1];
    for (int64_t i = 0; p->factors.n > 0 && i < count; i++)
        out[i] *= cab_export_factor(&p->factors, (first + i) / columns);
    return CAB_OK;
}

/* ---- shapes and types ----------------------------------------------------------------------------------------------- */

static int64_t elements_of(const cab_safetensors_entry *e)
{
    int64_t n = 1;
    for (int i = 0; i < e->n_dim; i++)
        n *= e->shape[i];
    return n;
}

/* The file's shape of transformers' tensor, and which part of it is meant. */
static cab_status shape_of(const cab_exporter *x, cab_gguf_form form, plan *p, int *n_dim, int64_t shape[2])
{
    const cab_safetensors_entry *e = p->entry;
    const int64_t n = elements_of(e), groups = x->config.n_group > 0 ? x->config.n_group : 1;
    const bool filter = form == CAB_GGUF_FILTER && e->n_dim == 3 && e->shape[1] == 1;
    if (n < 1 || !(filter || e->n_dim == 1 || e->n_dim == 2))
        return cab_fail(CAB_ESHAPE, "%s: tensor \"%s\" has %d dimensions or no elements", e->file, e->name, e->n_dim);
    *n_dim = filter ? 2 : e->n_dim;
    shape[0] = e->shape[0];
    shape[1] = filter ? e->shape[2] : e->shape[1];
    if (form == CAB_GGUF_COLUMN || form == CAB_GGUF_DECAY_HEAD || form == CAB_GGUF_GROUPS) {
        *n_dim = 2;
        shape[0] = form == CAB_GGUF_GROUPS ? groups : n;
        shape[1] = n / shape[0];
    }
    if (form == CAB_GGUF_FIRST_HALF || form == CAB_GGUF_SECOND_HALF) {
        shape[0] /= 2;
        p->begin = form == CAB_GGUF_SECOND_HALF ? n / 2 : 0;
    }
    if ((form == CAB_GGUF_GROUPS && n % groups != 0) ||
        ((form == CAB_GGUF_FIRST_HALF || form == CAB_GGUF_SECOND_HALF) && e->shape[0] % 2 != 0) ||
        (p->change.heads > 0 && e->shape[0] % (2 * (int64_t)p->change.heads) != 0))
        return cab_fail(CAB_ESHAPE, "%s: tensor \"%s\" has %lld rows, which do not divide into heads, groups or halves",
                        e->file, e->name, (long long)e->shape[0]);
    return CAB_OK;
}

/* Matrices that are multiplied have the type that was asked for; all else F32. */
static cab_dtype dtype_of(const cab_exporter *x, cab_gguf_form form, const char *name, int n_dim, const int64_t *shape,
                          cab_exported *out)
{
    const bool product =
        n_dim == 2 && (form == CAB_GGUF_SAME || form == CAB_GGUF_FIRST_HALF || form == CAB_GGUF_SECOND_HALF);
    const bool ends = strcmp(name, "token_embd.weight") == 0 || strcmp(name, "output.weight") == 0;
    cab_dtype dtype = product ? x->what->dtype : CAB_F32;
    if (dtype == CAB_Q4_0 && ends)
        dtype = CAB_Q8_0;
    if (shape[n_dim - 1] % cab_dtype_block(dtype) == 0)
        return dtype;
    out->wider++;
    return CAB_F16;
}

void cab_export_say_left_out(const cab_checkpoint *source)
{
    if (cab_checkpoint_left_out(source) > 0)
        cab_log_warn("%s: %zu tensors of other parts than the language model are left out",
                     cab_checkpoint_directory(source), cab_checkpoint_left_out(source));
}

/* ---- which tensors -------------------------------------------------------------------------------------------------- */

/* The rows of the table that `name` is in: one, or two with a half each. */
static size_t find_rows(const cab_exporter *x, const char *name, const cab_gguf_name *rows[2],
                        char names[2][CAB_GGUF_NAME_MAX])
{
    const cab_gguf_name *const tables[] = {x->family->names, cab_gguf_common_names};
    for (int t = 0; t < 2; t++)
        for (const cab_gguf_name *row = tables[t]; row->gguf != NULL; row++) {
            if (!cab_gguf_from_transformers(row, name, names[0]))
                continue;
            rows[0] = row;
            rows[1] = row + 1;
            return row->form == CAB_GGUF_FIRST_HALF && cab_gguf_from_transformers(row + 1, name, names[1]) ? 2 : 1;
        }
    return 0;
}

/* Whether two tensors hold the same bytes. The pages that are compared are let go of. */
static bool same_bytes(const cab_safetensors_entry *a, const cab_safetensors_entry *b)
{
    enum { AT_ONCE = 1 << 24 };
    bool same = a->dtype == b->dtype && a->bytes == b->bytes;
    for (size_t at = 0; same && at < a->bytes; at += AT_ONCE) {
        const size_t size = a->bytes - at < AT_ONCE ? a->bytes - at : AT_ONCE;
        const uint8_t *x = (const uint8_t *)a->data + at, *y = (const uint8_t *)b->data + at;
        same = memcmp(x, y, size) == 0;
        cab_pages_forget(x, size);
        cab_pages_forget(y, size);
    }
    return same;
}

static cab_status leave_zeros(cab_exporter *x, const cab_safetensors_entry *e)
{
    const int64_t n = elements_of(e);
    float *values = NULL;
    cab_status status;
    CAB_TRY(CAB_NEW(&values, (size_t)n, "a bias"));
    status = cab_checkpoint_read_part(x->source, e, 0, n, values);
    for (int64_t i = 0; status == CAB_OK && i < n; i++)
        if (values[i] != 0)
            status = cab_fail(CAB_EUNSUPPORTED, "%s: tensor \"%s\" is not zero: llama.cpp's \"%s\" adds no bias there",
                              e->file, e->name, x->family->name);
    x->zeros += (uint64_t)n;
    cab_free(values);
    return status;
}

/* The embedding, under its own name; NULL: it is stored as the head alone, or not at all. */
static const cab_safetensors_entry *find_embedding(const cab_exporter *x)
{
    const cab_gguf_name *rows[2];
    char names[2][CAB_GGUF_NAME_MAX];
    for (size_t i = 0; i < cab_checkpoint_count(x->source); i++) {
        const cab_safetensors_entry *e = cab_checkpoint_at(x->source, i);
        if (find_rows(x, e->name, rows, names) > 0 && strcmp(names[0], "token_embd.weight") == 0)
            return e;
    }
    return NULL;
}

static bool is_tied_head(const cab_exporter *x, const cab_safetensors_entry *e)
{
    return x->config.tied && strcmp(e->name, "lm_head.weight") == 0;
}

/* What is left out: a copy of the embedding, functions of the configuration, a bias that llama.cpp does not add. */
static cab_status is_left_out(cab_exporter *x, const cab_safetensors_entry *e, bool *left_out)
{
    const cab_safetensors_entry *embedding = is_tied_head(x, e) ? find_embedding(x) : NULL;
    *left_out = embedding != NULL;
    if (embedding != NULL && !same_bytes(e, embedding))
        return cab_fail(CAB_EFORMAT,
                        "%s: tensors \"%s\" and \"%s\" differ, expected equal ones: tie_word_embeddings is true",
                        e->file, embedding->name, e->name);
    for (int i = 0; x->arch->unread != NULL && x->arch->unread[i] != NULL; i++)
        *left_out = *left_out || fnmatch(x->arch->unread[i], e->name, 0) == 0;
    if (strcmp(x->family->name, "falcon-h1") != 0 || fnmatch("*.self_attn.o_proj.bias", e->name, 0) != 0)
        return CAB_OK;
    *left_out = true;
    return leave_zeros(x, e);
}

static cab_status add_entry(cab_exporter *x, const cab_safetensors_entry *e, plan *plans, size_t *count,
                            cab_exported *out)
{
    const cab_gguf_name *rows[2];
    char names[2][CAB_GGUF_NAME_MAX];
    bool left_out = false;
    CAB_TRY(is_left_out(x, e, &left_out));
    if (left_out)
        return CAB_OK;
    const size_t n = find_rows(x, e->name, rows, names);
    if (n == 0)
        return cab_fail(CAB_EUNSUPPORTED, "%s: tensor \"%s\" has no place in llama.cpp's architecture \"%s\"", e->file,
                        e->name, x->family->name);
    if (is_tied_head(x, e)) /* the embedding, under the head's name */
        snprintf(names[0], sizeof names[0], "token_embd.weight");
    for (size_t i = 0; i < n; i++) {
        plan *p = &plans[(*count)++];
        int64_t shape[2] = {0};
        int n_dim = 0;
        *p = (plan){.exporter = x,
                    .entry = e,
                    .change = cab_gguf_change_of(x->family, names[i], x->config.n_head, x->config.n_kv_head),
                    .decay = rows[i]->form == CAB_GGUF_DECAY || rows[i]->form == CAB_GGUF_DECAY_HEAD,
                    .factors = cab_export_factors_of(x, is_tied_head(x, e) ? "model.embed_tokens.weight" : e->name)};
        CAB_TRY(shape_of(x, rows[i]->form, p, &n_dim, shape));
        const cab_dtype dtype = dtype_of(x, rows[i]->form, names[i], n_dim, shape, out);
        CAB_TRY(cab_gguf_writer_tensor(x->file, names[i], dtype, n_dim, shape, read_values, NULL, p));
    }
    return CAB_OK;
}

/* A tied embedding whose copy as the head is multiplied by another number is written twice. */
static cab_status add_head(cab_exporter *x, const cab_safetensors_entry *e, plan *plans, size_t *count,
                           cab_exported *out)
{
    const cab_gguf_name *rows[2];
    char names[2][CAB_GGUF_NAME_MAX];
    const bool embedding = find_rows(x, e->name, rows, names) > 0 && strcmp(names[0], "token_embd.weight") == 0;
    if (!x->config.tied || !cab_export_multiplies(x) || x->config.embedding_scale == x->config.head_scale ||
        !(embedding || (is_tied_head(x, e) && find_embedding(x) == NULL)))
        return CAB_OK;
    plan *p = &plans[(*count)++];
    *p = (plan){.exporter = x, .entry = e, .again = true, .factors = cab_export_factors_of(x, "lm_head.weight")};
    return cab_gguf_writer_tensor(x->file, "output.weight",
                                  dtype_of(x, CAB_GGUF_SAME, "output.weight", 2, e->shape, out), 2, e->shape,
                                  read_values, NULL, p);
}

/* llama.cpp adds a bias after every convolution: zeros where the model has none. */
static cab_status add_filter_bias(cab_exporter *x, const cab_safetensors_entry *e, plan *plans, size_t *count)
{
    const cab_gguf_name *rows[2];
    char names[2][CAB_GGUF_NAME_MAX], bias[CAB_GGUF_NAME_MAX];
    const size_t stem = strlen(e->name) - strlen("weight");
    if (find_rows(x, e->name, rows, names) == 0 || rows[0]->form != CAB_GGUF_FILTER || e->n_dim != 3)
        return CAB_OK;
    snprintf(bias, sizeof bias, "%.*sbias", (int)stem, e->name);
    if (cab_checkpoint_has(x->source, bias))
        return CAB_OK;
    snprintf(bias, sizeof bias, "%.*sbias", (int)(strlen(names[0]) - strlen("weight")), names[0]);
    plan *p = &plans[(*count)++];
    *p = (plan){.exporter = x};
    return cab_gguf_writer_tensor(x->file, bias, CAB_F32, 1, e->shape, read_values, NULL, p);
}

/* The registry's architecture knows how many parameters a model of these sizes has. */
static cab_status check_parameters(const cab_exporter *x, const plan *plans, size_t count)
{
    cab_model_count expected;
    uint64_t found = x->zeros;
    CAB_TRY(cab_model_count_parameters(x->arch, &x->config, &expected));
    for (size_t i = 0; i < count; i++)
        if (plans[i].entry != NULL && plans[i].begin == 0 && !plans[i].again)
            found += (uint64_t)elements_of(plans[i].entry);
    if (found != expected.parameters)
        return cab_fail(CAB_ESHAPE, "%s: the tensors have %llu parameters, but config.json describes %llu",
                        cab_checkpoint_directory(x->source), (unsigned long long)found,
                        (unsigned long long)expected.parameters);
    return CAB_OK;
}

static cab_status add_tensors(cab_exporter *x, plan *plans, cab_exported *out)
{
    static const char *const factor_names[3] = {"rope_freqs.weight", "rope_factors_short.weight",
                                                "rope_factors_long.weight"};
    size_t count = 0;
    for (int i = 0; i < 3; i++) {
        const int64_t n = x->config.rope.dim / 2;
        if (x->factors[i] == NULL)
            continue;
        plan *p = &plans[count++];
        *p = (plan){.exporter = x, .values = x->factors[i]};
        CAB_TRY(cab_gguf_writer_tensor(x->file, factor_names[i], CAB_F32, 1, &n, read_values, NULL, p));
    }
    for (size_t i = 0; i < cab_checkpoint_count(x->source); i++) {
        const cab_safetensors_entry *e = cab_checkpoint_at(x->source, i);
        CAB_TRY(add_entry(x, e, plans, &count, out));
        CAB_TRY(add_head(x, e, plans, &count, out));
        CAB_TRY(add_filter_bias(x, e, plans, &count));
    }
    out->tensors = cab_gguf_writer_count(x->file);
    cab_export_say_left_out(x->source);
    return check_parameters(x, plans, count);
}

/* ---- the whole ------------------------------------------------------------------------------------------------------ */

/* llama.cpp's number of what most matrices are stored as. */
static uint32_t file_type(cab_dtype dtype)
{
    switch (dtype) {
    case CAB_F32:
        return 0;
    case CAB_F16:
        return 1;
    case CAB_Q4_0:
        return 2;
    case CAB_Q8_0:
        return 7;
    default:
        return 32; /* BF16 */
    }
}

/* llama.cpp takes a model for a Phi 3 if its name says so, and does not load it without these tokens. */
static bool may_be_named(const cab_exporter *x, const char *name)
{
    static const char *const tokens[] = {"</s>", "<unk>", "<s>", "<|endoftext|>"};
    cab_tokenizer *tokenizer = NULL;
    char lower[CAB_PATH_MAX];
    int32_t id;
    size_t i = 0;
    for (; name[i] != '\0'; i++)
        lower[i] = (char)tolower((unsigned char)name[i]);
    lower[i] = '\0';
    if (strstr(lower, "phi3") == NULL && strstr(lower, "phi-3") == NULL)
        return true;
    if (cab_tokenizer_open(x->what->tokenizer != NULL ? x->what->tokenizer : x->what->model, &tokenizer) != CAB_OK)
        return false;
    bool all = true;
    for (i = 0; i < sizeof tokens / sizeof *tokens; i++)
        all = all && cab_tokenizer_find(tokenizer, tokens[i], &id);
    cab_tokenizer_free(tokenizer);
    return all;
}

static cab_status put_general(const cab_exporter *x)
{
    char name[CAB_PATH_MAX], *slash;
    snprintf(name, sizeof name, "%s", x->what->model);
    while ((slash = strrchr(name, '/')) != NULL && slash[1] == '\0' && slash != name)
        *slash = '\0';
    CAB_TRY(cab_gguf_writer_text(x->file, "general.type", "model"));
    if (may_be_named(x, cab_path_name(name)))
        CAB_TRY(cab_gguf_writer_text(x->file, "general.name", cab_path_name(name)));
    CAB_TRY(cab_gguf_writer_u32(x->file, "general.file_type", file_type(x->what->dtype)));
    return cab_gguf_writer_u32(x->file, "general.quantization_version", 2);
}

static cab_status put_tokenizer(const cab_exporter *x)
{
    char path[CAB_PATH_MAX];
    const cab_gguf *file = cab_checkpoint_gguf(x->source);
    if (x->what->tokenizer != NULL)
        return cab_tokenizer_to_gguf(x->what->tokenizer, x->config.vocab_size, x->file);
    if (file != NULL)
        return cab_tokenizer_copy_gguf(file, x->config.vocab_size, x->file);
    CAB_TRY(cab_path_join(path, x->what->model, "tokenizer.json"));
    if (cab_path_exists(path))
        return cab_tokenizer_to_gguf(x->what->model, x->config.vocab_size, x->file);
    cab_log_warn("%s: is not there: the file has no vocabulary, and llama.cpp reads and writes token ids alone", path);
    return cab_gguf_writer_text(x->file, "tokenizer.ggml.model", "no_vocab");
}

cab_status cab_export_gguf(const cab_export *what, const char *path, cab_exported *out)
{
    cab_exporter x = {.what = what};
    plan *plans = NULL;
    cab_status status;
    *out = (cab_exported){0};
    CAB_GOTO(cab_checkpoint_open(what->model, &x.source));
    x.json = cab_checkpoint_config(x.source);
    CAB_GOTO(cab_gguf_writer_new(&x.file));
    CAB_GOTO(cab_export_keys(&x));
    CAB_GOTO(put_general(&x));
    CAB_GOTO(put_tokenizer(&x));
    CAB_GOTO(CAB_NEW(&plans, 2 * cab_checkpoint_count(x.source) + 3, "tensors to write"));
    CAB_GOTO(add_tensors(&x, plans, out));
    status = cab_gguf_writer_save(x.file, path, &out->bytes);
done:
    cab_free(plans);
    cab_gguf_writer_free(x.file);
    cab_checkpoint_close(x.source);
    return status;
}
