/* recipe.h - everything a run depends on, as one table.
 *
 * Each row below is the struct field, its YAML key, its flag (--set section.key=value), its default, its range, its line in
 * --help, the manual page and docs/recipes.md. Add an option by adding a row, and nowhere else.
 *
 * Row kinds:  INT(field, default, low, high, help)   REAL(field, default, low, high, help)   BOOL(field, default, help)
 *             TEXT(field, default, help)             ENUM(field, default, "a|b|c", help): stored as the index of the word
 *             LIST(field, help): a list of strings   INTS(field, help): a list of integers
 * A default of 0 written as "0: ..." in the help means: derived (from the teacher, the stage, the machine). */
#ifndef CAB_DISTILL_RECIPE_H
#define CAB_DISTILL_RECIPE_H

#include "base/error.h"
#include "base/options.h"
#include "distill/student_list.h"
#include "distill/terms.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The published methods, in the order of enum CAB_METHOD_VANILLA ...; recipe_text.c and recipe_images.c have what they set. */
#define CAB_METHOD_WORDS "vanilla|soft|cab-published|cab|weight-reuse|multi-stage|attention-copy|cab-best"

#define CAB_RECIPE_TOP(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                        \
    ENUM(method, 0, "custom|" CAB_METHOD_WORDS,                                                                        \
         "start from a published method's initialisation and stages; keys given beside it win")                        \
    INT(seed, 1, 0, INT64_MAX, "seed of everything random: parameters, data order, subset")                            \
    TEXT(device, "cpu", "cpu or cuda")                                                                                 \
    ENUM(precision, 0, "auto|fp32|bf16",                                                                               \
         "activations and matrix inputs; auto: bf16 where the processor multiplies it")                                \
    INT(threads, 0, 0, 1024, "processor threads; 0: all this process may use")                                         \
    TEXT(out, "", "directory of the run: log, checkpoints, exported student")

#define CAB_RECIPE_TEACHER(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                    \
    TEXT(path, "", "Hugging Face directory of the teacher")                                                            \
    ENUM(precision, 0, "auto|fp8|as-is",                                                                               \
         "auto: as the run's; fp8: its layers multiply 8-bit floats (e4m3, a scale per tensor), on GPUs that can; "    \
         "as-is: matrices that a .gguf file holds quantised stay so in memory")                                        \
    TEXT(cache, "",                                                                                                    \
         "text: file of the teacher's likeliest words of every training token, computed once and then read in its "    \
         "place; windows are then the same in every pass")                                                             \
    INT(cache_words, 64, 1, 1024, "words of a token in that file; KL sees what they leave as one event")

#define CAB_RECIPE_STUDENT(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                    \
    TEXT(path, "", "directory of a student to go on from; empty: a new one of the sizes below")                        \
    ENUM(architecture, 0, CAB_STUDENT_WORDS,                                                                           \
         "kind of student. Defaults and presets follow it; left out, of images in-place")                              \
    ENUM(reads, 0, "text|images",                                                                                      \
         "what teacher and student read; left out, what the teacher's config.json says. To give where a recipe is "    \
         "read before its teacher is there")                                                                           \
    INT(n_layer, 0, 0, 1024, "layers; 0: as the teacher")                                                              \
    INT(d_model, 0, 0, 65536, "width; 0: as the teacher")                                                              \
    INT(n_head, 0, 0, 1024, "mixer heads; 0: as the teacher")                                                          \
    INT(d_state, 0, 0, 1024, "state size per head; 0: the teacher's head width, in-place twice that")                  \
    INT(d_conv, 4, 1, 16, "taps of the causal convolution")                                                            \
    INT(d_mlp, 0, 0, 262144, "hidden width of the MLP; 0: as the teacher")                                             \
    INT(expand, 2, 1, 16, "inner width as a multiple of the width, in-place of that of attention")                     \
    INT(dt_rank, 0, 0, 65536, "rank of the step size; 0: a sixteenth of the width")                                    \
    BOOL(tied_decay, false,                                                                                            \
         "a channel decays alike in all of its states (A_log's rows are one number each), which a GPU computes "       \
         "as products of matrices")                                                                                    \
    ENUM(layout, 0, "auto|falcon-h1|granite-hybrid|own|mamba2|mamba",                                                  \
         "format that the student must fit; auto: falcon-h1 if it can hold the teacher's blocks, else own, which can " \
         "hold any and opens here alone; mamba2 and mamba hold no MLP, so no Transformer's blocks")                    \
    INT(keep, 0, 0, 1024, "heads of every layer that stay attention, or layers that do (keep_unit)")                   \
    ENUM(keep_unit, 0, "auto|heads|layers", "what keep counts; auto: heads, with granite-hybrid layers")               \
    INTS(keep_list, "which heads, the same in all layers, or which layers; empty: those that cost most to leave out")  \
    ENUM(keep_by, 0, "error|kl",                                                                                       \
         "what it costs; error: what mixers leave unexplained after a short training; kl: what the teacher "           \
         "loses")                                                                                                      \
    INT(head_dim, 0, 0, 4096, "width of a head of the mixer; 0: 64, or the teacher's where that does not divide")      \
    INT(n_group, 0, 0, 1024, "groups of heads that share B and C; 0: as many as the teacher has heads of K and V")     \
    REAL(token_scale, 4, 0, 1e6,                                                                                       \
         "what tokens take of one another is multiplied by this over their number; 0: it is not")                      \
    INT(grid_conv, 0, 0, 7, "side of a convolution over the grid of patches, 3, 5 or 7; 0: none")                      \
    BOOL(shared_decay, false, "both directions have the same decays")                                                  \
    INT(patch_size, 0, 0, 4096, "pixels of a patch's side; 0: as the teacher")                                         \
    ENUM(classes, 0, "data|teacher", "classes it tells apart: those of the data, or all of the teacher's")

