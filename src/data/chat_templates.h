/* chat_templates.h - the known chat templates, as data. */
#ifndef CAB_DATA_CHAT_TEMPLATES_H
#define CAB_DATA_CHAT_TEMPLATES_H

#include "data/chat.h"

/* What a template does with a message of the system, besides giving it a turn. */
typedef enum cab_chat_system {
    CAB_CHAT_SYSTEM_TURN,
    CAB_CHAT_SYSTEM_REFUSED,
    CAB_CHAT_SYSTEM_FIRST, /* it goes before the content of the first message, between `system_begin` and `system_end` */
    CAB_CHAT_SYSTEM_LAST   /* the same, of the last, where that is the user's */
} cab_chat_system;

/* In the strings \1 is the token that begins a text and \2 the one that ends it. */
typedef struct cab_chat_template {
    const char *name;
    const char *needs[4], *forbids[3];                       /* what its text holds, and does not hold; NULL: no more */
    const char *first;                                       /* before everything */
    const char *begin[CAB_CHAT_ROLES], *end[CAB_CHAT_ROLES]; /* around a message's content */
    const char *after;                                       /* an answer's end, where that is no part of it */
    const char *last;                                        /* after everything, if no answer is asked for */
    const char *prompt;                                      /* where one is */
    const char *stop;                                        /* the token that ends an answer */
    bool trim[CAB_CHAT_ROLES];                               /* white space around the content is taken off */
    bool alternate;                                          /* user and assistant take turns, the user first */
    cab_chat_system system;
    const char *system_begin, *system_end;
    const char
        *no_system; /* what stands in the place of a missing one; NULL: nothing, or as the template's text says */
} cab_chat_template;

/* The first whose conditions the text fulfils; NULL: none. */
const cab_chat_template *cab_chat_template_find(const char *text);

#endif
