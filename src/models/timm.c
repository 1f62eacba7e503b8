#include "models/timm.h"

#include "models/architectures.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Arguments of timm's VisionTransformer. */
static const cab_setting arguments[] = {{"act_layer", NULL},
                                        {"attn_drop_rate", NULL},
                                        {"class_token", "true"},
                                        {"depth", NULL},
                                        {"drop_path_rate", NULL},
                                        {"drop_rate", NULL},
                                        {"dynamic_img_pad", "false"},
                                        {"dynamic_img_size", NULL},
                                        {"embed_dim", NULL},
                                        {"fc_norm", "false"},
                                        {"final_norm", "true"},
                                        {"fix_init", NULL},
                                        {"global_pool", "\"token\""},
                                        {"img_size", NULL},
                                        {"in_chans", "3"},
                                        {"init_values", "null"},
                                        {"mlp_ratio", NULL},
                                        {"no_embed_class", "false"},
                                        {"norm_layer", "null"},
                                        {"num_classes", NULL},
                                        {"num_heads", NULL},
                                        {"patch_drop_rate", NULL},
                                        {"patch_size", NULL},
                                        {"pool_include_prefix", "false"},
                                        {"pos_drop_rate", NULL},
                                        {"pos_embed", "\"learn\""},
                                        {"pre_norm", "false"},
                                        {"proj_bias", "true"},
                                        {"proj_drop_rate", NULL},
                                        {"qk_norm", "false"},
                                        {"qkv_bias", NULL},
                                        {"reg_tokens", "0"},
                                        {"representation_size", "null"},
                                        {"scale_attn_norm", "false"},
                                        {"scale_mlp_norm", "false"},
                                        {"strict_img_size", NULL},
                                        {"weight_init", NULL},
                                        {NULL, NULL}};
static const cab_setting *const argument_tables[] = {arguments, NULL};

/* What timm notes beside the arguments and computes with. */
static const cab_setting notes[] = {{"global_pool", "\"token\""}, {"in_chans", "3"}, {NULL, NULL}};
static const cab_setting *const note_tables[] = {notes, NULL};

/* "model_args", or NULL. */
static cab_status find_arguments(const cab_json *json, json_object **out)
{
    *out = NULL;
    if (!json_object_object_get_ex(json->root, "model_args", out) || *out == NULL)
        return CAB_OK;
    return cab_json_object(json, NULL, "model_args", out);
}

/* Whether a part of a name, between two '_', leaves the model a plain one: "patch16", "384", "in21k" ... */
static bool is_plain(const char *word, size_t length)
{
    static const char *const words[] = {"vit", "deit", "tiny",  "small", "base", "large", "huge", "distilled", "augreg",
                                        "ft",  "in1k", "in21k", "in22k", "dino", "mae",   "miil", "sam"};
    const char *digits = length > 5 && strncmp(word, "patch", 5) == 0 ? word + 5 : word;
    size_t n = 0;
    while (digits + n < word + length && isdigit((unsigned char)digits[n]))
        n++;
    if (n > 0 && digits + n == word + length)
        return true;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strlen(words[i]) == length && strncmp(words[i], word, length) == 0)
            return true;
    return false;
}

/* Names say what no argument and no tensor does: "quickgelu", "rpn" ... What follows a '.' only names the weights. */
static cab_status check_name(const cab_json *json, const char *name)
{
    const char *end = name + strcspn(name, ".");
    for (const char *word = name; word < end;) {
        const size_t length = strcspn(word, "_."), whole = word + length > end ? (size_t)(end - word) : length;
        if (!is_plain(word, whole))
            return cab_fail(
                CAB_EUNSUPPORTED,
                "%s: \"architecture\" is \"%s\": of timm's, vit and deit in tiny, small, base, large and huge "
                "are supported, \"%.*s\" is another variant",
                json->name, name, (int)whole, word);
        word += whole + 1;
    }
    return CAB_OK;
}

