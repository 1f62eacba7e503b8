/* predictions.c - one image at a time through both models; the classes of the data alone are looked at. */
#include "train/predictions.h"

#include "base/base64.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "data/thumbnail.h"
#include "train/image_pick.h"
#include "train/image_scorer.h"

#include <math.h>
#include <string.h>

enum { THUMBNAIL = 128, ITEMS_MAX = 10000, FILE_MAX = 1 << 28 };

/* ---- asking ---------------------------------------------------------------------------------------------------------- */

/* One model, and what it says about an image. */
typedef struct voice {
    const cab_image_judge *judge; /* NULL: there is none */
    cab_image_scorer *scorer;
    double *shares; /* by label */
} voice;

typedef struct asker {
    voice student, teacher;
    cab_image_set *set;
    cab_image image;
    cab_image_scratch scratch;
} asker;

static cab_status open_voice(const cab_image_judge *judge, size_t classes, voice *v)
{
    v->judge = judge;
    if (judge == NULL)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&v->shares, classes, "probabilities"));
    return cab_image_scorer_new(judge->model, &judge->transform, 1, &v->scorer);
}

static void close_voice(voice *v)
{
    cab_image_scorer_free(v->scorer);
    cab_free(v->shares);
}

/* Fills in v->shares for the asker's image. */
static cab_status ask(asker *a, voice *v)
{
    const size_t classes = cab_image_set_classes(a->set)->count;
    const int32_t *map = v->judge->classes;
    const float *logits;
    double most = -INFINITY, sum = 0;
    CAB_TRY(cab_image_transform_crop(&v->judge->transform, &a->scratch, &a->image, &a->scratch.image));
    CAB_TRY(cab_image_scorer_run(v->scorer, a->scratch.image.pixels, &logits));
    for (size_t c = 0; c < classes; c++) {
        v->shares[c] = (double)logits[map != NULL ? (size_t)map[c] : c];
        most = fmax(most, v->shares[c]);
    }
    for (size_t c = 0; c < classes; c++) {
        v->shares[c] = exp(v->shares[c] - most);
        sum += v->shares[c];
    }
    for (size_t c = 0; c < classes; c++)
        v->shares[c] /= sum;
    return isfinite(sum) ? CAB_OK : cab_fail(CAB_ENUMERIC, "a logit is not finite");
}

static cab_status name_class(const cab_classes *classes, int label, double probability, cab_predicted *out)
{
    char caption[CAB_CAPTION_MAX];
    out->label = label;
    out->probability = probability;
    return cab_strdup(&out->name, cab_class_caption(classes, label, caption));
}

/* The likeliest classes, and takes them off v->shares. */
static cab_status take_top(const cab_classes *classes, voice *v, int n, cab_predicted *top)
{
    for (int k = 0; k < n; k++) {
        size_t best = 0;
        for (size_t c = 1; c < classes->count; c++)
            best = v->shares[c] > v->shares[best] ? c : best;
        CAB_TRY(name_class(classes, (int)best, v->shares[best], &top[k]));
        v->shares[best] = -1;
    }
    return CAB_OK;
}

static cab_status predict(asker *a, size_t i, size_t n, cab_prediction *out)
{
    const cab_classes *classes = cab_image_set_classes(a->set);
    char path[CAB_PATH_MAX];
    uint64_t index;
    CAB_TRY(cab_image_pick(a->set, i, n, &a->image, &index));
    cab_image_set_name(a->set, index, path);
    CAB_TRY(cab_strdup(&out->name, cab_path_name(path)));
    CAB_TRY(cab_thumbnail(&a->image, &a->student.judge->transform, &a->scratch, THUMBNAIL, &out->thumbnail));
    CAB_TRY(ask(a, &a->student));
    const int32_t label = cab_image_set_label(a->set, index);
    CAB_TRY(name_class(classes, label, a->student.shares[label], &out->truth));
    out->n_top = classes->count < CAB_PREDICTIONS_TOP ? (int)classes->count : CAB_PREDICTIONS_TOP;
    CAB_TRY(take_top(classes, &a->student, out->n_top, out->top));
    if (a->teacher.judge == NULL)
        return CAB_OK;
    CAB_TRY(ask(a, &a->teacher));
    out->taught = true;
    return take_top(classes, &a->teacher, 1, &out->teacher);
}

/* ---- predictions.json ------------------------------------------------------------------------------------------------ */

static json_object *predicted_json(const cab_predicted *p)
{
    json_object *object = json_object_new_object();
    json_object_object_add(object, "label", json_object_new_int(p->label));
    json_object_object_add(object, "class", cab_json_text(p->name));
    json_object_object_add(object, "probability", json_object_new_double(p->probability));
    return object;
}

static cab_status save(const cab_predictions *predictions, const char *path)
{
    json_object *root = json_object_new_object(), *images = json_object_new_array();
    for (size_t i = 0; i < predictions->count; i++) {
        const cab_prediction *p = &predictions->items[i];
        json_object *image = json_object_new_object(), *top = json_object_new_array();
        json_object_object_add(image, "name", cab_json_text(p->name));
        json_object_object_add(image, "thumbnail", json_object_new_string(p->thumbnail));
        json_object_object_add(image, "truth", predicted_json(&p->truth));
        for (int k = 0; k < p->n_top; k++)
            json_object_array_add(top, predicted_json(&p->top[k]));
        json_object_object_add(image, "predictions", top);
        if (p->taught)
            json_object_object_add(image, "teacher", predicted_json(&p->teacher));
        json_object_array_add(images, image);
    }
    json_object_object_add(root, "images", images);
    cab_status status = cab_json_save(root, path);
    json_object_put(root);
    return status;
}

