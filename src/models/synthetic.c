/* synthetic.c - random weights for models that are only timed: one block of numbers, repeated. */
#include "models/synthetic.h"

#include "base/json.h"
#include "base/memory.h"
#include "base/random.h"

#include <math.h>

enum { BLOCK = 1 << 20, CONFIG_MAX = 1 << 22 };

typedef struct source {
    float *uniform; /* BLOCK numbers in 0 .. 1 */
    float *values;
    void *converted;
} source;

static cab_status source_new(source *s)
{
    cab_random random = {.seed = 1, .stream = CAB_STREAM_TEST};
    CAB_TRY(CAB_NEW(&s->uniform, BLOCK, "random weights"));
    CAB_TRY(CAB_NEW(&s->values, BLOCK, "random weights"));
    CAB_TRY(cab_alloc(&s->converted, BLOCK, sizeof(float), "random weights"));
    for (int i = 0; i < BLOCK; i++)
        s->uniform[i] = cab_random_uniform(&random);
    return CAB_OK;
}

static cab_status fill(const cab_model *model, const source *s, cab_tensor *t)
{
    const float bound = t->n_dim == 1 ? 0.0f : 1.0f / sqrtf((float)cab_columns(t));
    const size_t n = (size_t)cab_elements(t), size = cab_dtype_size(t->dtype);
    for (int i = 0; i < BLOCK; i++)
        s->values[i] = t->n_dim == 1 ? s->uniform[i] : bound * (2.0f * s->uniform[i] - 1.0f);
    cab_convert(s->converted, t->dtype, s->values, CAB_F32, BLOCK);
    for (size_t done = 0; done < n; done += BLOCK) {
        const size_t part = n - done < BLOCK ? n - done : BLOCK;
        CAB_TRY(model->backend->upload(model->backend, (char *)t->data + done * size, s->converted, part * size));
    }
    return CAB_OK;
}

cab_status cab_model_randomise(cab_model *model)
{
    source s = {0};
    cab_status status;
    CAB_GOTO(source_new(&s));
    for (size_t i = 0; i < cab_params_count(model->params); i++)
        CAB_GOTO(fill(model, &s, cab_params_at(model->params, i)));
    status = cab_params_refresh(model->params);
done:
    cab_free(s.uniform);
    cab_free(s.values);
    cab_free(s.converted);
    return status;
}

/* What image teachers leave to their tensors: one class token, and as many classes as "num_labels" says. */
static cab_status complete(const cab_json *json, int image_size, cab_config *c)
{
    int64_t classes = 0;
    if (c->patch_size == 0)
        return CAB_OK;
    CAB_TRY(cab_json_int_or(json, NULL, "num_labels", 1, 1 << 24, 1000, &classes));
    if (c->n_classes == 0)
        c->n_classes = (int)classes;
    if (c->n_special == 0)
        c->n_special = 1;
    if (image_size > 0 && image_size % c->patch_size != 0)
        return cab_fail(CAB_ESHAPE, "%s: images of %d pixels do not divide into patches of %d", json->name, image_size,
                        c->patch_size);
    cab_config_set_image(c, image_size > 0 ? image_size : c->image_size);
    return CAB_OK;
}

cab_status cab_model_synthetic(const char *config_file, int image_size, cab_backend *backend, cab_precision precision,
                               bool trainable, cab_model **out)
{
    cab_json json = {0};
    cab_config config = {0};
    const cab_arch *arch = NULL;
    cab_status status;
    CAB_TRY(cab_json_load(config_file, CONFIG_MAX, &json));
    CAB_GOTO(cab_architecture_of(&json, &arch));
    CAB_GOTO(cab_architecture_configure(arch, &json, &config));
    CAB_GOTO(complete(&json, image_size, &config));
    CAB_GOTO(cab_model_create_as(arch, &config, backend, precision, trainable, out));
    status = cab_model_randomise(*out);
    if (status != CAB_OK) {
        cab_model_free(*out);
        *out = NULL;
    }
done:
    cab_json_close(&json);
    return status;
}
