/* bench.c - cab bench: how fast this machine trains and decodes models of given sizes. */
#include "base/thread.h"
#include "cli/command.h"
#include "cli/find.h"
#include "cli/ranks.h"
#include "cli/results.h"
#include "models/model.h"
#include "train/decode_timer.h"
#include "train/forward_timer.h"
#include "train/run_timer.h"
#include "train/step_timer.h"

#include <string.h>

#define BENCH_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                         \
    TEXT(teacher, 't', "DIR", "", "teacher to time with")                                                              \
    TEXT(teacher_config, 0, "FILE", "", "or a config.json alone: random weights of those sizes")                       \
    TEXT(student, 's', "DIR", "", "decode, forward: student to time, or the run that has it")                          \
    TEXT(student_config, 0, "FILE", "", "config.json of the student; text: of the teacher's sizes without one")        \
    INT(layers, 0, "N", 0, 0, 1024, "layers of a student made after the teacher; 0: as many")                          \
    ENUM(stage, 0, "NAME", 2, "align|soft|joint", "step: which terms it has")                                          \
    INTS(batch, 'b', "N,...", "sequences or images (default 16); decode: several (default 1,32,256)")                  \
    INT(seq_len, 'l', "L", 0, 0, 1048576,                                                                              \
        "step, forward: tokens per sequence; 0: the context, forward: at most 1024 of it")                             \
    INTS(length, 0, "L,...", "decode: tokens before (default 0,1024,4096, the context's end, twice that)")             \
    INTS(image_size, 0, "PX,...",                                                                                      \
         "step: pixels of a side (default the teacher's); forward: several (default 224,448,896,1792)")                \
    ENUM(precision, 'p', "NAME", 0, "auto|fp32|bf16|as-is",                                                            \
         "activations and matrix inputs; forward: as-is: matrices of a .gguf file stay as quantised as they are")      \
    ENUM(teacher_precision, 0, "NAME", 0, "auto|fp8", "step: fp8: the teacher's layers multiply 8-bit floats")         \
    TEXT(device, 0, "NAME", "cpu", "cpu or cuda")                                                                      \
    INT(threads, 0, "N", 0, 0, 1024, "processor threads; 0: all this process may use")                                 \
    INT(steps, 'n', "N", 0, 0, 100000, "steps that are timed, after some to warm up; 0: 3, decode: 32, run: 50")       \
    INT(recompute, 0, "N", 0, 0, 1024, "step: layers of the student that are computed again in the backward pass")     \
    LIST(set, 's', "KEY=VALUE", "run: override a key of the recipe")                                                   \
    TEXT(out, 'o', "FILE", "", CLI_OUT_HELP)                                                                           \
    BOOL(nodes, 0, "step: a line for every node as well")                                                              \
    BOOL(shard, 0, "step, of several ranks: AdamW's moments are divided among them")

struct bench_options {
    CAB_FIELDS(BENCH_OPTIONS)
};
CAB_FLAG_TABLE(bench_table, struct bench_options, BENCH_OPTIONS)

static const char *given_or_null(const char *text)
{
    return text[0] != '\0' ? text : NULL;
}

static cab_precision precision_of(const struct bench_options *o)
{
    const cab_precision fitting = cab_precision_auto(o->device);
    const cab_precision precisions[] = {fitting, CAB_PRECISION_FP32, CAB_PRECISION_BF16, fitting | CAB_PRECISION_AS_IS};
    return precisions[o->precision];
}

static cab_status check_batch(const struct bench_options *o)
{
    if (o->batch.count > 1 || (o->batch.count == 1 && (o->batch.items[0] < 1 || o->batch.items[0] > 1048576)))
        return cab_fail(CAB_EARG, "--batch: expected one number from 1 to 1048576");
    return CAB_OK;
}

static cab_status check_sizes(const struct bench_options *o)
{
    for (unsigned i = 0; i < o->image_size.count; i++)
        if (o->image_size.items[i] < 1 || o->image_size.items[i] > 4096)
            return cab_fail(CAB_EARG, "--image-size: found %lld, expected 1 to 4096 pixels",
                            (long long)o->image_size.items[i]);
    return CAB_OK;
}

