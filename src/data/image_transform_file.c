/* image_transform_file.c - the numbers of the evaluation transform in a model's directory.
 *
 *   timm, config.json:  {"pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 0.9, "crop_mode": "center",
 *                       "interpolation": "bicubic", "mean": [...], "std": [...]}}; older versions wrote the keys at the top
 *   transformers, preprocessor_config.json:
 *                       {"image_processor_type": "ViTImageProcessor", "do_resize": true, "size": 224 or {...}, "resample": 2,
 *                       "do_center_crop": false, "crop_size": {...}, "do_rescale": true, "rescale_factor": 0.00392156862745098,
 *                       "do_normalize": true, "image_mean": [...], "image_std": [...]}
 *
 * In transformers a size of height and width scales both sides exactly, "shortest_edge" keeps the proportion, and which of the
 * two a bare number means depends on the class. */
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/settings.h"
#include "data/image_transform.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t CONFIG_MAX = (size_t)16 << 20;
enum { SIZE_MAX_PIXELS = 1 << 14 };

/* Codes of PIL.Image.Resampling, which transformers writes. */
static const int resample_codes[] = {[CAB_FILTER_NEAREST] = 0, [CAB_FILTER_BILINEAR] = 2, [CAB_FILTER_BICUBIC] = 3};
static const char *const filter_names[] = {
    [CAB_FILTER_NEAREST] = "nearest", [CAB_FILTER_BILINEAR] = "bilinear", [CAB_FILTER_BICUBIC] = "bicubic"};
enum { FILTERS = sizeof resample_codes / sizeof *resample_codes };

/* ---- what both have --------------------------------------------------------------------------------------------------- */

/* Three numbers from `low` to `high`; an absent key leaves `out` alone. */
static cab_status read_channels(const cab_json *json, json_object *object, const char *key, double low, double high,
                                float out[3])
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
        if (!(value >= low && value <= high))
            return cab_fail(CAB_EFORMAT, "%s: \"%s\"[%zu] is %g; expected %g to %g", json->name, key, i, value, low,
                            high);
        out[i] = (float)value;
    }
    return CAB_OK;
}

/* Of values that reach 255 / divisor. */
static cab_status read_statistics(const cab_json *json, json_object *object, const char *mean, const char *std,
                                  cab_image_transform *t)
{
    const double least = 1e-6; /* divided by */
    const double reach = t->divisor < 255.0f ? 255.0 / (double)t->divisor : 1.0;
    CAB_TRY(read_channels(json, object, mean, 0.0, reach, t->mean));
    return read_channels(json, object, std, least, reach, t->std);
}

static cab_status check_size(const cab_json *json, const char *key, json_object *value, int *out)
{
    const bool number = json_object_is_type(value, json_type_int);
    const int64_t size = number ? json_object_get_int64(value) : 0;
    if (!number || size < 1 || size > SIZE_MAX_PIXELS)
        return cab_fail(CAB_EFORMAT, "%s: \"%s\" is %.80s; expected 1 to %d", json->name, key,
                        json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN), (int)SIZE_MAX_PIXELS);
    *out = (int)size;
    return CAB_OK;
}

/* Height and width, which must be one number. */
static cab_status check_square(const cab_json *json, const char *key, json_object *height, json_object *width, int *out)
{
    int other = 0;
    CAB_TRY(check_size(json, key, height, out));
    CAB_TRY(check_size(json, key, width, &other));
    if (*out != other)
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"%s\" is %d x %d; only squares are supported", json->name, key, *out,
                        other);
    return CAB_OK;
}

static void warn_of_missing(const cab_json *json, json_object *object, const char *const *keys)
{
    json_object *value = NULL;
    char names[128] = "";
    size_t used = 0;
    for (int i = 0; keys[i] != NULL; i++)
        if ((!json_object_object_get_ex(object, keys[i], &value) || value == NULL) && used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s\"%s\"", used > 0 ? ", " : "", keys[i]);
    if (used > 0)
        cab_log_warn("%s: timm's defaults are assumed for what is not stated: %s", json->name, names);
}

/* ---- timm ------------------------------------------------------------------------------------------------------------- */

static cab_status read_interpolation(const cab_json *json, json_object *object, cab_image_transform *t)
{
    const char *name = NULL;
    CAB_TRY(cab_json_string_or(json, object, "interpolation", filter_names[t->filter], &name));
    for (int i = 0; i < FILTERS; i++)
        if (strcmp(filter_names[i], name) == 0) {
            t->filter = (cab_filter)i;
            return CAB_OK;
        }
    return cab_fail(CAB_EUNSUPPORTED, "%s: \"interpolation\" is \"%s\"; supported: bicubic, bilinear, nearest",
                    json->name, name);
}