#define CAB_RECIPE_DATA(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                       \
    LIST(train,                                                                                                        \
         "training files: .txt, .md, .jsonl, .json, .csv, .tsv, any of them .gz / .xz / .zst, or token files .npy / "  \
         ".bin; of images: folders of classes, archives of them (.tar, .zip) or .csv lists")                           \
    LIST(eval, "validation files of the same kinds")                                                                   \
    TEXT(separator, "<|endoftext|>", "line that ends a document in .txt and .md files")                                \
    TEXT(text_field, "text", "field of .jsonl and .json objects, or column of .csv and .tsv, that holds the document") \
    ENUM(bin_type, 0, "uint16|uint32", "element type of .bin token files")                                             \
    INT(max_member, 0, 0, 1 << 30, "MiB that one member of an archive, or one document, may expand to; 0: 1024")       \
    INT(max_expanded, 0, 0, 1 << 30,                                                                                   \
        "MiB that a packed file may expand to in all; 0: 256 times its size, small ones 64")                           \
    REAL(fraction, 1, 0, 1, "seeded share of the training documents, or of every class's images, that is used")        \
    ENUM(loss_on, 0, "assistant|all", "conversations: whether the assistant's tokens alone are learnt, or all")        \
    REAL(loops, 0, 0, 1,                                                                                               \
         "text: share of training sequences in which a few tokens come again and again, for KL to teach the way out")  \
    BOOL(reset, false,                                                                                                 \
         "documents of one sequence know nothing of each other: attention, state, convolution and positions begin "    \
         "anew with each")                                                                                             \
    INT(seq_len, 0, 0, 1048576, "tokens per sequence; 0: the teacher's context")                                       \
    TEXT(cache, "", "directory of caches; empty: $XDG_CACHE_HOME/cab, or <out>/../cache where that is not set")        \
    TEXT(classes, "",                                                                                                  \
         "images: class map, lines of label, name and the teacher's class; empty: the classes found, which then must " \
         "be the teacher's")                                                                                           \
    INT(image_size, 0, 0, 4096, "images: pixels of a side that the models read; 0: as the teacher")                    \
    INT(min_side, 0, 0, 4096,                                                                                          \
        "images: JPEGs are decoded at 1/2, 1/4 or 1/8 where the shorter side stays at least this; 0: whole")           \
    ENUM(image_cache, 0, "none|memory|file", "images: decoded once and kept in memory, or in one file in `cache`")     \
    ENUM(on_error, 0, "stop|skip",                                                                                     \
         "images: what to do about one that cannot be read; skip counts and names them, and goes on without")

