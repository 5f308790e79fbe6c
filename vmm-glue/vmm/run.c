/* run.c - letting vCPUs run, and making them rest. */
#include "vmm-glue/vmm/run.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm-glue/vmm/vcpu.h"

static void serve_asked(struct loop_task *task);

void run_init(struct machine *machine)
{
        struct run *run = &machine->run;

        pthread_mutex_init(&run->mutex, NULL);
        pthread_cond_init(&run->changed, NULL);
        run->task.run = serve_asked;
}

void run_destroy(struct machine *machine, void *whole)
{
        pthread_cond_destroy(&machine->run.changed);
        pthread_mutex_destroy(&machine->run.mutex);
        if (machine->run.task.queued)
                machine->run.whole = whole;
        else
                free(whole);
}

static void kick_all(struct machine *machine)
{
        for (unsigned i = 0; i < machine->run.n_threads; i++)
                vcpu_kick(&machine->vcpus[i]);
}

int run_start_threads(struct machine *machine, struct error *err)
{
        struct run *run = &machine->run;

        while (run->n_threads < machine->n_vcpus) {
                struct vcpu *vcpu = &machine->vcpus[run->n_threads];
                int r = pthread_create(&vcpu->thread, NULL, vcpu_thread, vcpu);

                if (r != 0) {
                        run_end_threads(machine);
                        return error_set(err, -r, "cannot start the thread of vCPU %u: %s",
                                         vcpu->index, strerror(r));
                }
                pthread_mutex_lock(&run->mutex);
                run->n_threads++;
                pthread_mutex_unlock(&run->mutex);
        }
        return 0;
}

void run_end_threads(struct machine *machine)
{
        struct run *run = &machine->run;

        pthread_mutex_lock(&run->mutex);
        run->go = false;
        run->quit = true;
        kick_all(machine);
        pthread_cond_broadcast(&run->changed);
        pthread_mutex_unlock(&run->mutex);
        for (unsigned i = 0; i < run->n_threads; i++)
                pthread_join(machine->vcpus[i].thread, NULL);
        run->n_threads = 0;
}

void run_rest(struct machine *machine)
{
        struct run *run = &machine->run;

        pthread_mutex_lock(&run->mutex);
        run->go = false;
        kick_all(machine);
        while (run->n_resting < run->n_threads)
                pthread_cond_wait(&run->changed, &run->mutex);
        pthread_mutex_unlock(&run->mutex);
}

void run_go(struct machine *machine)
{
        struct run *run = &machine->run;

        pthread_mutex_lock(&run->mutex);
        assert(!run->quit);
        /* What was asked meanwhile is served first, and lets them go; of a panic they are only told. */
        if ((run->asked & ~(unsigned)RUN_ASKED_PANIC) == 0) {
                for (unsigned i = 0; i < run->n_threads; i++)
                        machine->vcpus[i].run->immediate_exit = 0;
                run->go = true;
                pthread_cond_broadcast(&run->changed);
        }
        pthread_mutex_unlock(&run->mutex);
}

bool run_wait(struct vcpu *vcpu)
{
        struct run *run = &vcpu->machine->run;
        bool quit;

        pthread_mutex_lock(&run->mutex);
        run->n_resting++;
        pthread_cond_broadcast(&run->changed);
        while (!run->go && !run->quit)
                pthread_cond_wait(&run->changed, &run->mutex);
        run->n_resting--;
        quit = run->quit;
        pthread_mutex_unlock(&run->mutex);
        return !quit;
}

static void ask_locked(struct machine *machine, enum run_asked what)
{
        struct run *run = &machine->run;

        run->asked |= what;
        if (what != RUN_ASKED_PANIC) {
                run->go = false;
                kick_all(machine);
        }
        loop_post_remote(machine->loop, &run->task);
}

void run_ask(struct machine *machine, enum run_asked what)
{
        pthread_mutex_lock(&machine->run.mutex);
        ask_locked(machine, what);
        pthread_mutex_unlock(&machine->run.mutex);
}

unsigned run_pending(struct machine *machine)
{
        unsigned asked;

        pthread_mutex_lock(&machine->run.mutex);
        asked = machine->run.asked;
        pthread_mutex_unlock(&machine->run.mutex);
        return asked;
}

void machine_ask_reset(struct machine *machine)
{
        run_ask(machine, RUN_ASKED_RESET);
}

void machine_ask_power_off(struct machine *machine)
{
        run_ask(machine, RUN_ASKED_POWER_OFF);
}

void machine_guest_panicked(struct machine *machine)
{
        run_ask(machine, RUN_ASKED_PANIC);
}

void machine_fail(struct machine *machine, const char *format, ...)
{
        struct run *run = &machine->run;
        va_list args;

        pthread_mutex_lock(&run->mutex);
        if (!(run->asked & RUN_ASKED_FAILURE)) {
                va_start(args, format);
                vsnprintf(run->sentence, sizeof(run->sentence), format, args);
                va_end(args);
                ask_locked(machine, RUN_ASKED_FAILURE);
        }
        pthread_mutex_unlock(&run->mutex);
}

static void end(struct machine *machine, enum vmm_end how, const char *sentence)
{
        machine->run.ended = true;
        if (machine->events->ended)
                machine->events->ended(machine->events_arg, how, sentence);
}

static void reset(struct machine *machine)
{
        struct error e = ERROR_INIT;

        if (machine_reset(machine, &e) < 0) {
                end(machine, VMM_END_FAILED, e.message);
                return;
        }
        if (machine->events->reset)
                machine->events->reset(machine->events_arg);
        if (!machine->run.paused)
                run_go(machine);
}

/* Of several things the one counts behind which nothing comes. */
static void serve_asked(struct loop_task *task)
{
        struct run *run = container_of(task, struct run, task);
        struct machine *machine = container_of(run, struct machine, run);
        unsigned asked;

        if (run->whole) {
                free(run->whole);
                return;
        }
        if (run->ended)
                return;
        if (run_pending(machine) & (RUN_ASKED_RESET | RUN_ASKED_POWER_OFF | RUN_ASKED_FAILURE))
                run_rest(machine);
        pthread_mutex_lock(&run->mutex);
        asked = run->asked;
        run->asked = 0;
        pthread_mutex_unlock(&run->mutex);

        if ((asked & RUN_ASKED_PANIC) && machine->events->panicked)
                machine->events->panicked(machine->events_arg);
        if (asked & RUN_ASKED_FAILURE)
                end(machine, VMM_END_FAILED, run->sentence);
        else if (asked & RUN_ASKED_POWER_OFF)
                end(machine, VMM_END_POWER_OFF, NULL);
        else if (asked & RUN_ASKED_RESET)
                reset(machine);
}