/* Heads are the one size that no tensor shows. */
static cab_status parse_heads(const cab_json *json, json_object *given, const char *name, cab_config *c)
{
    static const struct {
        const char *size;
        int n_head;
    } known[] = {{"_tiny_", 3}, {"_small_", 6}, {"_base_", 12}, {"_large_", 16}, {"_huge_", 16}};
    int64_t n_head = 0;
    if (given != NULL)
        CAB_TRY(cab_json_int_or(json, given, "num_heads", 1, 1024, 0, &n_head));
    for (size_t i = 0; n_head == 0 && i < sizeof known / sizeof *known; i++)
        if (strstr(name, known[i].size) != NULL)
            n_head = known[i].n_head;
    c->n_head = c->n_kv_head = (int)n_head;
    if (n_head > 0)
        return CAB_OK;
    return cab_fail(
        CAB_EUNSUPPORTED,
        "%s: \"architecture\" is \"%s\", which tells no number of heads; of timm's, tiny, small, base, large "
        "and huge are supported",
        json->name, name);
}

static cab_status parse_activation(const cab_json *json, json_object *given, cab_config *c)
{
    static const struct {
        const char *name;
        cab_activation_kind kind;
    } known[] = {{"gelu", CAB_GELU_ERF}, {"gelu_erf", CAB_GELU_ERF}, {"gelu_tanh", CAB_GELU_TANH},
                 {"relu", CAB_RELU},     {"silu", CAB_SILU},         {"swish", CAB_SILU},
                 {"tanh", CAB_TANH}};
    const char *name = NULL;
    c->activation = CAB_GELU_ERF;
    if (given != NULL)
        CAB_TRY(cab_json_string_or(json, given, "act_layer", NULL, &name));
    for (size_t i = 0; name != NULL && i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0) {
            c->activation = known[i].kind;
            return CAB_OK;
        }
    if (name == NULL)
        return CAB_OK;
    return cab_fail(CAB_EUNSUPPORTED, "%s: \"act_layer\" is \"%s\"; supported are gelu, gelu_tanh, relu, silu, tanh",
                    json->name, name);
}

cab_status cab_timm_configure(const cab_json *json, cab_config *c)
{
    const char *name = NULL;
    json_object *given = NULL;
    CAB_TRY(cab_json_string(json, NULL, "architecture", &name));
    CAB_TRY(find_arguments(json, &given));
    CAB_TRY(cab_settings_check(json, NULL, note_tables, false));
    if (given != NULL)
        CAB_TRY(cab_settings_check(json, given, argument_tables, true));
    CAB_TRY(check_name(json, name));
    c->timm = true;
    c->norm_eps = 1e-6;
    CAB_TRY(parse_activation(json, given, c));
    return parse_heads(json, given, name, c);
}

/* ---- the tensors ------------------------------------------------------------------------------------------------------ */

/* An argument that states a size, a number or a pair of equal ones, against the tensors. */
static cab_status check_size(const cab_json *json, json_object *object, const char *key, int64_t found)
{
    json_object *value = NULL;
    if (object == NULL || !json_object_object_get_ex(object, key, &value) || value == NULL)
        return CAB_OK;
    const bool list = json_object_is_type(value, json_type_array);
    const size_t n = list ? json_object_array_length(value) : 1;
    bool same = n > 0;
    for (size_t i = 0; same && i < n && i < 2; i++) { /* the last two: [3, 224, 224] is channels, height, width */
        json_object *size = list ? json_object_array_get_idx(value, n - 1 - i) : value;
        same = json_object_is_type(size, json_type_int) && json_object_get_int64(size) == found;
    }
    if (same)
        return CAB_OK;
    return cab_fail(CAB_ESHAPE, "%s: \"%s\" is %.80s, but the tensors are those of %lld", json->name, key,
                    json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN), (long long)found);
}

