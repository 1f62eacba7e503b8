#ifndef CAB_BASE_THREAD_H
#define CAB_BASE_THREAD_H
/* thread.h - how many threads math uses. OpenMP's own variables are honoured; the default is the processors this process
 * may run on (its affinity mask), not those of the machine. */

int cab_thread_count(void);
/* Sets it for the calling thread's work from here on; below 1 leaves it as it is. */
void cab_thread_limit(int count);

#endif
