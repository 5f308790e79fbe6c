/* memory_copy.c - the guest's memory into a file, while it runs; and back.
 *
 * A page of zeroes is a hole, unless the file has another there already. The thread reads memory that
 * others write: what it takes may be torn, and then the page is in the log, and in the next round. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm-glue/vmm/boot.h"
#include "vmm-glue/vmm/machine.h"
#include "vmm-glue/vmm/memory_copy.h"

#define LITTLE_PAGES  (MIB(32) / MEMORY_LOG_PAGE) /* some 30 ms of the guest's pause */
#define RUN_PAGES_MAX 256u                        /* written by one call */
/* A guest that changes its memory faster than it is written runs for a part of each period only: half of
 * it, or half of that and so on. The vCPUs are made to rest, so all of them at once, and their guest
 * sees that as it sees a host that is busy. */
#define PERIOD_NS    UINT64_C(64000000)
#define HALVINGS_MAX 6u

struct memory_copy {
        struct machine *machine;
        int fd;
        void (*copied)(void *arg, int result, const char *sentence);
        void *arg;
        pthread_t thread;
        struct loop_task task;
        struct loop_timer timer; /* where a period's parts begin */
        atomic_uint halvings;    /* of the time that the guest runs */
        bool held;               /* it is in the part of the period in which it does not */
        atomic_bool cancelled;
        bool joined;
        uint64_t *bits[MEMORY_REGIONS_MAX]; /* what is to be written, for each region */
        uint64_t n_dirty;
        int result;
        struct error error;
};

static bool is_zero(const uint8_t *page)
{
        return page[0] == 0 && memcmp(page, page + 1, MEMORY_LOG_PAGE - 1) == 0;
}