/* Random variation of training images; data/augment.h has the steps. -1: as the preset has it. */
#define CAB_RECIPE_AUGMENT(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                    \
    ENUM(preset, 2, "none|basic|deit",                                                                                 \
         "basic: random resized crop and flip; deit: also RandAugment, erasing, mixup, cutmix and smoothing, the "     \
         "paper's. Images only; a key below at -1 is the preset's")                                                    \
    REAL(scale_min, -1, -1, 1, "least share of the area that is cropped")                                              \
    REAL(scale_max, -1, -1, 1, "largest share; 0: the crop of evaluation")                                             \
    REAL(ratio_min, -1, -1, 1000, "least width over height of the crop")                                               \
    REAL(ratio_max, -1, -1, 1000, "largest width over height")                                                         \
    REAL(flip, -1, -1, 1, "probability of exchanging left and right")                                                  \
    TEXT(rand, "", "RandAugment in timm's words, such as rand-m9-mstd0.5-inc1; none: off; empty: the preset's")        \
    REAL(jitter, -1, -1, 1, "strength of changes of colour, where RandAugment is off")                                 \
    REAL(erase, -1, -1, 1, "probability of erasing rectangles")                                                        \
    ENUM(erase_mode, 0, "preset|const|rand|pixel", "what they are filled with: the mean, one colour, noise")           \
    INT(erase_count, -1, -1, 1000, "at most this many")                                                                \
    REAL(mixup, -1, -1, 1000, "parameter of the Beta distribution that images are mixed by; 0: off")                   \
    REAL(cutmix, -1, -1, 1000, "the same of pasted rectangles; 0: off")                                                \
    REAL(mix_probability, -1, -1, 1, "probability that a batch is mixed at all")                                       \
    REAL(switch_probability, -1, -1, 1, "of cutmix, where both are on")                                                \
    REAL(smoothing, -1, -1, 1, "share of the label that is spread over all classes")                                   \
    INT(repeats, -1, -1, 1000, "times an image stands in a row in an epoch of as many samples")

#define CAB_RECIPE_INIT(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                       \
    ENUM(weights, 0, "scratch|teacher", "teacher: embedding, head, norms, MLP, V/K/Q -> x/B/C, output projection")     \
    BOOL(fold, false,                                                                                                  \
         "reuse exactly: norms folded into the weights behind them, biases into the convolution and the MLP")          \
    REAL(qk_scale, 1, 0, 100, "factor on reused Q and K: linear attention has no softmax to tame them")                \
    BOOL(near_identity, false,                                                                                         \
         "decay starts as a constant near 1: the student starts as linear attention. A_log of a scan starts at -20, "  \
         "and stays there: A's gradient is in proportion to A")                                                        \
    REAL(decay, 0.9, 0, 1,                                                                                             \
         "decay a[t] at the start when near_identity is on, and of in-place students; 0: as much as makes 1/e over a " \
         "sequence, or an image")                                                                                      \
    BOOL(conv_identity, false, "convolution starts as the current token only")                                         \
    BOOL(gate_open, false, "gate starts at 1: z rows of zeros, z_bias where silu is 1")                                \
    REAL(skip, 1, -100, 100, "D, the direct path around the state, at the start")                                      \
    REAL(std, 0, 0, 10, "standard deviation of fresh matrices; 0: uniform in +-1/sqrt(fan in)")

#define CAB_RECIPE_BRIDGE(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                     \
    INT(n_layer, 2, 1, 4, "linear layers of each bridge MLP; 1: a linear map")                                         \
    INT(hidden, 0, 0, 65536, "hidden width; 0: the teacher's width")                                                   \
    ENUM(activation, 0, "silu|gelu|relu|tanh", "between the bridge's layers")                                          \
    ENUM(feature_map, 0, "none|softmax|relu|exp",                                                                      \
         "map applied to the teacher's Q and K before comparison; softmax: of Q over features, of K over tokens")      \
    ENUM(error, 0, "relative|squared",                                                                                 \
         "what the alignment adds up: squared errors as shares of the variance of their target, or as they are")       \
    ENUM(layer_map, 0, "proportional|uniform-last|first|list", "which teacher layer teaches which student layer")      \
    INTS(layers, "with layer_map: list, the teacher layer of each student layer (-1: none)")

