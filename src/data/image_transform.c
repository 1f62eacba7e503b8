/* image_transform.c - the evaluation transform and its numbers out of a model's directory. */
#include "data/image_transform.h"

#include "base/file.h"
#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const size_t CONFIG_MAX = (size_t)16 << 20;
enum { SIZE_MAX_PIXELS = 1 << 14 };

/* Codes of PIL.Image.Resampling, which transformers writes. */
enum { PIL_NEAREST = 0, PIL_BILINEAR = 2, PIL_BICUBIC = 3 };

cab_image_transform cab_image_transform_default(void)
{
    return (cab_image_transform){.size = 224,
                                 .crop = 0.875,
                                 .filter = CAB_FILTER_BICUBIC,
                                 .mean = {0.485f, 0.456f, 0.406f},
                                 .std = {0.229f, 0.224f, 0.225f}};
}

/* ---- reading ---------------------------------------------------------------------------------------------------------- */

/* Three numbers; an absent key leaves `out` alone. */
static cab_status read_channels(const cab_json *json, json_object *object, const char *key, double low, float out[3])
{
    json_object *array = NULL;
    if (!json_object_object_get_ex(object, key, &array) || array == NULL)
        return CAB_OK;
    CAB_TRY(cab_json_array(json, object, key, &array));
    if (json_object_array_length(array) != 3)
        return cab_fail(CAB_EFORMAT, "%s: \"%s\" has %zu numbers; expected 3", json->name, key,
                        json_object_array_length(array));
    for (size_t i = 0; i < 3; i++) {
        double value = json_object_get_double(json_object_array_get_idx(array, i));
        if (!(value >= low && value <= 1.0))
            return cab_fail(CAB_EFORMAT, "%s: \"%s\"[%zu] is %g; expected %g to 1", json->name, key, i, value, low);
        out[i] = (float)value;
    }
    return CAB_OK;
}

static cab_status read_statistics(const cab_json *json, json_object *object, const char *mean, const char *std,
                                  cab_image_transform *t)
{
    const double least = 1e-6; /* divided by */
    CAB_TRY(read_channels(json, object, mean, 0.0, t->mean));
    return read_channels(json, object, std, least, t->std);
}

static cab_status check_size(const cab_json *json, const char *key, int64_t size, int *out)
{
    if (size < 1 || size > SIZE_MAX_PIXELS)
        return cab_fail(CAB_EFORMAT, "%s: \"%s\" is %lld; expected 1 to %d", json->name, key, (long long)size,
                        (int)SIZE_MAX_PIXELS);
    *out = (int)size;
    return CAB_OK;
}

/* timm: {"input_size": [3, 224, 224], "crop_pct": 0.9, "interpolation": "bicubic", "mean": [...], "std": [...]} */
static cab_status read_timm(const cab_json *json, json_object *object, cab_image_transform *t)
{
    json_object *sizes = NULL;
    const char *name = NULL;
    if (json_object_object_get_ex(object, "input_size", &sizes) && sizes != NULL) {
        CAB_TRY(cab_json_array(json, object, "input_size", &sizes));
        size_t n = json_object_array_length(sizes);
        CAB_TRY(check_size(json, "input_size",
                           n == 0 ? 0 : json_object_get_int64(json_object_array_get_idx(sizes, n - 1)), &t->size));
    }
    CAB_TRY(cab_json_number_or(json, object, "crop_pct", t->crop, &t->crop));
    if (!(t->crop > 0.0 && t->crop <= 1.0))
        return cab_fail(CAB_EFORMAT, "%s: \"crop_pct\" is %g; expected above 0, at most 1", json->name, t->crop);
    CAB_TRY(cab_json_string_or(json, object, "interpolation", "bicubic", &name));
    if (strcmp(name, "bicubic") == 0)
        t->filter = CAB_FILTER_BICUBIC;
    else if (strcmp(name, "bilinear") == 0)
        t->filter = CAB_FILTER_BILINEAR;
    else
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"interpolation\" is \"%s\"; supported: bicubic, bilinear", json->name,
                        name);
    return read_statistics(json, object, "mean", "std", t);
}

/* A number, or an object with "shortest_edge" or "height". 0: absent. */
static cab_status read_edge(const cab_json *json, const char *key, int *out)
{
    json_object *value = NULL, *edge = NULL;
    *out = 0;
    if (!json_object_object_get_ex(json->root, key, &value) || value == NULL)
        return CAB_OK;
    if (json_object_is_type(value, json_type_object)) {
        if (!json_object_object_get_ex(value, "shortest_edge", &edge))
            json_object_object_get_ex(value, "height", &edge);
        value = edge;
    }
    return check_size(json, key, json_object_get_int64(value), out);
}