static int write_at(struct memory_copy *copy, const uint8_t *data, uint64_t size, uint64_t offset)
{
        while (size > 0) {
                ssize_t n = pwrite(copy->fd, data, size, (off_t)offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return error_set(&copy->error, -errno,
                                         "cannot write the guest's memory: %s", strerror(errno));
                data += n;
                offset += (uint64_t)n;
                size -= (uint64_t)n;
        }
        return 0;
}

/* @first: nothing is in the file yet, so zeroes need not be written. */
static int write_region(struct memory_copy *copy, unsigned index, uint64_t offset, bool first)
{
        const struct guest_region *region = &copy->machine->memory.regions[index];
        const uint64_t pages = region->size / MEMORY_LOG_PAGE;
        uint64_t *bits = copy->bits[index];

        for (uint64_t page = 0; page < pages;) {
                uint64_t end = page;
                int r;

                if (page % 64 == 0 && bits[page / 64] == 0) {
                        page += 64;
                        continue;
                }
                if (atomic_load_explicit(&copy->cancelled, memory_order_relaxed))
                        return error_set(&copy->error, -ECANCELED, "writing memory was cancelled");
                while (end < pages && end - page < RUN_PAGES_MAX &&
                       (bits[end / 64] >> (end % 64) & 1) &&
                       !(first && is_zero(region->host + end * MEMORY_LOG_PAGE)))
                        end++;
                if (end == page) {
                        page++;
                        continue;
                }
                r = write_at(copy, region->host + page * MEMORY_LOG_PAGE,
                             (end - page) * MEMORY_LOG_PAGE, offset + page * MEMORY_LOG_PAGE);
                if (r < 0)
                        return r;
                page = end;
        }
        memset(bits, 0, pages / 8);
        return 0;
}

static int write_round(struct memory_copy *copy, bool first)
{
        const struct guest_memory *memory = &copy->machine->memory;
        uint64_t offset = 0;
        int r = 0;

        for (unsigned i = 0; r == 0 && i < memory->n; i++) {
                if (!memory->regions[i].shared)
                        continue;
                r = write_region(copy, i, offset, first);
                offset += memory->regions[i].size;
        }
        return r;
}

/* Into bits, and how many they are into n_dirty. */
static int take_log(struct memory_copy *copy)
{
        struct guest_memory *memory = &copy->machine->memory;
        int r = 0;

        copy->n_dirty = 0;
        for (unsigned i = 0; r == 0 && i < memory->n; i++) {
                if (!memory->regions[i].shared)
                        continue;
                r = memory_log_take(memory, &memory->regions[i], copy->bits[i], &copy->error);
                for (uint64_t word = 0; word < memory->regions[i].size / MEMORY_LOG_PAGE / 64;
                     word++)
                        copy->n_dirty += (unsigned)__builtin_popcountll(copy->bits[i][word]);
        }
        return r;
}

/* Each round has less to write than three quarters of the one before, or the guest has less time. */
static void *copy_thread(void *arg)
{
        struct memory_copy *copy = arg;
        uint64_t before = UINT64_MAX;
        int r = write_round(copy, true);

        while (r == 0) {
                unsigned halvings = atomic_load(&copy->halvings);

                r = take_log(copy);
                /* What it has taken is still to be written, by the last round if not by this one. */
                if (r < 0 || copy->n_dirty <= LITTLE_PAGES)
                        break;
                if (copy->n_dirty > before / 4 * 3) {
                        if (halvings == HALVINGS_MAX)
                                break;
                        atomic_store(&copy->halvings, halvings + 1);
                }
                before = copy->n_dirty;
                r = write_round(copy, false);
        }
        copy->result = r;
        loop_post_remote(copy->machine->loop, &copy->task);
        return NULL;
}

/* ---- a guest that is faster ---- */

static void let_go(struct memory_copy *copy)
{
        const struct run *run = &copy->machine->run;

        if (copy->held && !run->paused && !run->ended)
                run_go(copy->machine);
        copy->held = false;
}

static void next_part(struct loop_timer *timer)
{
        struct memory_copy *copy = container_of(timer, struct memory_copy, timer);
        const struct run *run = &copy->machine->run;
        const unsigned halvings = atomic_load(&copy->halvings);
        const uint64_t share_ns = PERIOD_NS >> halvings;
        uint64_t part_ns = share_ns;

        if (copy->held) {
                let_go(copy);
        } else if (halvings > 0 && !run->paused && !run->ended) {
                run_rest(copy->machine);
                copy->held = true;
                part_ns = PERIOD_NS - share_ns;
        }
        loop_timer_set(copy->machine->loop, timer, loop_now_ns(copy->machine->loop) + part_ns);
}

static void end_parts(struct memory_copy *copy)
{
        loop_timer_cancel(copy->machine->loop, &copy->timer);
        let_go(copy);
}

/* ---- begin and end ---- */

static int log_devices(struct machine *machine, bool on, struct error *err)
{
        int r = 0;

        list_for_each (it, &machine->devices) {
                struct device *device = container_of(it, struct device, link);

                if (device->ops->log && (r == 0 || !on))
                        r = device->ops->log(device, on, err);
        }
        return r;
}

static void end_log(struct machine *machine)
{
        machine_lock(machine);
        log_devices(machine, false, NULL);
        memory_log_end(&machine->memory);
        machine_unlock(machine);
}

static void free_copy(struct memory_copy *copy)
{
        for (unsigned i = 0; i < MEMORY_REGIONS_MAX; i++)
                free(copy->bits[i]);
        free(copy);
}

static void join(struct memory_copy *copy)
{
        if (!copy->joined)
                pthread_join(copy->thread, NULL);
        copy->joined = true;
}

static void thread_done(struct loop_task *task)
{
        struct memory_copy *copy = container_of(task, struct memory_copy, task);
        void (*copied)(void *arg, int result, const char *sentence) = copy->copied;
        void *arg = copy->arg;
        struct error e = copy->error;
        int r = copy->result;

        join(copy);
        if (atomic_load(&copy->cancelled)) {
                free_copy(copy);
                return;
        }
        if (r < 0)
                memory_copy_cancel(copy->machine);
        copied(arg, r, r < 0 ? e.message : NULL);
}

/* Every page is to be written, but what was never touched. */
static int make_bits(struct memory_copy *copy, struct error *err)
{
        const struct guest_memory *memory = &copy->machine->memory;

        for (unsigned i = 0; i < memory->n; i++) {
                const struct guest_region *region = &memory->regions[i];
                uint64_t at = 0, end;

                if (!region->shared)
                        continue;
                copy->bits[i] = calloc(region->size / MEMORY_LOG_PAGE / 64, 8);
                if (!copy->bits[i])
                        return error_set(err, -ENOMEM, "no memory to write the guest's memory");
                for (; memory_next_touched(region, &at, &end); at = end)
                        for (uint64_t page = at / MEMORY_LOG_PAGE; page < end / MEMORY_LOG_PAGE;
                             page++)
                                copy->bits[i][page / 64] |= UINT64_C(1) << (page % 64);
        }
        return 0;
}

static uint64_t file_size(const struct guest_memory *memory)
{
        uint64_t size = 0;

        for (unsigned i = 0; i < memory->n; i++)
                if (memory->regions[i].shared)
                        size += memory->regions[i].size;
        return size;
}

int memory_copy_begin(struct machine *machine, int fd,
                      void (*copied)(void *arg, int result, const char *sentence), void *arg,
                      struct error *err)
{
        struct memory_copy *copy;
        int r;

        if (machine->copy)
                return error_set(err, -EBUSY, "the guest's memory is being written already");
        if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)file_size(&machine->memory)) < 0)
                return error_set(err, -errno, "cannot make a file for the guest's memory: %s",
                                 strerror(errno));
        copy = calloc(1, sizeof(*copy));
        if (!copy)
                return error_set(err, -ENOMEM, "no memory to write the guest's memory");
        *copy = (struct memory_copy){.machine = machine,
                                     .fd = fd,
                                     .copied = copied,
                                     .arg = arg,
                                     .task.run = thread_done,
                                     .timer.fire = next_part};
        machine_lock(machine);
        r = memory_log_begin(&machine->memory, err);
        if (r == 0)
                r = log_devices(machine, true, err);
        machine_unlock(machine);
        /* What is a hole now, and is touched later, is in the log. */
        if (r == 0)
                r = make_bits(copy, err);
        if (r == 0) {
                r = -pthread_create(&copy->thread, NULL, copy_thread, copy);
                if (r < 0)
                        error_set(err, r, "cannot start a thread to write the guest's memory: %s",
                                  strerror(-r));
        }
        if (r < 0) {
                end_log(machine);
                free_copy(copy);
                return r;
        }
        machine->copy = copy;
        next_part(&copy->timer);
        return 0;
}