static cab_status time_step(const struct bench_options *o, cab_communicator *ranks, FILE *out)
{
    if (o->out[0] != '\0' && cab_communicator_size(ranks) > 1)
        return cab_fail(CAB_EARG, "--out is for one process, this is one of %d", cab_communicator_size(ranks));
    if ((o->teacher[0] == '\0') == (o->teacher_config[0] == '\0'))
        return cab_fail(CAB_EARG, "give either --teacher=DIR or --teacher-config=FILE");
    if (o->student[0] != '\0' || o->length.count > 0)
        return cab_fail(CAB_EARG, "--%s is an option of decode", o->student[0] != '\0' ? "student" : "length");
    CAB_TRY(check_batch(o));
    if (o->image_size.count > 1)
        return cab_fail(CAB_EARG, "--image-size: expected one number of pixels");
    CAB_TRY(check_sizes(o));
    const cab_step_options options = {.teacher = given_or_null(o->teacher),
                                      .teacher_config = given_or_null(o->teacher_config),
                                      .student_config = given_or_null(o->student_config),
                                      .n_layer = (int)o->layers,
                                      .device = o->device,
                                      .precision = precision_of(o),
                                      .teacher_fp8 = o->teacher_precision == 1,
                                      .stage = (cab_step_stage)o->stage,
                                      .batch = o->batch.count == 1 ? o->batch.items[0] : 16,
                                      .seq_len = o->seq_len,
                                      .image_size = o->image_size.count == 1 ? (int)o->image_size.items[0] : 0,
                                      .steps = o->steps > 0 ? (int)o->steps : 3,
                                      .recompute = (int)o->recompute,
                                      .nodes = o->nodes,
                                      .communicator = ranks,
                                      .divided = o->shard};
    return cab_step_time(&options, out);
}

/* Of several ranks all of them together, if they were started so. */
static cab_status run_step(const struct bench_options *o, const cab_list *operands, FILE *out)
{
    cab_communicator *ranks = NULL;
    (void)operands;
    CAB_TRY(cab_communicator_open(&ranks));
    const cab_status status = time_step(o, ranks, out);
    cli_leave_ranks(ranks, status);
    return status;
}

static cab_status run_decode(const struct bench_options *o, const cab_list *operands, FILE *out)
{
    (void)operands;
    char teacher[CAB_PATH_MAX], student[CAB_PATH_MAX];
    static const int64_t usual[] = {1, 32, 256};
    if ((o->teacher[0] != '\0' && o->teacher_config[0] != '\0') ||
        (o->student[0] != '\0' && o->student_config[0] != '\0'))
        return cab_fail(CAB_EARG, "give a directory or a config.json of a model, not both");
    CAB_TRY(cli_find_model(o->teacher, teacher));
    CAB_TRY(cli_find_model(o->student, student));
    const cab_decode_timer_options options = {.teacher = given_or_null(teacher),
                                              .teacher_config = given_or_null(o->teacher_config),
                                              .student = given_or_null(student),
                                              .student_config = given_or_null(o->student_config),
                                              .n_layer = (int)o->layers,
                                              .device = o->device,
                                              .precision = precision_of(o),
                                              .batches = o->batch.count > 0 ? o->batch.items : usual,
                                              .n_batches = o->batch.count > 0 ? o->batch.count : 3,
                                              .positions = o->length.items,
                                              .n_positions = o->length.count,
                                              .steps = o->steps > 0 ? (int)o->steps : 32};
    return cab_decode_time(&options, out);
}

static cab_status bench_recipe(const struct bench_options *o, const cab_list *operands, FILE *out)
{
    char path[CAB_PATH_MAX];
    cab_recipe *recipe = NULL;
    cab_status status;
    if (operands->count != 2)
        return cab_fail(CAB_EARG, "bench run: expected a recipe");
    CAB_TRY(cli_find_recipe(operands->items[1], path));
    CAB_TRY(cab_recipe_load(path, &recipe));
    if (strcmp(o->device, "cpu") != 0)
        CAB_GOTO(cab_recipe_set(recipe, "device", o->device));
    for (unsigned i = 0; i < o->set.count; i++)
        CAB_GOTO(cli_recipe_set(recipe, o->set.items[i]));
    status = cab_run_time(recipe, o->steps > 0 ? (int)o->steps : 50, out);
done:
    cab_recipe_free(recipe);
    return status;
}

