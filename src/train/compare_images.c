/* compare_images.c - comparing models of images: pictures as the teacher wants them, and of each layer what the class token takes
 * from every patch. */
#include "base/file.h"
#include "base/memory.h"
#include "data/thumbnail.h"
#include "train/compare_internal.h"
#include "train/image_pick.h"
#include "train/image_scorer.h"

enum { THUMBNAIL = 160 /* pixels */ };
static const size_t PICTURE_MAX = (size_t)1 << 28; /* bytes of a file */

static cab_status check_images(cab_compare_pair *p)
{
    const cab_compare_options *o = p->options;
    const cab_config *t = &p->teacher->config, *s = &p->student->config;
    if (t->patch_size != s->patch_size)
        return cab_fail(CAB_ESHAPE, "%s: patches of %d pixels, %s has %d: their tokens are not the same", o->student,
                        s->patch_size, o->teacher, t->patch_size);
    if (o->text != NULL)
        return cab_fail(CAB_EARG, "%s: a model of images, there is nothing to draw of a text", o->student);
    return CAB_OK;
}

/* ---- data ------------------------------------------------------------------------------------------------------------ */

static cab_status open_images(cab_compare_pair *p)
{
    const cab_compare_options *o = p->options;
    const size_t side = (size_t)p->student->config.image_size;
    const cab_image_set_options options = {
        .classes = o->classes != NULL ? &p->classes : NULL, .on_error = o->on_error, .limits = o->limits};
    CAB_TRY(cab_image_transform_of(p->teacher, &p->transform));
    p->transform.size = p->student->config.image_size;
    CAB_TRY(CAB_NEW(&p->pixels, 3 * side * side, "an image"));
    if (o->classes != NULL)
        CAB_TRY(cab_classes_load(o->classes, &p->classes));
    CAB_TRY(cab_image_set_open(o->files, o->files_count, &options, &p->set));
    p->available = cab_image_set_count(p->set);
    return CAB_OK;
}

static cab_status load_image(cab_compare_pair *p, int64_t i, int64_t n, const void **input, uint64_t *index)
{
    CAB_TRY(cab_image_pick(p->set, (uint64_t)i, (uint64_t)n, &p->image, index));
    *input = p->pixels;
    return cab_image_transform_apply(&p->transform, &p->scratch, &p->image, p->pixels);
}

/* ---- drawings -------------------------------------------------------------------------------------------------------- */

/* The picture that p->image and p->pixels hold. */
static cab_status draw_image(cab_compare_drawer *d, const char *name, cab_heat_map *map)
{
    cab_compare_pair *p = d->pair;
    map->rows = map->columns = p->student->config.image_size / p->student->config.patch_size;
    CAB_TRY(cab_strdup(&map->name, name));
    CAB_TRY(cab_thumbnail(&p->image, &p->transform, &p->scratch, THUMBNAIL, &map->thumbnail));
    return cab_compare_draw_layers(d, p->pixels, map);
}

static cab_status draw_picture(cab_compare_drawer *d, const char *path, cab_heat_map *map)
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

static cab_status draw_images(cab_compare_drawer *d, int64_t samples)
{
    const cab_compare_options *o = d->pair->options;
    const int64_t n = o->pictures_count > 0 ? o->pictures_count : o->maps < samples ? o->maps : samples;
    CAB_TRY(CAB_NEW(&d->out->maps, (size_t)n, "drawings"));
    CAB_TRY(cab_compare_drawer_open(d, 0));
    for (int64_t i = 0; i < n; i++) {
        const void *input = NULL;
        uint64_t index;
        char name[CAB_CAPTION_MAX];
        cab_heat_map *map = &d->out->maps[d->out->n_map++];
        if (o->pictures_count > 0) {
            CAB_TRY(draw_picture(d, o->pictures[i], map));
            continue;
        }
        CAB_TRY(load_image(d->pair, i * samples / n, samples, &input, &index));
        cab_class_caption(cab_image_set_classes(d->pair->set), cab_image_set_label(d->pair->set, index), name);
        CAB_TRY(draw_image(d, name, map));
    }
    return CAB_OK;
}

const cab_compare_kind cab_compare_images = {
    .unit = "images",
    .images = true,
    .first = 1,
    .check = check_images,
    .open = open_images,
    .load = load_image,
    .draw = draw_images,
};