int memory_copy_finish(struct machine *machine, uint64_t *ret_bytes, struct error *err)
{
        struct memory_copy *copy = machine->copy;
        int r;

        assert(copy && copy->joined);
        end_parts(copy);
        if (machine->run.ended)
                r = error_set(&copy->error, -ESHUTDOWN, "the machine has come to its end");
        else
                r = take_log(copy);
        *ret_bytes = copy->n_dirty * MEMORY_LOG_PAGE;
        if (r == 0)
                r = write_round(copy, false);
        if (r < 0)
                error_set(err, r, "%s", copy->error.message);
        machine->copy = NULL;
        end_log(machine);
        free_copy(copy);
        return r;
}

void memory_copy_cancel(struct machine *machine)
{
        struct memory_copy *copy = machine->copy;

        if (!copy)
                return;
        machine->copy = NULL;
        end_parts(copy);
        if (copy->joined) {
                end_log(machine);
                free_copy(copy);
                return;
        }
        /* The thread has posted its task, or will have: which frees what there is. */
        atomic_store(&copy->cancelled, true);
        join(copy);
        end_log(machine);
}

/* What the file has of a region, which lies at @offset there. */
static int load_region(const struct guest_region *region, int fd, uint64_t offset,
                       struct error *err)
{
        const off_t end = (off_t)(offset + region->size);
        off_t at = (off_t)offset;

        for (;;) {
                off_t hole;
                int r;

                at = lseek(fd, at, SEEK_DATA);
                if (at >= end || (at < 0 && errno == ENXIO))
                        return 0;
                hole = at < 0 ? -1 : lseek(fd, at, SEEK_HOLE);
                if (hole < 0)
                        return error_set(err, -errno, "cannot read the saved memory: %s",
                                         strerror(errno));
                hole = hole < end ? hole : end;
                r = boot_read(fd, (uint64_t)at, region->host + ((uint64_t)at - offset),
                              (size_t)(hole - at), "saved memory", err);
                if (r < 0)
                        return r;
                at = hole;
        }
}

int memory_copy_load(struct machine *machine, int fd, struct error *err)
{
        struct guest_memory *memory = &machine->memory;
        uint64_t size, offset = 0;
        int r = boot_file_size(fd, "saved memory", &size, err);

        if (r == 0 && size != file_size(memory))
                r = error_set(err, -EINVAL,
                              "the saved memory is of %llu MiB, and this machine's of %llu",
                              (unsigned long long)(size >> 20),
                              (unsigned long long)(file_size(memory) >> 20));
        for (unsigned i = 0; r == 0 && i < memory->n; i++) {
                struct guest_region *region = &memory->regions[i];

                if (!region->shared)
                        continue;
                /* What was loaded for a fresh start is not what was there. */
                memory_zero(memory, region->host, region->size);
                r = load_region(region, fd, offset, err);
                offset += region->size;
        }
        return r;
}
