/* generate.h - what became of every generated text, and texts that are written in turns. */
#ifndef CAB_TRAIN_GENERATE_H
#define CAB_TRAIN_GENERATE_H

#include "models/model.h"

/* Why a text ended: X(name, word). */
#define CAB_STOP_REASONS(X)                                                                                            \
    X(CAB_STOP_LENGTH, "length")   /* max_tokens have been generated */                                                \
    X(CAB_STOP_END, "end")         /* the model drew its end-of-text token */                                          \
    X(CAB_STOP_TEXT, "stop")       /* one of the stop texts appeared */                                                \
    X(CAB_STOP_CONTEXT, "context") /* the teacher's context is full */                                                 \
    X(CAB_STOP_SINK, "sink")       /* the receiver wanted no more */

#define CAB_STOP_NAME(name, word) name,
typedef enum cab_stop_reason { CAB_STOP_REASONS(CAB_STOP_NAME) } cab_stop_reason;
#undef CAB_STOP_NAME

/* "length", "end", "stop" ... */
const char *cab_stop_word(cab_stop_reason reason);

typedef struct cab_generation {
    uint64_t prompt_tokens, tokens; /* fed, generated; the end-of-text token is not counted */
    double seconds;                 /* from when the first token of any text could be drawn to the end of this one */
    cab_stop_reason stop;
} cab_generation;

/* cab_generate_batch(), and generations[n * samples] filled. */
cab_status cab_generate_texts(cab_model *model, size_t n, const char *const *prompts, uint32_t samples,
                              const cab_generate_options *options, cab_texts_sink sink, void *user,
                              cab_generation *generations);

/* The same of samples first .. first + samples of every prompt: what is drawn depends on the seed and the number of the sample. */
cab_status cab_generate_samples(cab_model *model, size_t n, const char *const *prompts, uint32_t first,
                                uint32_t samples, const cab_generate_options *options, cab_texts_sink sink, void *user,
                                cab_generation *generations);

/* One text that a person and a model write in turns; with options->chat a conversation, which the model's template renders. The model's state
 * stays between turns, so a turn of a student costs the tokens of that turn alone; unless what the template makes of all that was said does
 * not begin with what the model has read, which it then reads anew. Model and options must outlive it. */
typedef struct cab_dialogue cab_dialogue;
cab_status cab_dialogue_new(cab_model *model, const cab_generate_options *options, cab_dialogue **dialogue);
/* Adds `words` to the text, or as what the user says, and lets the model go on for max_tokens at most. CAB_ESHAPE when the context of a teacher is full. */
cab_status cab_dialogue_turn(cab_dialogue *dialogue, const char *words, cab_text_sink sink, void *user,
                             cab_generation *generation);
void cab_dialogue_free(cab_dialogue *dialogue);

#endif