static cab_status read_timm(const cab_json *json, json_object *object, cab_image_transform *t)
{
    json_object *sizes = NULL;
    const char *mode = NULL;
    if (json_object_object_get_ex(object, "input_size", &sizes) && sizes != NULL) {
        CAB_TRY(cab_json_array(json, object, "input_size", &sizes));
        const size_t n = json_object_array_length(sizes);
        if (n != 3)
            return cab_fail(CAB_EFORMAT, "%s: \"input_size\" has %zu numbers; expected channels, height, width",
                            json->name, n);
        CAB_TRY(check_square(json, "input_size", json_object_array_get_idx(sizes, 1),
                             json_object_array_get_idx(sizes, 2), &t->size));
    }
    CAB_TRY(cab_json_number_or(json, object, "crop_pct", t->crop, &t->crop)); /* null is timm's default, 0.875 */
    if (!(t->crop > 0.0 && t->crop <= 1.0))
        return cab_fail(CAB_EFORMAT, "%s: \"crop_pct\" is %g; expected above 0, at most 1", json->name, t->crop);
    CAB_TRY(cab_json_string_or(json, object, "crop_mode", "center", &mode));
    t->resize = strcmp(mode, "squash") == 0 ? CAB_RESIZE_BOTH : CAB_RESIZE_EDGE;
    if (t->resize == CAB_RESIZE_EDGE && strcmp(mode, "center") != 0)
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"crop_mode\" is \"%s\"; supported: center, squash", json->name, mode);
    CAB_TRY(read_interpolation(json, object, t));
    return read_statistics(json, object, "mean", "std", t);
}

/* ---- transformers ----------------------------------------------------------------------------------------------------- */

/* Classes of transformers and what they do where the file is silent. */
typedef struct family {
    const char *name;       /* ViTImageProcessor, ViTImageProcessorFast, ViTFeatureExtractor ... */
    const char *model_type; /* that has this class where none is named */
    cab_resize resize;
    int size, crop_size; /* crop_size 0: the whole */
    cab_filter filter;
    float mean[3], std[3];
} family;

#define HALF                                                                                                           \
    {                                                                                                                  \
        0.5f, 0.5f, 0.5f                                                                                               \
    }
#define CLIP_MEAN                                                                                                      \
    {                                                                                                                  \
        0.48145466f, 0.4578275f, 0.40821073f                                                                           \
    }
#define CLIP_STD                                                                                                       \
    {                                                                                                                  \
        0.26862954f, 0.26130258f, 0.27577711f                                                                          \
    }
static const family families[] = {
    {"ViT", "vit", CAB_RESIZE_BOTH, 224, 0, CAB_FILTER_BILINEAR, HALF, HALF},
    {"DeiT", "deit", CAB_RESIZE_BOTH, 256, 224, CAB_FILTER_BICUBIC, HALF, HALF},
    {"Bit", NULL, CAB_RESIZE_EDGE, 224, 224, CAB_FILTER_BICUBIC, CLIP_MEAN, CLIP_STD},
    {"CLIP", NULL, CAB_RESIZE_EDGE, 224, 224, CAB_FILTER_BICUBIC, CLIP_MEAN, CLIP_STD},
};

static const cab_setting settings[] = {{"crop_pct", "null"},
                                       {"crop_size", NULL},
                                       {"data_format", NULL},
                                       {"default_to_square", NULL},
                                       {"device", NULL},
                                       {"disable_grouping", NULL},
                                       {"do_align_long_axis", "false"},
                                       {"do_center_crop", NULL},
                                       {"do_color_quantize", "false"},
                                       {"do_convert_rgb", NULL}, /* pictures are decoded to red, green, blue */
                                       {"do_flip_channel_order", "false"},
                                       {"do_normalize", NULL},
                                       {"do_pad", "false"},
                                       {"do_reduce_labels", NULL},
                                       {"do_rescale", NULL},
                                       {"do_resize", NULL},
                                       {"do_thumbnail", "false"},
                                       {"feature_extractor_type", NULL},
                                       {"image_mean", NULL},
                                       {"image_processor_type", NULL},
                                       {"image_std", NULL},
                                       {"input_data_format", NULL},
                                       {"ensure_multiple_of", "1"},
                                       {"keep_aspect_ratio", "false"},
                                       {"pad_size", "null"},
                                       {"processor_class", NULL},
                                       {"resample", NULL},
                                       {"rescale_factor", NULL},
                                       {"rescale_offset", "false"},
                                       {"return_tensors", NULL},
                                       {"size", NULL},
                                       {"size_divisor", "null"},
                                       {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, NULL};

/* "ViTImageProcessorFast" -> the row of "ViT". */
static const family *find_family(const char *type)
{
    static const char *const endings[] = {"ImageProcessor", "ImageProcessorFast", "ImageProcessorPil",
                                          "FeatureExtractor"};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const size_t length = strlen(families[i].name);
        for (size_t k = 0; k < sizeof endings / sizeof *endings; k++)
            if (strncmp(type, families[i].name, length) == 0 && strcmp(type + length, endings[k]) == 0)
                return &families[i];
    }
    return NULL;
}