cab_status cab_predictions_write(const char *directory, const cab_image_judge *student, const cab_image_judge *teacher,
                                 cab_image_set *set, size_t count)
{
    const size_t classes = cab_image_set_classes(set)->count;
    const uint64_t images = cab_image_set_count(set);
    asker a = {.set = set};
    cab_predictions predictions = {.count = count < images ? count : (size_t)images};
    char path[CAB_PATH_MAX];
    cab_status status;
    CAB_GOTO(cab_path_join(path, directory, CAB_RUN_PREDICTIONS));
    CAB_GOTO(CAB_NEW(&predictions.items, predictions.count, "predictions"));
    CAB_GOTO(open_voice(student, classes, &a.student));
    CAB_GOTO(open_voice(teacher, classes, &a.teacher));
    for (size_t i = 0; i < predictions.count; i++)
        CAB_GOTO(predict(&a, i, predictions.count, &predictions.items[i]));
    status = save(&predictions, path);
done:
    cab_image_free(&a.image);
    cab_image_scratch_free(&a.scratch);
    close_voice(&a.student);
    close_voice(&a.teacher);
    cab_predictions_free(&predictions);
    return status;
}

static cab_status read_predicted(const cab_json *json, json_object *object, cab_predicted *out)
{
    const char *name;
    int64_t label;
    CAB_TRY(cab_json_int(json, object, "label", 0, INT32_MAX, &label));
    CAB_TRY(cab_json_string(json, object, "class", &name));
    CAB_TRY(cab_json_number(json, object, "probability", &out->probability));
    if (!(out->probability >= 0 && out->probability <= 1.01)) /* rounding may pass 1 */
        return cab_fail(CAB_EFORMAT, "%s: \"probability\": found %g, expected 0 to 1", json->name, out->probability);
    out->label = (int)label;
    return cab_strdup(&out->name, name);
}

static cab_status expect_object(const cab_json *json, const char *what, size_t i, json_object *object)
{
    if (json_object_is_type(object, json_type_object))
        return CAB_OK;
    return cab_fail(CAB_EFORMAT, "%s: \"%s\"[%zu] is no object", json->name, what, i);
}

static cab_status read_prediction(const cab_json *json, json_object *object, cab_prediction *out)
{
    json_object *part;
    const char *name, *thumbnail;
    CAB_TRY(cab_json_string(json, object, "name", &name));
    CAB_TRY(cab_json_string(json, object, "thumbnail", &thumbnail));
    if (!cab_base64_check(thumbnail))
        return cab_fail(CAB_EFORMAT, "%s: \"thumbnail\" is not base64", json->name);
    CAB_TRY(cab_strdup(&out->name, name));
    CAB_TRY(cab_strdup(&out->thumbnail, thumbnail));
    CAB_TRY(cab_json_object(json, object, "truth", &part));
    CAB_TRY(read_predicted(json, part, &out->truth));
    CAB_TRY(cab_json_array(json, object, "predictions", &part));
    for (size_t k = 0; k < json_object_array_length(part) && k < CAB_PREDICTIONS_TOP; k++) {
        json_object *one = json_object_array_get_idx(part, k);
        CAB_TRY(expect_object(json, "predictions", k, one));
        CAB_TRY(read_predicted(json, one, &out->top[out->n_top++]));
    }
    out->taught = json_object_object_get_ex(object, "teacher", &part);
    if (!out->taught)
        return CAB_OK;
    CAB_TRY(cab_json_object(json, object, "teacher", &part));
    return read_predicted(json, part, &out->teacher);
}

static cab_status read_all(const cab_json *json, cab_predictions *out)
{
    json_object *images;
    CAB_TRY(cab_json_array(json, NULL, "images", &images));
    const size_t count = json_object_array_length(images);
    if (count > ITEMS_MAX)
        return cab_fail(CAB_EFORMAT, "%s: %zu images, expected at most %d", json->name, count, ITEMS_MAX);
    CAB_TRY(CAB_NEW(&out->items, count, "predictions"));
    for (size_t i = 0; i < count; i++) {
        json_object *image = json_object_array_get_idx(images, i);
        CAB_TRY(expect_object(json, "images", i, image));
        CAB_TRY(read_prediction(json, image, &out->items[out->count++]));
    }
    return CAB_OK;
}

cab_status cab_predictions_load(const char *path, cab_predictions *out)
{
    cab_json json = {0};
    CAB_TRY(cab_json_load(path, FILE_MAX, &json));
    cab_status status = read_all(&json, out);
    cab_json_close(&json);
    return status;
}

void cab_predictions_free(cab_predictions *predictions)
{
    for (size_t i = 0; predictions->items != NULL && i < predictions->count; i++) {
        cab_prediction *p = &predictions->items[i];
        cab_free(p->name);
        cab_free(p->thumbnail);
        cab_free(p->truth.name);
        cab_free(p->teacher.name);
        for (int k = 0; k < CAB_PREDICTIONS_TOP; k++)
            cab_free(p->top[k].name);
    }
    cab_free(predictions->items);
    *predictions = (cab_predictions){0};
}
