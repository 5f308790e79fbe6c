/* later.c - have something done by the loop's thread. */
#include "vmm-glue/vmm/later.h"

#include <errno.h>
#include <stdlib.h>

#include "vmm-glue/vmm/machine.h"

struct later {
        struct loop_task task;
        struct machine *machine;
        void (*run)(void *owner);
        void *owner; /* NULL: gone, while this was queued */
};

static void run_task(struct loop_task *task)
{
        struct later *later = container_of(task, struct later, task);

        /* Owners go on this thread: what is here now stays until we return. */
        if (!later->owner) {
                free(later);
                return;
        }
        machine_lock(later->machine);
        later->run(later->owner);
        machine_unlock(later->machine);
}

int later_new(struct machine *machine, void (*run)(void *owner), void *owner,
              struct later **ret_later, struct error *err)
{
        struct later *later = malloc(sizeof(*later));

        if (!later)
                return error_set(err, -ENOMEM, "no memory for a device");
        *later =
            (struct later){.task.run = run_task, .machine = machine, .run = run, .owner = owner};
        *ret_later = later;
        return 0;
}

void later_free(struct later *later)
{
        if (!later)
                return;
        if (later->task.queued)
                later->owner = NULL;
        else
                free(later);
}

void later_ask(struct later *later)
{
        loop_post_remote(later->machine->loop, &later->task);
}
