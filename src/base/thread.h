#ifndef CAB_BASE_THREAD_H
#define CAB_BASE_THREAD_H
/* thread.h - how many threads math uses. The default is the processors this process may run on: its affinity mask, and what a
 * control group allows of their time. OpenMP's own variables are honoured up to that number. */

/* Threads of parallel work that the calling thread begins; never more than cab_thread_processors(). */
int cab_thread_count(void);
/* Sets it for the calling thread's work from here on; below 1 leaves it as it is. More than there are processors would only
 * wait for each other: it is cut to their number, with a warning. */
void cab_thread_limit(int count);
/* At least 1. */
int cab_thread_processors(void);

/* For programs, first thing in main(): OpenMP reads its variables before main(), so where they need changing (threads that
 * spin while they wait, more threads than processors) they are set and the program is started again. */
void cab_thread_start(char **argv);

#endif