#define CAB_RECIPE_TRAIN(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                      \
    INT(tokens, 0, 0, INT64_MAX, "training tokens, or images, over all stages; 0: sum of the stages' own lengths")     \
    REAL(passes, 0, 0, 1e9, "the same in passes over the training data (epochs)")                                      \
    INT(batch, 8, 1, 1048576, "sequences, or images, per optimizer step")                                              \
    INT(micro_batch, 0, 0, 1048576, "of these in memory at once; 0: the whole batch")                                  \
    REAL(lr, 0, 0, 10,                                                                                                 \
         "peak learning rate; 0: the method's own, scaled by 128 / width (phi-mamba's cab-best: by its root); of "     \
         "images 5e-4 * batch / 512; a stage may "                                                                     \
         "have "                                                                                                       \
         "its own")                                                                                                    \
    REAL(min_lr, 0.03, 0, 1, "final learning rate as a share of the peak")                                             \
    ENUM(schedule, 0, "cosine|linear|wsd|constant",                                                                    \
         "shape after warm-up; wsd: constant, then linear decay in the last fifth")                                    \
    REAL(warmup, 0.07, 0, 1, "share of each stage's steps spent warming up")                                           \
    REAL(weight_decay, 0.1, 0, 10,                                                                                     \
         "decoupled; not on biases, norms, A, D, tokens, positions, nor a Mamba-2 mixer's convolution")                \
    REAL(beta1, 0.9, 0, 1, "AdamW")                                                                                    \
    REAL(beta2, 0.95, 0, 1, "AdamW")                                                                                   \
    REAL(eps, 1e-8, 0, 1, "AdamW")                                                                                     \
    REAL(clip, 1, 0, 1e9, "global gradient norm is clipped to this; 0: never")                                         \
    REAL(ema, 0, 0, 1,                                                                                                 \
         "decay of an exponential moving average of the weights, which is then what is evaluated and exported; 0: "    \
         "none")                                                                                                       \
    BOOL(recompute, false, "recompute each block in the backward pass instead of keeping its activations")             \
    TEXT(memory, "",                                                                                                   \
         "most memory to plan with, as 40GiB, or auto: what the device has left; the fewest blocks are recomputed "    \
         "that "                                                                                                       \
         "fit it; empty: no limit")                                                                                    \
    INT(eval_every, 0, 0, INT64_MAX,                                                                                   \
        "steps between evaluations; 0: a tenth of the run, or more where they would take more than a tenth of its "    \
        "time")                                                                                                        \
    INT(eval_tokens, 0, 0, INT64_MAX,                                                                                  \
        "validation tokens of a periodic evaluation; 0: 16384, or 2048 images; the last one uses all")                 \
    INT(checkpoint_every, 0, 0, INT64_MAX, "steps between checkpoints; 0: about every five minutes")                   \
    INT(log_every, 1, 1, INT64_MAX, "steps between log lines")                                                         \
    ENUM(shard, 0, "none|optimizer",                                                                                   \
         "what several ranks divide among them; optimizer: AdamW's moments, of which each then has its part")          \
    INT(timeout, 600, 0, 31536000, "seconds that one rank waits for another before all end; 0: without end")

/* Questions with known answers (cab eval --task), asked with every evaluation. */
#define CAB_RECIPE_EVAL(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                       \
    LIST(tasks, "text: tasks that are measured with every evaluation, by name or file; recall needs no data")          \
    LIST(data, "folders that hold the tasks' data")                                                                    \
    INT(items, 100, 0, INT64_MAX, "questions of each in a periodic evaluation; 0: all; the last one asks all")

/* A loss term's keys in a stage: its weight, the weight at the stage's end, and what else its row of terms.h names. */
#define CAB_RECIPE_TERM(ID, name, help, KEYS, INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                 \
    REAL(name, 0, 0, 1e6, "weight of " help)                                                                           \
    REAL(name##_end, -1, -1, 1e6, "weight at the stage's end; -1: the same")                                           \
    KEYS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)