static const family *family_of_model(const cab_json *config)
{
    json_object *value = NULL;
    const char *type =
        json_object_object_get_ex(config->root, "model_type", &value) ? json_object_get_string(value) : "";
    for (size_t i = 0; i < sizeof families / sizeof *families && type != NULL; i++)
        if (families[i].model_type != NULL && strcmp(families[i].model_type, type) == 0)
            return &families[i];
    return NULL;
}

static void apply_family(const family *f, cab_image_transform *t)
{
    t->resize = f->resize;
    t->size = f->crop_size > 0 ? f->crop_size : f->size;
    t->crop = (double)t->size / f->size;
    t->filter = f->filter;
    memcpy(t->mean, f->mean, sizeof t->mean);
    memcpy(t->std, f->std, sizeof t->std);
}

/* What a size says: a number, {"height", "width"}, {"shortest_edge"} or [height, width]. */
typedef struct extent {
    int side;  /* 0: not stated */
    bool edge; /* of the shorter side, the other in proportion */
} extent;

static cab_status read_extent(const cab_json *json, const char *key, bool number_is_edge, extent *out)
{
    json_object *value = NULL, *edge = NULL, *height = NULL, *width = NULL;
    *out = (extent){0};
    if (!json_object_object_get_ex(json->root, key, &value) || value == NULL)
        return CAB_OK;
    if (json_object_is_type(value, json_type_array) && json_object_array_length(value) == 2)
        return check_square(json, key, json_object_array_get_idx(value, 0), json_object_array_get_idx(value, 1),
                            &out->side);
    if (!json_object_is_type(value, json_type_object)) {
        out->edge = number_is_edge;
        return check_size(json, key, value, &out->side);
    }
    const int keys = json_object_object_length(value);
    if (keys == 2 && json_object_object_get_ex(value, "height", &height) &&
        json_object_object_get_ex(value, "width", &width))
        return check_square(json, key, height, width, &out->side);
    if (keys == 1 && json_object_object_get_ex(value, "shortest_edge", &edge)) {
        out->edge = true;
        return check_size(json, key, edge, &out->side);
    }
    return cab_fail(CAB_EUNSUPPORTED,
                    "%s: \"%s\" is %.80s; supported are a number, height and width, and shortest_edge alone",
                    json->name, key, json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN));
}

/* "size", "crop_size", "do_resize" and "do_center_crop". f: the class of transformers, NULL: none. What is not said is as in *t. */
static cab_status read_geometry(const cab_json *json, const family *f, cab_image_transform *t)
{
    extent size, crop;
    bool resizes, crops, square;
    CAB_TRY(cab_json_bool_or(json, NULL, "default_to_square", f == NULL || f->resize == CAB_RESIZE_BOTH, &square));
    CAB_TRY(read_extent(json, "size", !square, &size));
    CAB_TRY(read_extent(json, "crop_size", false, &crop));
    CAB_TRY(cab_json_bool_or(json, NULL, "do_resize", true, &resizes));
    const bool crops_else = f != NULL ? f->crop_size > 0 : crop.side > 0 || size.side == 0;
    CAB_TRY(cab_json_bool_or(json, NULL, "do_center_crop", crops_else, &crops));
    if (crop.edge)
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"crop_size\" is a shortest_edge; expected height and width",
                        json->name);
    const int scaled = size.side > 0 ? size.side : cab_image_transform_edge(t);
    const bool edge = size.side > 0 ? size.edge : t->resize == CAB_RESIZE_EDGE;
    t->size = !crops ? scaled : crop.side > 0 ? crop.side : t->size;
    t->crop = resizes ? (double)t->size / scaled : 1.0;
    t->resize = resizes ? (edge ? CAB_RESIZE_EDGE : CAB_RESIZE_BOTH) : crops ? CAB_RESIZE_CROP : CAB_RESIZE_NONE;
    if (resizes && edge && !crops)
        return cab_fail(CAB_EUNSUPPORTED,
                        "%s: \"size\" is a shortest_edge and nothing is cropped: pictures would not be square",
                        json->name);
    if (resizes && t->size > scaled)
        return cab_fail(CAB_EUNSUPPORTED,
                        "%s: \"crop_size\" is %d, more than the %d of \"size\": borders are not supported", json->name,
                        t->size, scaled);
    return CAB_OK;
}

