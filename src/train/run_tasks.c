/* run_tasks.c - questions with known answers within a run: of the student again and again, of its teacher once. */
#include "base/log.h"
#include "base/memory.h"
#include "train/run.h"
#include "train/tasks.h"

#include <math.h>
#include <stdio.h>

typedef struct cab_run_tasks {
    cab_task_set *set;
    cab_task_result *student,
        *teacher[2]; /* teacher: of a periodic evaluation's questions, of all; made on first use */
} cab_run_tasks;

cab_status cab_run_tasks_open(cab_run *run)
{
    if (run->recipe->eval.tasks.count == 0 || run->domain->tasks == NULL)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&run->tasks, 1, "tasks"));
    CAB_TRY(run->domain->tasks(run->data, run->student, &run->tasks->set));
    return CAB_NEW(&run->tasks->student, cab_task_set_count(run->tasks->set), "tasks");
}

void cab_run_tasks_close(cab_run *run)
{
    cab_run_tasks *t = run->tasks;
    if (t == NULL)
        return;
    cab_task_set_free(t->set);
    cab_free(t->student);
    cab_free(t->teacher[0]);
    cab_free(t->teacher[1]);
    cab_free(t);
    run->tasks = NULL;
}

static cab_status ask_teacher(cab_run *run, bool all, uint64_t most)
{
    cab_task_result **results = &run->tasks->teacher[all];
    if (*results != NULL)
        return CAB_OK;
    CAB_TRY(CAB_NEW(results, cab_task_set_count(run->tasks->set), "tasks"));
    const cab_status status = cab_task_set_run(run->tasks->set, run->teacher, most, NULL, *results);
    if (status != CAB_OK) {
        cab_free(*results);
        *results = NULL;
    }
    return status;
}

/* The share that tells most: of right choices where there are choices, else of last words. */
static double main_share(const cab_task_result *r)
{
    return isnan(r->accuracy.value) ? r->last_word.value : r->accuracy.value;
}

/* "piqa 61.0 % (teacher 66.0)" */
static void tell(const cab_run_tasks *t, bool all)
{
    for (size_t i = 0; i < cab_task_set_count(t->set); i++)
        cab_log_info("task     %s: %.1f %% (teacher %.1f %%)", t->student[i].name, 100 * main_share(&t->student[i]),
                     100 * main_share(&t->teacher[all][i]));
}

cab_status cab_run_ask(cab_run *run, bool all, json_object **found)
{
    cab_run_tasks *t = run->tasks;
    *found = NULL;
    if (t == NULL)
        return CAB_OK;
    const uint64_t most = all ? 0 : (uint64_t)run->recipe->eval.items;
    CAB_TRY(ask_teacher(run, all, most));
    CAB_TRY(cab_run_swap_averages(run));
    const cab_status status = cab_task_set_run(t->set, run->student, most, NULL, t->student),
                     back = cab_run_swap_averages(run);
    CAB_TRY(status);
    CAB_TRY(back);
    tell(t, all);
    *found = cab_task_results_json(t->student, t->teacher[all], cab_task_set_count(t->set));
    return *found != NULL ? CAB_OK : cab_fail(CAB_ENOMEM, "out of memory: results of tasks");
}