/* One stage. The whole list replaces a preset's stages. */
#define CAB_RECIPE_STAGE(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                      \
    TEXT(name, "train", "shown in the log")                                                                            \
    REAL(share, 0, 0, 1, "share of train.tokens; 0: what the others leave")                                            \
    INT(tokens, 0, 0, INT64_MAX, "length in tokens or images; 0: by share, steps or passes")                           \
    INT(steps, 0, 0, INT64_MAX, "length in optimizer steps; 0: by one of the others")                                  \
    REAL(passes, 0, 0, 1e9, "length in passes over the training data; 0: by one of the others")                        \
    REAL(lr, 0, 0, 10, "peak learning rate; 0: train.lr")                                                              \
    REAL(reused_rate, 1, 0, 1,                                                                                         \
         "in-place: factor on the rate of what is the teacher's own: norms, MLP, embedding, head, kept attention")     \
    CAB_TERMS(CAB_RECIPE_TERM, INT, REAL, BOOL, TEXT, ENUM, LIST, INTS)                                                \
    ENUM(weights_shape, 0, "linear|cosine", "how weights move from start to end")                                      \
    LIST(freeze, "parameter name patterns (shell wildcards) that do not train in this stage")

/* The named groups of the file, in the order in which they are written: field name, rows. */
#define CAB_RECIPE_SECTIONS(X)                                                                                         \
    X(teacher, CAB_RECIPE_TEACHER)                                                                                     \
    X(student, CAB_RECIPE_STUDENT)                                                                                     \
    X(data, CAB_RECIPE_DATA)                                                                                           \
    X(augment, CAB_RECIPE_AUGMENT)                                                                                     \
    X(init, CAB_RECIPE_INIT)                                                                                           \
    X(bridge, CAB_RECIPE_BRIDGE)                                                                                       \
    X(train, CAB_RECIPE_TRAIN)                                                                                         \
    X(eval, CAB_RECIPE_EVAL)

/* struct cab_recipe_teacher, struct cab_recipe_student ... */
#define CAB_RECIPE_STRUCT(name, ROWS)                                                                                  \
    struct cab_recipe_##name {                                                                                         \
        CAB_FIELDS(ROWS)                                                                                               \
    };
CAB_RECIPE_SECTIONS(CAB_RECIPE_STRUCT)
#undef CAB_RECIPE_STRUCT

typedef struct cab_stage {
    CAB_FIELDS(CAB_RECIPE_STAGE)
} cab_stage;

enum { CAB_STAGES_MAX = 64 };

struct cab_recipe {
    CAB_FIELDS(CAB_RECIPE_TOP)
#define CAB_RECIPE_MEMBER(name, ROWS) struct cab_recipe_##name name;
    CAB_RECIPE_SECTIONS(CAB_RECIPE_MEMBER)
#undef CAB_RECIPE_MEMBER
    cab_stage *stages;
    unsigned stages_count;
    bool stages_given; /* somebody has set them, or one of their keys */
};

/* Values of the ENUM rows above, in the order of their words. */
enum {
    CAB_METHOD_CUSTOM,
    CAB_METHOD_VANILLA,
    CAB_METHOD_SOFT,
    CAB_METHOD_CAB_PUBLISHED,
    CAB_METHOD_CAB,
    CAB_METHOD_WEIGHT_REUSE,
    CAB_METHOD_MULTI_STAGE,
    CAB_METHOD_ATTENTION_COPY,
    CAB_METHOD_CAB_BEST
};
enum { CAB_RECIPE_AUTO, CAB_RECIPE_FP32, CAB_RECIPE_BF16 };
enum { CAB_TEACHER_AUTO, CAB_TEACHER_FP8, CAB_TEACHER_AS_IS };
enum { CAB_READS_TEXT, CAB_READS_IMAGES };
enum { CAB_LAYOUT_AUTO };
enum { CAB_KEEP_BY_ERROR, CAB_KEEP_BY_KL };
enum { CAB_CLASSES_DATA, CAB_CLASSES_TEACHER };
enum { CAB_IMAGE_CACHE_NONE, CAB_IMAGE_CACHE_MEMORY, CAB_IMAGE_CACHE_FILE };
enum { CAB_SHARD_NONE, CAB_SHARD_OPTIMIZER };
enum { CAB_AUGMENT_NONE, CAB_AUGMENT_BASIC, CAB_AUGMENT_DEIT };
enum { CAB_INIT_SCRATCH, CAB_INIT_TEACHER };
enum { CAB_BRIDGE_SILU, CAB_BRIDGE_GELU, CAB_BRIDGE_RELU, CAB_BRIDGE_TANH };
enum { CAB_BRIDGE_MAP_NONE, CAB_BRIDGE_MAP_SOFTMAX, CAB_BRIDGE_MAP_RELU, CAB_BRIDGE_MAP_EXP };
enum { CAB_BRIDGE_ERROR_RELATIVE, CAB_BRIDGE_ERROR_SQUARED };
enum { CAB_LAYERS_PROPORTIONAL, CAB_LAYERS_UNIFORM_LAST, CAB_LAYERS_FIRST, CAB_LAYERS_LIST };
enum { CAB_SCHEDULE_COSINE, CAB_SCHEDULE_LINEAR, CAB_SCHEDULE_WSD, CAB_SCHEDULE_CONSTANT };
enum { CAB_WEIGHTS_LINEAR, CAB_WEIGHTS_COSINE };

