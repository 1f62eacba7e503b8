/* export.c - cab export: a model as a file that llama.cpp opens, or a directory that transformers does. */
#include "models/export.h"

#include "base/file.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/find.h"
#include "distill/relayout.h"
#include "io/gguf.h"

#include <stdio.h>

#define EXPORT_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                        \
    TEXT(out, 'o', "FILE", "", "the file to write, .gguf")                                                             \
    TEXT(to, 0, "DIR", "", "the directory to write, in Hugging Face's layout: f32, f16 or bf16")                       \
    ENUM(layout, 0, "NAME", 0, "same|falcon-h1|granite-hybrid|own|mamba2|mamba",                                       \
         "with --to: the format to write a student in, if another can hold it")                                        \
    ENUM(type, 't', "NAME", 2, "f32|f16|bf16|q8_0|q4_0",                                                               \
         "numbers of matrices; norms, biases and convolutions are f32")                                                \
    TEXT(tokenizer, 0, "DIR", "", "where the tokenizer is, if not beside the model")                                   \
    BOOL(quiet, 'q', "no messages but warnings")

struct export_options {
    CAB_FIELDS(EXPORT_OPTIONS)
};
CAB_FLAG_TABLE(export_table, struct export_options, EXPORT_OPTIONS)

static const struct {
    const char *name;
    cab_dtype dtype;
} types[] = {{"f32", CAB_F32}, {"f16", CAB_F16}, {"bf16", CAB_BF16}, {"q8_0", CAB_Q8_0}, {"q4_0", CAB_Q4_0}};

/* Words of --layout but the first. */
static const char *const layouts[] = {"", "falcon-h1", "granite-hybrid", "own", "mamba2", "mamba"};

static cab_status write_model(const struct export_options *o, const cab_export *what, cab_exported *done)
{
    if (o->out[0] != '\0')
        return cab_export_gguf(what, o->out, done);
    return o->layout == 0 ? cab_export_directory(what, o->to, done)
                          : cab_relayout(what, layouts[o->layout], o->to, done);
}

static cab_status run_export(const void *given, const cab_list *operands)
{
    const struct export_options *o = given;
    char model[CAB_PATH_MAX], tokenizer[CAB_PATH_MAX];
    cab_exported done;
    cab_log_quiet(o->quiet);
    if ((o->out[0] != '\0') == (o->to[0] != '\0'))
        return cab_fail(CAB_EARG, "expected either --out FILE.gguf or --to DIR");
    if (o->layout != 0 && o->to[0] == '\0')
        return cab_fail(CAB_EARG, "--layout goes with --to DIR");
    if (o->out[0] != '\0' && !cab_gguf_named(o->out))
        return cab_fail(CAB_EARG, "--out: found \"%s\", expected the name of a file to write, model.gguf", o->out);
    CAB_TRY(cli_find_model(operands->items[0], model));
    CAB_TRY(cli_find_model(o->tokenizer, tokenizer));
    const cab_export what = {
        .model = model, .tokenizer = tokenizer[0] != '\0' ? tokenizer : NULL, .dtype = types[o->type].dtype};
    if (o->out[0] != '\0')
        CAB_TRY(cab_file_check_writable(o->out));
    CAB_TRY(write_model(o, &what, &done));
    printf("%s: %zu tensors, %s, %.1f MB\n", o->out[0] != '\0' ? o->out : o->to, done.tensors, types[o->type].name,
           (double)done.bytes / 1e6);
    if (done.wider > 0)
        printf("%zu matrices are f16: their rows are no multiple of 32\n", done.wider);
    return CAB_OK;
}

static const cli_example examples[] = {
    {"cab export path/to/model -o model.gguf", "bf16"},
    {"cab export path/to/model -o model.gguf --type q8_0", "8 bits"},
    {"cab export model.gguf -o small.gguf --type q4_0", "another file with fewer bits"},
    {"cab export model.gguf --to path/to/model", "a directory for transformers"},
    {"cab export runs/mine --to path/to/model --layout falcon-h1", "a student in another format"},
    {0}};

const cli_command cli_export = {
    .name = "export",
    .summary = "write a model for llama.cpp or transformers",
    .synopsis = "MODEL",
    .description =
        "Writes the model in directory MODEL, or the student of the run there, or another GGUF file, as a GGUF file "
        "with "
        "tokenizer and chat template. Written are models of model_type falcon_h1, granitemoehybrid, mamba2, mamba, "
        "llama, "
        "mistral, qwen2, qwen3, phi3, olmo2, smollm3, starcoder2, granite, gemma2 and gemma3_text. What llama.cpp "
        "would "
        "compute "
        "otherwise is refused by name. With --to it writes a directory that transformers opens: of any model that cab "
        "reads, a GGUF file "
        "above all. --layout writes a student with state-space mixers in another of the formats that can hold it, with "
        "the "
        "same results; what a format cannot hold is named. Tensors are read one after the other, so memory does not "
        "grow with the model.",
    .examples = examples,
    .options = export_table,
    .options_size = sizeof(struct export_options),
    .operands_min = 1,
    .operands_max = 1,
    .run = run_export,
};
