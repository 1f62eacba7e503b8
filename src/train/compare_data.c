/* compare_data.c - what both models are shown: images as the teacher wants them, or windows of text. */
#include "base/file.h"
#include "base/memory.h"
#include "train/compare_internal.h"
#include "train/image_pick.h"

#include <inttypes.h>

static cab_status open_images(cab_compare_pair *p)
{
    const cab_compare_options *o = p->options;
    const size_t side = (size_t)p->student->config.image_size;
    const cab_image_set_options options = {
        .classes = o->classes != NULL ? &p->classes : NULL, .on_error = o->on_error, .limits = o->limits};
    CAB_TRY(cab_image_transform_load(o->teacher, &p->transform));
    p->transform.size = p->student->config.image_size;
    CAB_TRY(CAB_NEW(&p->pixels, 3 * side * side, "an image"));
    if (o->classes != NULL)
        CAB_TRY(cab_classes_load(o->classes, &p->classes));
    CAB_TRY(cab_image_set_open(o->files, o->files_count, &options, &p->set));
    p->available = cab_image_set_count(p->set);
    return CAB_OK;
}

static cab_status open_text(cab_compare_pair *p)
{
    const cab_compare_options *o = p->options;
    char path[CAB_PATH_MAX];
    CAB_TRY(cab_path_join(path, o->teacher, "tokenizer.json"));
    CAB_TRY(cab_tokenizer_load(path, &p->tokenizer));
    CAB_TRY(cab_tokenizer_check_vocab(p->tokenizer, p->teacher->config.vocab_size, o->teacher));
    const cab_dataset_options options = {.tokenizer = p->tokenizer,
                                         .separator = o->separator,
                                         .text_field = o->text_field,
                                         .limits = o->limits,
                                         .cache = o->cache,
                                         .bin_type = o->bin_uint32 ? CAB_TOKEN_U32 : CAB_TOKEN_U16,
                                         .vocab_size = p->teacher->config.vocab_size,
                                         .end_id = cab_tokenizer_end_of_text(p->tokenizer),
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

cab_status cab_compare_data_open(cab_compare_pair *p)
{
    return cab_model_reads_images(p->teacher) ? open_images(p) : open_text(p);
}

void cab_compare_data_close(cab_compare_pair *p)
{
    cab_image_free(&p->image); /* before the set, which may have lent it */
    cab_image_set_free(p->set);
    cab_classes_free(&p->classes);
    cab_image_scratch_free(&p->scratch);
    cab_free(p->pixels);
    cab_dataset_free(p->dataset);
    cab_tokenizer_free(p->tokenizer);
    cab_free(p->ids);
    cab_free(p->labels);
}

cab_status cab_compare_data_load(cab_compare_pair *p, int64_t i, int64_t n, const void **input, uint64_t *index)
{
    if (p->set == NULL) {
        *index = (uint64_t)i * p->available / (uint64_t)n;
        cab_dataset_eval_window(p->dataset, (uint64_t)p->seq_len, *index, p->ids, p->labels);
        *input = p->ids;
        return CAB_OK;
    }
    CAB_TRY(cab_image_pick(p->set, (uint64_t)i, (uint64_t)n, &p->image, index));
    *input = p->pixels;
    return cab_image_transform_apply(&p->transform, &p->scratch, &p->image, p->pixels);
}