/* Besides the public calls (cab.h): */

/* A recipe of defaults with no stages. */
cab_status cab_recipe_new(cab_recipe **recipe);
/* Sets `method`, puts init.* and the stages back to their defaults and applies the method's settings (recipe_domain.h), which for
 * images include bridge.feature_map, whoever has set them; everything else stays. CAB_METHOD_CUSTOM changes nothing but `method`.
 * cab_recipe_set(r, "method", ...) does this. */
cab_status cab_recipe_apply_method(cab_recipe *recipe, int method);
/* Peak learning rate of a stage for a student of width d_model: the stage's, else train.lr, else for text the method's own,
 * which was tuned at width 128 and falls with the width or its root, and for images 5e-4 * batch / 512. d_model 0: not known, and so is the rate
 * where it depends on it (0). */
double cab_recipe_lr(const cab_recipe *recipe, const cab_stage *stage, int64_t d_model);

/* The recipe's method as a word in out[size]: "cab", "custom" ... Returns out. */
const char *cab_recipe_method_name(const cab_recipe *recipe, char *out, size_t size);

/* Optimizer steps of every stage in steps[recipe->stages_count], for sequences of seq_len tokens (1: images) and training data
 * of pass_tokens. Tokens are rounded to the nearest whole step, at least one. CAB_EARG where the lengths contradict one
 * another or are missing. */
cab_status cab_recipe_stage_steps(const cab_recipe *recipe, uint64_t seq_len, uint64_t pass_tokens, uint64_t *steps);

/* The recipe as YAML that loads back to the same values. Written beside a run as recipe.yaml. */
cab_status cab_recipe_save(const cab_recipe *recipe, const char *path);
/* The same as NUL-terminated text owned by the caller. */
cab_status cab_recipe_print(const cab_recipe *recipe, char **text, size_t *size);
/* cab_recipe_load() of text in memory; `name` is the file in error texts. */
cab_status cab_recipe_parse(const char *name, const char *text, size_t size, cab_recipe **recipe);

/* The groups of keys, for files, manuals and checks: "" (top), "teacher" ... "eval", "stages". */
typedef struct cab_recipe_group {
    const char *name;
    cab_option_table table;
    size_t offset; /* of the group's struct in struct cab_recipe; 0 for "stages", whose rows count within one stage */
} cab_recipe_group;
enum { CAB_RECIPE_GROUPS = 10, CAB_RECIPE_TOP_GROUP = 0, CAB_RECIPE_STAGES_GROUP = 9 };
cab_recipe_group cab_recipe_group_get(unsigned index);

/* The option's help, with whose key it is and what its defaults are where a student has others. */
void cab_recipe_help(const cab_recipe_group *group, const cab_option *option, char *out, size_t size);

/* cab_recipe_load(), which does not stop at the first mistake: every one is a line for the sink. Returns the status of the first;
 * *recipe is what is left of the file without them, or NULL where they are such that nothing can be read behind them. */
typedef void (*cab_recipe_mistake_sink)(void *user, const char *text);
cab_status cab_recipe_load_all(const char *path, cab_recipe_mistake_sink sink, void *user, cab_recipe **recipe);
/* cab_recipe_validate(), likewise: a line for every check that fails. */
cab_status cab_recipe_validate_all(const cab_recipe *recipe, cab_recipe_mistake_sink sink, void *user);

/* Replaces the stages by `count` stages of defaults. */
cab_status cab_recipe_reset_stages(cab_recipe *recipe, unsigned count);

/* The sentence about a key that does not exist: `unknown key "train.lr_"; did you mean "train.lr"?`, or the keys of its
 * group where nothing is near. */
void cab_recipe_unknown_key(const char *key, char *out, size_t size);

#endif
