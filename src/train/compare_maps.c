/* compare_maps.c - drawings of both matrices for a few pictures or sentences: of pictures the row of the class token over the
 * patches, of text the matrix over the first tokens. */
#include "base/file.h"
#include "base/memory.h"
#include "data/thumbnail.h"
#include "train/compare_internal.h"
#include "train/image_pick.h"

#include <string.h>

enum {
    MAP_LAYERS = 6, /* of the student, that are drawn */
    MAP_TOKENS = 24,
    THUMBNAIL = 160 /* pixels */
};
static const size_t PICTURE_MAX = (size_t)1 << 28; /* bytes of a file */

typedef struct drawer {
    cab_compare_pair *pair;
    cab_probe *teacher, *student;
    float *matrix;
    cab_comparison *out;
} drawer;

static cab_status open_drawer(drawer *d, int64_t tokens)
{
    CAB_TRY(cab_probe_new(d->pair->teacher, tokens, &d->teacher));
    CAB_TRY(cab_probe_new(d->pair->student, tokens, &d->student));
    const size_t T = (size_t)cab_probe_tokens(d->student);
    return CAB_NEW(&d->matrix, T * T, "a matrix of tokens by tokens");
}

static void close_drawer(drawer *d)
{
    cab_probe_free(d->teacher);
    cab_probe_free(d->student);
    cab_free(d->matrix);
}

/* The part of a layer's matrix that is drawn. */
static cab_status cut_out(drawer *d, cab_probe *probe, int layer, const cab_heat_map *map, float **values)
{
    const size_t n = (size_t)(map->rows * map->columns);
    CAB_TRY(CAB_NEW(values, n, "a drawing"));
    CAB_TRY(cab_probe_matrix(probe, layer, d->matrix));
    memcpy(*values, d->matrix + (d->out->images ? 1 : 0), n * sizeof **values);
    return CAB_OK;
}

/* Fills in the layers of a map whose size is known, for this input. */
static cab_status draw_layers(drawer *d, const void *input, cab_heat_map *map)
{
    const cab_compare_pair *p = d->pair;
    const int S = p->student->config.n_layer, n = S < MAP_LAYERS ? S : MAP_LAYERS;
    CAB_TRY(CAB_NEW(&map->layers, (size_t)n, "a drawing"));
    map->n_layer = n;
    CAB_TRY(cab_probe_run(d->teacher, input));
    CAB_TRY(cab_probe_run(d->student, input));
    for (int i = 0; i < n; i++) {
        cab_heat_layer *layer = &map->layers[i];
        layer->layer = (i + 1) * S / n - 1;
        layer->teacher_layer = p->teacher_layer[layer->layer];
        CAB_TRY(cut_out(d, d->teacher, layer->teacher_layer, map, &layer->teacher));
        CAB_TRY(cut_out(d, d->student, layer->layer, map, &layer->student));
    }
    return CAB_OK;
}

/* ---- images ---------------------------------------------------------------------------------------------------------- */

/* The picture that p->image and p->pixels hold. */
static cab_status draw_image(drawer *d, const char *name, cab_heat_map *map)
{
    cab_compare_pair *p = d->pair;
    map->rows = map->columns = p->student->config.image_size / p->student->config.patch_size;
    CAB_TRY(cab_strdup(&map->name, name));
    CAB_TRY(cab_thumbnail(&p->image, &p->transform, &p->scratch, THUMBNAIL, &map->thumbnail));
    return draw_layers(d, p->pixels, map);
}

static cab_status draw_picture(drawer *d, const char *path, cab_heat_map *map)
{
    const cab_decode_options decode = {0};
    cab_compare_pair *p = d->pair;
    char *data;
    size_t size;
    CAB_TRY(cab_file_read(path, PICTURE_MAX, &data, &size));
    cab_image_free(&p->image);
    cab_status status = cab_image_decode(data, size, path, &decode, &p->image);
    cab_free(data);
    CAB_TRY(status);
    CAB_TRY(cab_image_transform_apply(&p->transform, &p->scratch, &p->image, p->pixels));
    return draw_image(d, cab_path_name(path), map);
}

static cab_status draw_images(drawer *d, int64_t samples, int64_t n)
{
    const cab_compare_options *o = d->pair->options;
    for (int64_t i = 0; i < n; i++) {
        const void *input = NULL;
        uint64_t index;
        char name[CAB_CAPTION_MAX];
        cab_heat_map *map = &d->out->maps[d->out->n_map++];
        if (o->pictures_count > 0) {
            CAB_TRY(draw_picture(d, o->pictures[i], map));
            continue;
        }
        CAB_TRY(cab_compare_data_load(d->pair, i * samples / n, samples, &input, &index));
        cab_class_caption(cab_image_set_classes(d->pair->set), cab_image_set_label(d->pair->set, index), name);
        CAB_TRY(draw_image(d, name, map));
    }
    return CAB_OK;
}

/* ---- text ------------------------------------------------------------------------------------------------------------ */

static cab_status draw_tokens(drawer *d, const int32_t *ids, int64_t n, const char *name, cab_heat_map *map)
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
    return draw_layers(d, ids, map);
}

static cab_status draw_sentence(drawer *d, const char *text)
{
    cab_ids ids = {0};
    cab_status status;
    CAB_GOTO(cab_tokenizer_encode(d->pair->tokenizer, text, strlen(text), &ids));
    if (ids.count == 0) {
        status = cab_fail(CAB_EARG, "--text: no token in it");
        goto done;
    }
    const int64_t n = ids.count < MAP_TOKENS ? (int64_t)ids.count : MAP_TOKENS;
    CAB_GOTO(open_drawer(d, n));
    status = draw_tokens(d, ids.data, n, text, &d->out->maps[d->out->n_map++]);
done:
    cab_ids_free(&ids);
    return status;
}

static cab_status draw_window(drawer *d)
{
    const int64_t length = d->pair->seq_len < MAP_TOKENS ? d->pair->seq_len : MAP_TOKENS;
    const void *input = NULL;
    uint64_t index;
    CAB_TRY(open_drawer(d, length));
    CAB_TRY(cab_compare_data_load(d->pair, 0, 1, &input, &index));
    return draw_tokens(d, input, length, "The first tokens of the data", &d->out->maps[d->out->n_map++]);
}

cab_status cab_compare_draw(cab_compare_pair *p, int64_t samples, cab_comparison *out)
{
    const cab_compare_options *o = p->options;
    drawer d = {.pair = p, .out = out};
    int64_t n = o->maps < samples ? o->maps : samples;
    if (o->pictures_count > 0)
        n = o->pictures_count;
    else if (!out->images)
        n = n > 0 || o->text != NULL; /* a matrix takes more of a page than a picture */
    cab_status status;
    CAB_GOTO(CAB_NEW(&out->maps, (size_t)n, "drawings"));
    if (!out->images) {
        status = n == 0 ? CAB_OK : o->text != NULL ? draw_sentence(&d, o->text) : draw_window(&d);
        goto done;
    }
    CAB_GOTO(open_drawer(&d, 0));
    status = draw_images(&d, samples, n);
done:
    close_drawer(&d);
    return status;
}
