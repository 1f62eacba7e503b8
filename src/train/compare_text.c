/* compare_text.c - comparing models of text: windows of the data, and of each layer the matrix over the first tokens. */
#include "base/file.h"
#include "base/memory.h"
#include "data/text_bounds.h"
#include "train/compare_internal.h"

#include <inttypes.h>
#include <string.h>

enum {
    TEXT_TOKENS = 256, /* of a window, unless asked for others */
    MAP_TOKENS = 24    /* that are drawn */
};

static cab_status check_text(cab_compare_pair *p)
{
    const cab_compare_options *o = p->options;
    const cab_config *t = &p->teacher->config, *s = &p->student->config;
    if (t->vocab_size != s->vocab_size)
        return cab_fail(CAB_ESHAPE, "%s: vocabulary of %d, %s has %d", o->student, s->vocab_size, o->teacher,
                        t->vocab_size);
    if (o->pictures_count > 0)
        return cab_fail(CAB_EARG, "%s: a model of text, there is nothing to draw of %s", o->student, o->pictures[0]);
    int64_t most = t->max_length;
    if (cab_network_bounded(&p->student->network) && s->max_length < most)
        most = s->max_length;
    p->seq_len = o->seq_len > 0 ? o->seq_len : most < TEXT_TOKENS ? most : TEXT_TOKENS;
    if (p->seq_len > most)
        return cab_fail(CAB_ESHAPE, "%s: takes at most %" PRId64 " tokens, the window is %" PRId64, o->teacher, most,
                        p->seq_len);
    return CAB_OK;
}

/* ---- data ------------------------------------------------------------------------------------------------------------ */

static cab_status open_text(cab_compare_pair *p)
{
    const cab_compare_options *o = p->options;
    cab_text_bounds bounds;
    CAB_TRY(cab_tokenizer_open(o->teacher, &p->tokenizer));
    CAB_TRY(cab_tokenizer_check_vocab(p->tokenizer, p->teacher->config.vocab_size, o->teacher));
    CAB_TRY(cab_text_bounds_load(o->teacher, p->tokenizer, p->teacher->config.vocab_size, &bounds));
    const cab_dataset_options options = {.tokenizer = p->tokenizer,
                                         .separator = o->separator,
                                         .text_field = o->text_field,
                                         .limits = o->limits,
                                         .cache = o->cache,
                                         .bin_type = o->bin_uint32 ? CAB_TOKEN_U32 : CAB_TOKEN_U16,
                                         .vocab_size = p->teacher->config.vocab_size,
                                         .end_id = cab_text_bounds_separator(&bounds),
                                         .fraction = 1};
    CAB_TRY(cab_dataset_open(o->files, o->files_count, &options, &p->dataset));
    CAB_TRY(CAB_NEW(&p->ids, (size_t)p->seq_len, "a window"));
    CAB_TRY(CAB_NEW(&p->labels, (size_t)p->seq_len, "a window"));
    const uint64_t tokens = cab_dataset_tokens(p->dataset);
    p->available = tokens > 0 ? (tokens - 1) / (uint64_t)p->seq_len : 0;
    if (p->available == 0)
        return cab_fail(CAB_EFORMAT, "%s: %" PRIu64 " tokens, expected more than the %" PRId64 " of one window",
                        o->files[0], tokens, p->seq_len);
    return CAB_OK;
}

static cab_status load_window(cab_compare_pair *p, int64_t i, int64_t n, const void **input, uint64_t *index)
{
    *index = (uint64_t)i * p->available / (uint64_t)n;
    cab_dataset_eval_window(p->dataset, (uint64_t)p->seq_len, *index, p->ids, p->labels);
    *input = p->ids;
    return CAB_OK;
}

/* ---- drawings -------------------------------------------------------------------------------------------------------- */

static cab_status draw_tokens(cab_compare_drawer *d, const int32_t *ids, int64_t n, const char *name, cab_heat_map *map)
{
    map->rows = map->columns = n;
    CAB_TRY(cab_strdup(&map->name, name));
    CAB_TRY(CAB_NEW(&map->tokens, (size_t)n, "tokens"));
    for (int64_t i = 0; i < n; i++) {
        cab_bytes text = {0};
        cab_status status = cab_tokenizer_decode(d->pair->tokenizer, &ids[i], 1, false, &text);
        if (status == CAB_OK)
            status = cab_bytes_append(&text, "", 1);
        if (status == CAB_OK)
            status = cab_strdup(&map->tokens[i], text.data);
        cab_bytes_free(&text);
        CAB_TRY(status);
    }
    return cab_compare_draw_layers(d, ids, map);
}

static cab_status draw_sentence(cab_compare_drawer *d, const char *text)
{
    cab_ids ids = {0};
    cab_status status;
    CAB_GOTO(cab_tokenizer_encode(d->pair->tokenizer, text, strlen(text), &ids));
    if (ids.count == 0) {
        status = cab_fail(CAB_EARG, "--text: no token in it");
        goto done;
    }
    const int64_t n = ids.count < MAP_TOKENS ? (int64_t)ids.count : MAP_TOKENS;
    CAB_GOTO(cab_compare_drawer_open(d, n));
    status = draw_tokens(d, ids.data, n, text, &d->out->maps[d->out->n_map++]);
done:
    cab_ids_free(&ids);
    return status;
}

static cab_status draw_window(cab_compare_drawer *d)
{
    const int64_t length = d->pair->seq_len < MAP_TOKENS ? d->pair->seq_len : MAP_TOKENS;
    const void *input = NULL;
    uint64_t index;
    CAB_TRY(cab_compare_drawer_open(d, length));
    CAB_TRY(load_window(d->pair, 0, 1, &input, &index));
    return draw_tokens(d, input, length, "The first tokens of the data", &d->out->maps[d->out->n_map++]);
}

/* One drawing at most: a matrix takes more of a page than a picture. */
static cab_status draw_text(cab_compare_drawer *d, int64_t samples)
{
    const cab_compare_options *o = d->pair->options;
    const bool wanted = (o->maps > 0 && samples > 0) || o->text != NULL;
    if (!wanted)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&d->out->maps, 1, "drawings"));
    return o->text != NULL ? draw_sentence(d, o->text) : draw_window(d);
}

const cab_compare_kind cab_compare_text = {
    .unit = "windows",
    .check = check_text,
    .open = open_text,
    .load = load_window,
    .draw = draw_text,
};