/* The size of images that timm would make the model for: the argument's, or what the weights were trained with. */
static cab_status check_image(const cab_json *json, json_object *given, const cab_config *c)
{
    json_object *value = NULL, *trained = NULL;
    if (given != NULL && json_object_object_get_ex(given, "img_size", &value) && value != NULL)
        return check_size(json, given, "img_size", c->image_size);
    if (json_object_object_get_ex(json->root, "pretrained_cfg", &trained) && trained != NULL)
        CAB_TRY(cab_json_object(json, NULL, "pretrained_cfg", &trained));
    return check_size(json, trained != NULL ? trained : json->root, "input_size", c->image_size);
}

static cab_status check_arguments(const cab_json *json, const cab_config *c)
{
    json_object *given = NULL;
    double ratio = 0;
    CAB_TRY(find_arguments(json, &given));
    CAB_TRY(check_image(json, given, c));
    if (given == NULL)
        return CAB_OK;
    CAB_TRY(check_size(json, given, "num_classes", c->n_classes));
    CAB_TRY(check_size(json, given, "embed_dim", c->d_model));
    CAB_TRY(check_size(json, given, "depth", c->n_layer));
    CAB_TRY(check_size(json, given, "patch_size", c->patch_size));
    CAB_TRY(cab_json_number_or(json, given, "mlp_ratio", (double)c->d_mlp / c->d_model, &ratio));
    if (!(fabs(ratio * c->d_model - c->d_mlp) < 1)) /* timm rounds down */
        return cab_fail(CAB_ESHAPE, "%s: \"mlp_ratio\" is %g, but the tensors are those of %g", json->name, ratio,
                        (double)c->d_mlp / c->d_model);
    return CAB_OK;
}

/* The bias of Q, K and V: "qkv_bias", or what the weights of that name have. */
static cab_status parse_bias(const cab_checkpoint *source, cab_config *c)
{
    const cab_json *json = cab_checkpoint_config(source);
    json_object *given = NULL;
    CAB_TRY(find_arguments(json, &given));
    c->qkv_bias = cab_checkpoint_has(source, "blocks.0.attn.qkv.bias");
    return given == NULL ? CAB_OK : cab_json_bool_or(json, given, "qkv_bias", c->qkv_bias, &c->qkv_bias);
}

cab_status cab_timm_measure(const cab_checkpoint *source, cab_config *c)
{
    const cab_safetensors_entry *patch, *positions, *fc1;
    char name[CAB_NAME_MAX] = "blocks.0.norm1.weight";
    CAB_TRY(cab_checkpoint_need(source, "patch_embed.proj.weight", 4, &patch));
    CAB_TRY(cab_checkpoint_need(source, "pos_embed", 3, &positions));
    CAB_TRY(cab_checkpoint_need(source, "blocks.0.mlp.fc1.weight", 2, &fc1));
    while (c->n_layer < 1024 && cab_checkpoint_has(source, name))
        snprintf(name, sizeof name, "blocks.%d.norm1.weight", ++c->n_layer);
    const int64_t patches = positions->shape[1] - c->n_special;
    const int64_t grid = patches > 0 ? (int64_t)(sqrt((double)patches) + 0.5) : 0;
    if (patch->shape[0] > 1 << 16 || patch->shape[0] % c->n_head != 0 || patch->shape[2] > CAB_IMAGE_MAX || grid < 1 ||
        grid * grid != patches || grid * patch->shape[2] > CAB_IMAGE_MAX || fc1->shape[0] > 1 << 18)
        return cab_fail(CAB_ESHAPE,
                        "%s: width %lld in %d heads, patches of %lld, %lld rows in \"pos_embed\": expected heads that "
                        "divide the width and a square grid",
                        patch->file, (long long)patch->shape[0], c->n_head, (long long)patch->shape[2],
                        (long long)positions->shape[1]);
    c->d_model = (int)patch->shape[0];
    c->head_dim = c->d_model / c->n_head;
    c->d_mlp = (int)fc1->shape[0];
    c->patch_size = (int)patch->shape[2];
    c->image_size = (int)(grid * patch->shape[2]);
    CAB_TRY(parse_bias(source, c));
    return check_arguments(cab_checkpoint_config(source), c);
}