/* "resample", the range of the values and their statistics. */
static cab_status read_values(const cab_json *json, cab_image_transform *t)
{
    int64_t code = 0;
    int filter = FILTERS;
    bool rescales, normalises;
    double factor = 0;
    CAB_TRY(cab_json_int_or(json, NULL, "resample", 0, 5, resample_codes[t->filter], &code));
    for (int i = 0; i < FILTERS; i++)
        filter = resample_codes[i] == code ? i : filter;
    if (filter == FILTERS)
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"resample\" is %lld; supported: 0 (nearest), 2 (bilinear), 3 (bicubic)",
                        json->name, (long long)code);
    t->filter = (cab_filter)filter;
    CAB_TRY(cab_json_bool_or(json, NULL, "do_rescale", true, &rescales));
    CAB_TRY(cab_json_bool_or(json, NULL, "do_normalize", true, &normalises));
    CAB_TRY(cab_json_number_or(json, NULL, "rescale_factor", 1.0 / 255.0, &factor));
    if (!(factor >= 1e-6 && factor <= 1e6))
        return cab_fail(CAB_EFORMAT, "%s: \"rescale_factor\" is %g; expected 1e-06 to 1e+06", json->name, factor);
    t->divisor = rescales ? (float)(1.0 / factor) : 1.0f;
    if (normalises)
        return read_statistics(json, json->root, "image_mean", "image_std", t);
    for (int c = 0; c < 3; c++) {
        t->mean[c] = 0.0f;
        t->std[c] = 1.0f;
    }
    return CAB_OK;
}

/* A step that is not in the table. */
static cab_status refuse_unknown_steps(const cab_json *json)
{
    json_object_object_foreach(json->root, key, value)
    {
        bool known = strncmp(key, "do_", 3) != 0 || !json_object_get_boolean(value);
        for (const cab_setting *s = settings; !known && s->key != NULL; s++)
            known = strcmp(s->key, key) == 0;
        if (!known)
            return cab_fail(CAB_EUNSUPPORTED, "%s: \"%.64s\" is %.80s; there is no such step here", json->name, key,
                            json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN));
    }
    return CAB_OK;
}

/* stated: *t holds what timm's config.json says, which stands where this file is silent. */
static cab_status read_transformers(const cab_json *json, const cab_json *config, bool stated, cab_image_transform *t)
{
    const char *type = NULL;
    CAB_TRY(cab_settings_check(json, NULL, setting_tables, false));
    CAB_TRY(refuse_unknown_steps(json));
    CAB_TRY(cab_json_string_or(json, NULL, "feature_extractor_type", NULL, &type));
    CAB_TRY(cab_json_string_or(json, NULL, "image_processor_type", type, &type));
    if (type != NULL && strncmp(type, "TimmWrapper", 11) == 0) /* everything stands in config.json */
        return CAB_OK;
    const family *f = type != NULL ? find_family(type) : family_of_model(config);
    if (type != NULL && f == NULL)
        return cab_fail(CAB_EUNSUPPORTED,
                        "%s: \"image_processor_type\" is \"%s\"; supported are those of ViT, DeiT, Bit, CLIP",
                        json->name, type);
    if (f != NULL && !stated)
        apply_family(f, t);
    else if (!stated)
        warn_of_missing(json, json->root, (const char *const[]){"size", "resample", "image_mean", "image_std", NULL});
    cab_settings_warn(json, setting_tables);
    CAB_TRY(read_geometry(json, f, t));
    return read_values(json, t);
}

/* ---- a directory ------------------------------------------------------------------------------------------------------ */

