#include "models/inspect.h"

#include "base/json.h"
#include "base/log.h"
#include "models/model.h"
#include "ops/backends.h"

#include <inttypes.h>
#include <string.h>

enum { SHOWN = 1024 }; /* bytes of a name that are printed; names come from outside and may hold terminal escapes */

typedef struct facts {
    const cab_checkpoint *checkpoint;
    const char *type; /* model_type, or "unknown" */
    cab_model *model; /* NULL when it cannot be used */
    char reason[512]; /* then why */
    uint64_t elements, bytes, tensors;
} facts;

static void measure(facts *f)
{
    f->tensors = cab_checkpoint_count(f->checkpoint);
    for (size_t i = 0; i < f->tensors; i++) {
        const cab_safetensors_entry *e = cab_checkpoint_at(f->checkpoint, i);
        uint64_t n = 1;
        for (int d = 0; d < e->n_dim; d++)
            n *= (uint64_t)e->shape[d];
        f->elements += n;
        f->bytes += e->bytes;
    }
}

static void shape_text(const cab_safetensors_entry *e, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "(");
    for (int d = 0; d < e->n_dim && used < size; d++)
        used += (size_t)snprintf(out + used, size - used, "%s%" PRId64, d ? ", " : "", e->shape[d]);
    if (used < size)
        snprintf(out + used, size - used, ")");
}

static const char *role(const facts *f)
{
    if (f->model == NULL)
        return "neither";
    return f->model->arch->teacher ? "teacher" : "student";
}

static void print_sizes(const cab_config *c, FILE *out)
{
    const struct {
        const char *name;
        int value;
    } sizes[] = {{"layers", c->n_layer},
                 {"width", c->d_model},
                 {"mlp width", c->d_mlp},
                 {"heads", c->n_head},
                 {"key heads", c->n_kv_head},
                 {"head width", c->head_dim},
                 {"state per head", c->d_state},
                 {"convolution", c->d_conv},
                 {"grid convolution", c->grid_conv},
                 {"rotary features", c->rope.dim},
                 {"vocabulary", c->vocab_size},
                 {"context", c->max_length},
                 {"inner width", c->d_inner},
                 {"state-space heads", c->n_state_head},
                 {"groups", c->n_group},
                 {"image size", c->image_size},
                 {"patch size", c->patch_size},
                 {"classes", c->n_classes}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value > 0)
            fprintf(out, "%-18s%d\n", sizes[i].name, sizes[i].value);
}

static void print_text(const facts *f, const char *directory, FILE *out, bool tensors)
{
    char bytes[CAB_FORMAT_MAX], shape[160], name[SHOWN], type[SHOWN];
    fprintf(out, "%-18s%s\n%-18s%s\n", "model", directory, "architecture", cab_printable(f->type, type, sizeof type));
    if (f->model != NULL)
        print_sizes(&f->model->config, out);
    fprintf(out, "%-18s%" PRIu64 " in %" PRIu64 " tensors, %s\n", "parameters", f->elements, f->tensors,
            cab_format_bytes((double)f->bytes, bytes));
    fprintf(out, "%-18s%s%s%s\n", "usable as", role(f), f->model == NULL ? ": " : "", f->reason);
    for (size_t i = 0; tensors && i < f->tensors; i++) {
        const cab_safetensors_entry *e = cab_checkpoint_at(f->checkpoint, i);
        shape_text(e, shape, sizeof shape);
        fprintf(out, "  %-64s %-5s %s\n", cab_printable(e->name, name, sizeof name), e->dtype_name, shape);
    }
}

static json_object *tensor_list(const facts *f)
{
    json_object *list = json_object_new_array();
    for (size_t i = 0; i < f->tensors; i++) {
        const cab_safetensors_entry *e = cab_checkpoint_at(f->checkpoint, i);
        json_object *item = json_object_new_object(), *shape = json_object_new_array();
        json_object_object_add(item, "name", cab_json_text(e->name));
        json_object_object_add(item, "dtype", json_object_new_string(e->dtype_name));
        for (int d = 0; d < e->n_dim; d++)
            json_object_array_add(shape, json_object_new_int64(e->shape[d]));
        json_object_object_add(item, "shape", shape);
        json_object_array_add(list, item);
    }
    return list;
}

static void print_json(const facts *f, const char *directory, FILE *out, bool tensors)
{
    json_object *root = json_object_new_object();
    json_object_object_add(root, "model", cab_json_text(directory));
    json_object_object_add(root, "architecture", json_object_new_string(f->type));
    json_object_object_add(root, "parameters", json_object_new_int64((int64_t)f->elements));
    json_object_object_add(root, "bytes", json_object_new_int64((int64_t)f->bytes));
    json_object_object_add(root, "usable_as", json_object_new_string(role(f)));
    if (f->model == NULL)
        json_object_object_add(root, "reason", json_object_new_string(f->reason));
    json_object_object_add(root, "config", json_object_get(cab_checkpoint_config(f->checkpoint)->root));
    if (tensors)
        json_object_object_add(root, "tensors", tensor_list(f));
    fprintf(out, "%s\n", json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY));
    json_object_put(root);
}

cab_status cab_inspect(const char *directory, FILE *out, bool json, bool tensors)
{
    cab_checkpoint *checkpoint = NULL;
    cab_backend *backend = NULL;
    facts f = {.type = "unknown"};
    cab_status status;
    CAB_TRY(cab_checkpoint_open(directory, &checkpoint));
    f.checkpoint = checkpoint;
    measure(&f);
    CAB_GOTO(cab_backend_open("cpu", &backend));
    if (cab_architecture_name(cab_checkpoint_config(checkpoint), &f.type) != CAB_OK)
        f.type = "unknown";
    if (cab_model_open(directory, backend, CAB_PRECISION_BF16, false, &f.model) != CAB_OK)
        snprintf(f.reason, sizeof f.reason, "%s", cab_error_text());
    if (json)
        print_json(&f, directory, out, tensors);
    else
        print_text(&f, directory, out, tensors);
done:
    cab_model_free(f.model);
    cab_backend_close(backend);
    cab_checkpoint_close(checkpoint);
    return status;
}