/* The models that are given, one after the other. */
static cab_status run_forward(const struct bench_options *o, const cab_list *operands, FILE *out)
{
    (void)operands;
    char teacher[CAB_PATH_MAX], student[CAB_PATH_MAX];
    static const int64_t usual[] = {224, 448, 896, 1792};
    CAB_TRY(check_batch(o));
    CAB_TRY(check_sizes(o));
    CAB_TRY(cli_find_model(o->teacher, teacher));
    CAB_TRY(cli_find_model(o->student, student));
    const char *const models[4][2] = {{given_or_null(teacher), NULL},
                                      {NULL, given_or_null(o->teacher_config)},
                                      {given_or_null(student), NULL},
                                      {NULL, given_or_null(o->student_config)}};
    bool any = false;
    for (int i = 0; i < 4; i++) {
        const cab_forward_timer_options options = {.model = models[i][0],
                                                   .config = models[i][1],
                                                   .device = o->device,
                                                   .precision = precision_of(o),
                                                   .batch = o->batch.count == 1 ? o->batch.items[0] : 16,
                                                   .seq_len = o->seq_len,
                                                   .sizes = o->image_size.count > 0 ? o->image_size.items : usual,
                                                   .n_size = o->image_size.count > 0 ? o->image_size.count : 4,
                                                   .steps = o->steps > 0 ? (int)o->steps : 3};
        if (options.model == NULL && options.config == NULL)
            continue;
        any = true;
        CAB_TRY(cab_forward_time(&options, out));
    }
    return any ? CAB_OK : cab_fail(CAB_EARG, "give a model: --teacher, --student, or a config.json of either");
}

static cab_status run_bench(const void *given, const cab_list *operands)
{
    const struct bench_options *o = given;
    cli_results results;
    static const struct {
        const char *name;
        cab_status (*run)(const struct bench_options *o, const cab_list *operands, FILE *out);
    } kinds[] = {{"run", bench_recipe}, {"step", run_step}, {"decode", run_decode}, {"forward", run_forward}};
    enum { FORWARD = 3, KINDS = sizeof kinds / sizeof *kinds, AS_IS = 3 };
    size_t kind = 0;
    while (kind < KINDS && strcmp(operands->items[0], kinds[kind].name) != 0)
        kind++;
    if (kind == KINDS)
        return cab_fail(CAB_EARG, "found \"%.40s\", expected run, step, decode or forward", operands->items[0]);
    if (kind != FORWARD && o->precision == AS_IS)
        return cab_fail(CAB_EARG, "--precision as-is is for bench forward");
    if (kind > 0 && (operands->count > 1 || o->set.count > 0))
        return cab_fail(CAB_EARG, "a recipe and --set are for bench run");
    if (o->threads)
        cab_thread_limit((int)o->threads);
    CAB_TRY(cli_results_open(&results, o->out));
    return cli_results_close(&results, kinds[kind].run(o, operands, results.stream));
}

static const cli_example examples[] = {
    {"cab bench run vit-tiny-vim-best --device cuda", "a recipe's run from end to end, beside its steps alone"},
    {"cab bench step --teacher examples/tales/teacher --seq-len 256 --batch 8", "the demo's step"},
    {"cab bench step --teacher-config vit.json --student-config vim.json --batch 128 --device cuda",
     "a step of images on the GPU, from sizes alone"},
    {"cab bench decode --teacher examples/tales/teacher --batch 1,32", "generating, beside a student of those sizes"},
    {"cab bench forward --teacher vit-tiny --student runs/in-place --batch 1",
     "from which size on the student is faster"},
    {"cab bench forward --teacher smollm2.gguf --seq-len 1024 --precision as-is --device cuda",
     "a quantised teacher's pass, beside its products alone"},
    {0}};

const cli_command cli_bench = {
    .name = "bench",
    .summary = "time a recipe's run, a training step, decoding, or a forward pass",
    .synopsis = "run RECIPE|step|decode|forward",
    .description =
        "run opens what a recipe's run opens and takes steps of its last stage, with their data; then as "
        "many that compute one batch again and again. It prints tokens or images per second of both, and "
        "how much of the time went to waiting for data (loader), to the host's own work, and to the device. "
        "No run is left.\n\n"
        "step times training steps of a teacher and a student on this machine and prints milliseconds, "
        "tokens or images "
        "per second, memory, the share of the measured matrix rate, and the time by op.\n\n"
        "decode generates text with a student and with its teacher, which keeps its keys and values, and "
        "prints for every "
        "batch and length tokens per second, milliseconds, the bytes of state or cache, and the share of "
        "the measured copy "
        "rate at which these and the weights are read.\n\n"
        "forward sends images through each of the given models and prints for every size of images the "
        "tokens, milliseconds, "
        "images per second, and memory of activations. Of a model of text it prints the time of a pass, logits "
        "included, beside that of the products of its linear layers alone, each shape timed back to back in the same "
        "run: "
        "their ratio is how near the pass comes to the matrix rate that its shapes allow.\n\n"
        "step, decode and forward need no checkpoint: a config.json stands for a model of random weights.\n\n"
        "Started by mpirun, srun or torchrun, step is of all ranks together: --batch is the whole batch.",
    .examples = examples,
    .options = bench_table,
    .options_size = sizeof(struct bench_options),
    .operands_min = 1,
    .operands_max = 2,
    .run = run_bench,
};