/* Nothing says how: what transformers' class for this model does by default, or timm, at the model's own size. */
static cab_status assume(const cab_json *config, const char *directory, cab_image_transform *t)
{
    const family *f = family_of_model(config);
    int64_t size = t->size;
    if (f != NULL)
        apply_family(f, t);
    CAB_TRY(cab_json_int_or(config, NULL, "img_size", 1, SIZE_MAX_PIXELS, t->size, &size));
    CAB_TRY(cab_json_int_or(config, NULL, "image_size", 1, SIZE_MAX_PIXELS, size, &size));
    t->size = (int)size;
    cab_log_warn(
        "%s: nothing says how pictures are prepared (no preprocessor_config.json); assumed is %s: %s to %d pixels, "
        "%s, the middle %d, mean %g %g %g, std %g %g %g",
        directory, f != NULL ? "the default of transformers for this model" : "timm's default",
        t->resize == CAB_RESIZE_BOTH ? "both sides" : "the shorter side", cab_image_transform_edge(t),
        filter_names[t->filter], t->size, (double)t->mean[0], (double)t->mean[1], (double)t->mean[2], (double)t->std[0],
        (double)t->std[1], (double)t->std[2]);
    return CAB_OK;
}

/* The object that holds timm's keys, or NULL. *t takes what it says. */
static cab_status read_timm_config(const cab_json *config, json_object **timm, cab_image_transform *t)
{
    json_object *value = NULL;
    *timm = NULL;
    if (json_object_object_get_ex(config->root, "pretrained_cfg", &value) && value != NULL)
        CAB_TRY(cab_json_object(config, NULL, "pretrained_cfg", timm));
    else if (json_object_object_get_ex(config->root, "architecture", &value) && value != NULL)
        *timm = config->root;
    return *timm == NULL ? CAB_OK : read_timm(config, *timm, t);
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
    CAB_GOTO(read_timm_config(&config, &timm, t));
    CAB_GOTO(cab_path_join(path, directory, "preprocessor_config.json"));
    if (cab_path_exists(path)) {
        CAB_GOTO(cab_json_load(path, CONFIG_MAX, &preprocessor));
        status = read_transformers(&preprocessor, &config, timm != NULL, t);
    } else if (timm != NULL) {
        warn_of_missing(&config, timm, (const char *const[]){"interpolation", "mean", "std", NULL});
    } else {
        status = assume(&config, directory, t);
    }
done:
    cab_json_close(&config);
    cab_json_close(&preprocessor);
    return status;
}

/* ---- writing ---------------------------------------------------------------------------------------------------------- */

static json_object *triple(const float v[3])
{
    json_object *array = json_object_new_array();
    for (int i = 0; i < 3; i++) {
        char text[32];
        snprintf(text, sizeof text, "%.9g", (double)v[i]);
        json_object_array_add(array, json_object_new_double_s(strtod(text, NULL), text));
    }
    return array;
}

static json_object *square(int side)
{
    json_object *size = json_object_new_object();
    json_object_object_add(size, "height", json_object_new_int(side));
    json_object_object_add(size, "width", json_object_new_int(side));
    return size;
}

static void add_bool(json_object *json, const char *key, bool value)
{
    json_object_object_add(json, key, json_object_new_boolean(value));
}

cab_status cab_image_transform_save(const cab_image_transform *t, const char *directory)
{
    const bool both = t->resize == CAB_RESIZE_BOTH, kept = t->resize == CAB_RESIZE_NONE || t->resize == CAB_RESIZE_CROP;
    const int side = cab_image_transform_edge(t);
    char path[CAB_PATH_MAX];
    CAB_TRY(cab_path_join(path, directory, "preprocessor_config.json"));
    json_object *json = json_object_new_object(), *edge = json_object_new_object();
    json_object_object_add(edge, "shortest_edge", json_object_new_int(side));
    /* the class that does these steps in transformers */
    json_object_object_add(json, "image_processor_type",
                           json_object_new_string(both ? "DeiTImageProcessor" : "BitImageProcessor"));
    add_bool(json, "do_resize", !kept);
    json_object_object_add(json, "size", both ? square(side) : edge);
    json_object_object_add(json, "resample", json_object_new_int(resample_codes[t->filter]));
    add_bool(json, "do_center_crop", t->resize != CAB_RESIZE_NONE);
    json_object_object_add(json, "crop_size", square(t->size));
    add_bool(json, "do_rescale", true);
    json_object_object_add(json, "rescale_factor", json_object_new_double(1.0 / (double)t->divisor));
    add_bool(json, "do_normalize", true);
    json_object_object_add(json, "image_mean", triple(t->mean));
    json_object_object_add(json, "image_std", triple(t->std));
    cab_status status = cab_json_save(json, path);
    json_object_put(json);
    if (both)
        json_object_put(edge);
    return status;
}
