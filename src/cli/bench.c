/* bench.c - cab bench: how fast this machine trains given sizes. */
#include "base/thread.h"
#include "cli/command.h"
#include "models/model.h"
#include "train/step_timer.h"

#include <string.h>

#define BENCH_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                         \
    TEXT(teacher, 't', "DIR", "", "teacher to time with")                                                              \
    TEXT(teacher_config, 0, "FILE", "", "or a config.json alone: random weights of those sizes")                       \
    TEXT(student_config, 0, "FILE", "", "config.json of the student; text: of the teacher's sizes without one")        \
    INT(layers, 0, "N", 0, 0, 1024, "layers of a student made after the teacher; 0: as many")                          \
    ENUM(stage, 0, "NAME", 2, "align|soft|joint", "which terms the step has")                                          \
    INT(batch, 'b', "N", 16, 1, 1048576, "sequences or images per step")                                               \
    INT(seq_len, 'l', "L", 0, 0, 1048576, "tokens per sequence; 0: the teacher's context")                             \
    INT(image_size, 0, "PX", 0, 0, 4096, "pixels of a side; 0: the teacher's")                                         \
    ENUM(precision, 'p', "NAME", 0, "auto|fp32|bf16", "activations and matrix inputs")                                 \
    ENUM(teacher_precision, 0, "NAME", 0, "auto|fp8", "step: fp8: the teacher's layers multiply 8-bit floats")         \
    TEXT(device, 'd', "NAME", "cpu", "cpu or cuda")                                                                    \
    INT(threads, 0, "N", 0, 0, 1024, "processor threads; 0: all this process may use")                                 \
    INT(steps, 'n', "N", 3, 1, 100000, "steps that are timed, after three to warm up")                                 \
    BOOL(recompute, 0, "compute activations again in the backward pass")                                               \
    BOOL(nodes, 0, "a line for every node of the step as well")

struct bench_options {
    CAB_FIELDS(BENCH_OPTIONS)
};
CAB_FLAG_TABLE(bench_table, struct bench_options, BENCH_OPTIONS)

static const char *given_or_null(const char *text)
{
    return text[0] != '\0' ? text : NULL;
}

static cab_status run(const void *given, const cab_list *operands)
{
    const struct bench_options *o = given;
    const cab_precision precisions[] = {cab_precision_auto(o->device), CAB_PRECISION_FP32, CAB_PRECISION_BF16};
    if (strcmp(operands->items[0], "step") != 0)
        return cab_fail(CAB_EARG, "found \"%.40s\", expected step", operands->items[0]);
    if ((o->teacher[0] == '\0') == (o->teacher_config[0] == '\0'))
        return cab_fail(CAB_EARG, "give either --teacher=DIR or --teacher-config=FILE");
    if (o->threads)
        cab_thread_limit((int)o->threads);
    const cab_step_options options = {.teacher = given_or_null(o->teacher),
                                      .teacher_config = given_or_null(o->teacher_config),
                                      .student_config = given_or_null(o->student_config),
                                      .n_layer = (int)o->layers,
                                      .device = o->device,
                                      .precision = precisions[o->precision],
                                      .teacher_fp8 = o->teacher_precision == 1,
                                      .stage = (cab_step_stage)o->stage,
                                      .batch = o->batch,
                                      .seq_len = o->seq_len,
                                      .image_size = (int)o->image_size,
                                      .steps = (int)o->steps,
                                      .recompute = o->recompute,
                                      .nodes = o->nodes};
    return cab_step_time(&options, stdout);
}

static const cli_example examples[] = {
    {"cab bench step --teacher examples/tales/teacher --seq-len 256 --batch 8", "the demo's step"},
    {"cab bench step --teacher-config vit.json --student-config vim.json --batch 128 --device cuda",
     "a step of images on the GPU, from sizes alone"},
    {0}};

const cli_command cli_bench = {
    .name = "bench",
    .summary = "time a training step of given sizes",
    .synopsis = "step",
    .description = "Times training steps of a teacher and a student on this machine and prints milliseconds, tokens or "
                   "images per second, memory, the share of the measured matrix rate, and the time by op. No "
                   "checkpoint is needed: a config.json stands for a model of random weights.",
    .examples = examples,
    .options = bench_table,
    .options_size = sizeof(struct bench_options),
    .operands_min = 1,
    .operands_max = 1,
    .run = run,
};