/* transformers: {"size": 224 or {...}, "crop_size": {...}, "resample": 3, "image_mean": [...], "image_std": [...]} */
static cab_status read_transformers(const cab_json *json, cab_image_transform *t)
{
    int size = 0, crop = 0;
    bool crops = false;
    int64_t code = PIL_BICUBIC;
    CAB_TRY(read_edge(json, "size", &size));
    CAB_TRY(read_edge(json, "crop_size", &crop));
    CAB_TRY(cab_json_bool_or(json, NULL, "do_center_crop", crop != 0, &crops));
    if (size != 0) {
        t->size = crops && crop != 0 && crop < size ? crop : size;
        t->crop = (double)t->size / size;
    }
    CAB_TRY(cab_json_int_or(json, NULL, "resample", 0, 5, t->filter == CAB_FILTER_BICUBIC ? PIL_BICUBIC : PIL_BILINEAR,
                            &code));
    if (code != PIL_BICUBIC && code != PIL_BILINEAR && code != PIL_NEAREST)
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"resample\" is %lld; supported: 0 (nearest), 2 (bilinear), 3 (bicubic)",
                        json->name, (long long)code);
    t->filter = code == PIL_BICUBIC    ? CAB_FILTER_BICUBIC
                : code == PIL_BILINEAR ? CAB_FILTER_BILINEAR
                                       : CAB_FILTER_NEAREST;
    return read_statistics(json, json->root, "image_mean", "image_std", t);
}

cab_status cab_image_transform_load(const char *directory, cab_image_transform *t)
{
    cab_status status = CAB_OK;
    cab_json config = {0}, preprocessor = {0};
    json_object *timm = NULL;
    char path[CAB_PATH_MAX];
    *t = cab_image_transform_default();
    CAB_GOTO(cab_path_join(path, directory, "config.json"));
    CAB_GOTO(cab_json_load(path, CONFIG_MAX, &config));
    if (json_object_object_get_ex(config.root, "pretrained_cfg", &timm) && timm != NULL) {
        CAB_GOTO(cab_json_object(&config, NULL, "pretrained_cfg", &timm));
        CAB_GOTO(read_timm(&config, timm, t));
    }
    CAB_GOTO(cab_path_join(path, directory, "preprocessor_config.json"));
    if (cab_path_exists(path)) {
        CAB_GOTO(cab_json_load(path, CONFIG_MAX, &preprocessor));
        CAB_GOTO(read_transformers(&preprocessor, t));
    }
done:
    cab_json_close(&config);
    cab_json_close(&preprocessor);
    return status;
}

/* ---- applying --------------------------------------------------------------------------------------------------------- */

void cab_image_scratch_free(cab_image_scratch *s)
{
    cab_resampler_free(&s->resampler);
    cab_image_free(&s->image);
    cab_image_free(&s->spare);
}

void cab_image_normalise(const cab_image_transform *t, const cab_image *image, float *pixels)
{
    size_t count = (size_t)image->width * (size_t)image->height;
    float table[3][256];
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++)
            table[c][v] = ((float)v / 255.0f - t->mean[c]) / t->std[c];
    for (size_t i = 0; i < count; i++) {
        const uint8_t *pixel = image->pixels + 3 * i;
        pixels[i] = table[0][pixel[0]];
        pixels[count + i] = table[1][pixel[1]];
        pixels[2 * count + i] = table[2][pixel[2]];
    }
}

/* A share that was made of two whole numbers may lie a rounding error above theirs. */
int cab_image_transform_edge(const cab_image_transform *t)
{
    return (int)floor(t->size / t->crop + 1e-6);
}

cab_status cab_image_transform_crop(const cab_image_transform *t, cab_image_scratch *scratch, const cab_image *image,
                                    cab_image *out)
{
    const int side = cab_image_transform_edge(t);
    const bool upright = image->width <= image->height;
    const int64_t shorter = upright ? image->width : image->height, longer = upright ? image->height : image->width;
    const int64_t scaled = side * longer / shorter;
    if (scaled > INT32_MAX)
        return cab_fail(CAB_ESHAPE, "an image of %d x %d pixels is too narrow", image->width, image->height);
    const int width = upright ? side : (int)scaled, height = upright ? (int)scaled : side;
    /* rint: half to even, as Python rounds */
    cab_box middle = {(int)rint((width - t->size) / 2.0), (int)rint((height - t->size) / 2.0), t->size, t->size};
    return cab_resample(&scratch->resampler, image, (cab_box){0, 0, image->width, image->height}, t->filter, width,
                        height, &middle, out);
}

cab_status cab_image_transform_apply(const cab_image_transform *t, cab_image_scratch *scratch, const cab_image *image,
                                     float *pixels)
{
    CAB_TRY(cab_image_transform_crop(t, scratch, image, &scratch->image));
    cab_image_normalise(t, &scratch->image, pixels);
    return CAB_OK;
}
