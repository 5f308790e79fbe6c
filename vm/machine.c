/* machine.c - a running virtual machine: waiting, orders to the VMM, what it says, the end. */
#include "vm/machine.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"

/* From an order to end to SIGKILL. */
#define KILL_WAIT_NS (5 * MACHINE_SECOND_NS)
/* For what the guest has to say after its kernel has panicked. */
#define PANIC_WAIT_NS MACHINE_SECOND_NS

/* ---- waiting ---- */

struct wait {
        struct list link; /* m->waits */
        struct machine *m;
        struct loop_io *io;
        struct loop_timer timer;
        bool timed_out;
};

int machine_spawn(struct machine *m, co_entry *entry, void *arg)
{
        int r;

        m->n_coroutines++;
        r = co_spawn(m->loop, entry, arg);
        if (r < 0)
                m->n_coroutines--;
        return r;
}

void machine_left(struct machine *m)
{
        m->n_coroutines--;
        co_wake_all(&m->changed);
}

static void wait_timed_out(struct loop_timer *timer)
{
        struct wait *w = container_of(timer, struct wait, timer);

        w->timed_out = true;
        loop_cancel(w->m->loop, w->io);
}

int co_machine_io(struct machine *m, struct loop_io *io, uint64_t timeout_ns)
{
        struct wait w = {.m = m, .io = io, .timer.fire = wait_timed_out};
        int r;

        if (m->ending)
                return -ECANCELED;
        list_append(&m->waits, &w.link);
        if (timeout_ns > 0)
                loop_timer_set(m->loop, &w.timer, loop_now_ns(m->loop) + timeout_ns);
        r = co_io(io);
        loop_timer_cancel(m->loop, &w.timer);
        list_remove(&w.link);
        return r == -ECANCELED && w.timed_out ? -ETIMEDOUT : r;
}

int co_machine_poll(struct machine *m, int fd, uint32_t events, uint64_t timeout_ns)
{
        struct loop_io io = {.op = LOOP_POLL, .fd = fd, .flags = events};

        return co_machine_io(m, &io, timeout_ns);
}

struct alarm {
        struct loop_timer timer;
        struct machine *m;
};

static void alarm_rings(struct loop_timer *timer)
{
        co_wake_all(&container_of(timer, struct alarm, timer)->m->changed);
}

void co_machine_wait(struct machine *m, uint64_t deadline_ns)
{
        struct alarm alarm = {.timer.fire = alarm_rings, .m = m};

        loop_timer_set(m->loop, &alarm.timer, deadline_ns);
        co_wait(&m->changed);
        loop_timer_cancel(m->loop, &alarm.timer);
}

/* ---- orders ---- */

struct order {
        struct list link; /* m->orders */
        uint32_t number;
        bool answered;
        struct error error;
};

static bool is_to_end(const struct machine *m)
{
        return m->stopping || m->quit;
}

static bool is_cut_short(const struct machine *m, const struct machine_order *order)
{
        return order->wait_ns && (order->past_stop ? m->quit : is_to_end(m));
}

static int co_wait_answer(struct machine *m, struct order *o, const struct machine_order *order,
                          struct error *err)
{
        uint64_t deadline_ns =
            loop_now_ns(m->loop) + (order->wait_ns ? order->wait_ns : machine_limits.answer_ns);

        while (!o->answered && m->channel_open && loop_now_ns(m->loop) < deadline_ns &&
               !is_cut_short(m, order))
                co_machine_wait(m, deadline_ns);
        if (o->answered) {
                if (o->error.code < 0 && err)
                        *err = o->error;
                return o->error.code;
        }
        if (!m->channel_open)
                return error_set(err, -ESRCH, "machine '%s' has ended", m->known->name);
        if (is_cut_short(m, order))
                return error_set(err, -ECANCELED, "interrupted");
        return error_set(err, -ETIMEDOUT, "the process of machine '%s' does not answer",
                         m->known->name);
}

int co_machine_order(struct machine *m, const struct machine_order *order, struct error *err)
{
        struct order o = {.number = ++m->last_number};
        struct channel_message message = {.kind = order->kind,
                                          .number = o.number,
                                          .readonly = order->readonly,
                                          .value = order->value};
        int r;

        if (!m->channel_open)
                return error_set(err, -ESRCH, "machine '%s' has ended", m->known->name);
        if (order->id)
                strncpy(message.id, order->id, sizeof(message.id) - 1);
        r = channel_send(m->channel, &message, order->fd, false);
        if (r < 0)
                return error_set(err, r, "the process of machine '%s' does not listen: %s",
                                 m->known->name, strerror(-r));
        list_append(&m->orders, &o.link);
        r = co_wait_answer(m, &o, order, err);
        list_remove(&o.link);
        return r;
}

int co_machine_say(struct machine *m, enum channel_kind kind, struct error *err)
{
        return co_machine_order(m, &(struct machine_order){.kind = kind, .fd = -1}, err);
}

int co_machine_hold(struct machine *m, uint64_t deadline_ns, struct error *err)
{
        while (m->held && m->channel_open && !m->quit && loop_now_ns(m->loop) < deadline_ns)
                co_machine_wait(m, deadline_ns);
        if (!m->channel_open || m->quit)
                return error_set(err, -ESRCH, "machine '%s' has ended", m->known->name);
        if (m->held)
                return error_set(err, -EBUSY,
                                 "machine '%s' is being paused, resumed or reset, or a snapshot of "
                                 "it taken",
                                 m->known->name);
        m->held = true;
        return 0;
}

void machine_let_go(struct machine *m)
{
        m->held = false;
        co_wake_all(&m->changed);
}

static int co_say_held(struct machine *m, enum channel_kind kind, struct error *err)
{
        enum machine_state then = kind == CHANNEL_PAUSE    ? MACHINE_PAUSED
                                  : kind == CHANNEL_RESUME ? MACHINE_RUNNING
                                                           : m->state;
        /* Also where it is so already: an order that was not answered in time may have been obeyed since. */
        int r = co_machine_say(m, kind, err);

        if (r == 0 && m->state != MACHINE_ENDED)
                m->state = then;
        return r;
}

int co_machine_turn(struct machine *m, enum channel_kind kind, struct error *err)
{
        int r = co_machine_hold(m, loop_now_ns(m->loop) + MACHINE_HOLD_WAIT_NS, err);

        if (r < 0)
                return r;
        r = co_say_held(m, kind, err);
        machine_let_go(m);
        return r;
}

/* Of an order that nobody waits for any more, or never gave: it may lie. */
static void take_answer(struct machine *m, const struct channel_message *message)
{
        list_for_each (it, &m->orders) {
                struct order *o = container_of(it, struct order, link);

                if (o->number != message->number || o->answered)
                        continue;
                o->answered = true;
                if (message->result < 0)
                        channel_error(message, &o->error);
                return;
        }
}

/* ---- what the VMM says ---- */

/* The first word counts. */
static void remember_end(struct machine *m, const struct error *e)
{
        if (m->end_told)
                return;
        m->end_told = true;
        m->end = *e;
}

static void co_after_panic(void *machine)
{
        struct machine *m = machine;
        uint64_t deadline_ns = loop_now_ns(m->loop) + PANIC_WAIT_NS;
        struct error e = ERROR_INIT;

        while (m->channel_open && !m->ending && loop_now_ns(m->loop) < deadline_ns)
                co_machine_wait(m, deadline_ns);
        if (m->channel_open && m->known->file->on_crash == VM_ON_CRASH_REBOOT) {
                /* It may have begun anew by itself meanwhile. */
                if (m->panicked && co_machine_turn(m, CHANNEL_RESET, &e) < 0)
                        log_warning("it is not reset: %s", e.message);
        } else if (m->channel_open) {
                error_set(&e, -EIO, "the guest's kernel has panicked");
                remember_end(m, &e);
                co_machine_stop(m, 0);
        }
        m->after_panic = false;
        machine_left(m);
}

/* A guest may panic as often as it likes, and begin anew each time: it is one line until a reset, a few
 * a second at most, and one coroutine. */
static void panicked(struct machine *m)
{
        if (!m->panicked &&
            log_limit_admits(&m->panic_lines, loop_now_ns(m->loop), m->known->name, "panics"))
                log_error("machine '%s': the guest's kernel has panicked", m->known->name);
        m->panicked = true;
        if (m->after_panic)
                return;
        m->after_panic = machine_spawn(m, co_after_panic, m) == 0;
        if (!m->after_panic)
                log_error("out of memory");
}

static void take_event(struct machine *m, const struct channel_message *message)
{
        struct error e = ERROR_INIT;

        switch (message->kind) {
        case CHANNEL_READY:
                m->ready = true;
                break;
        case CHANNEL_ANSWER:
                take_answer(m, message);
                break;
        case CHANNEL_ENDED:
                if (message->result < 0)
                        channel_error(message, &e);
                remember_end(m, &e);
                break;
        case CHANNEL_WAS_RESET:
                m->n_resets++;
                m->panicked = false;
                break;
        case CHANNEL_PANICKED:
                panicked(m);
                break;
        case CHANNEL_DISK_LOST:
                machine_disk_lost(m, message->id);
                break;
        case CHANNEL_NIC_LOST:
                machine_nic_lost(m, message->id);
                break;
        case CHANNEL_MEMORY_COPIED:
                m->copied = true;
                m->copy_error = ERROR_INIT;
                if (message->result < 0)
                        channel_error(message, &m->copy_error);
                break;
        case CHANNEL_DISK_REMOVED:
                machine_disk_removed(m, message->id);
                break;
        default:
                break;
        }
        co_wake_all(&m->changed);
}

/* ---- the end of its process ---- */

/* It has hung up, and so ends, or is made to. */
static void reap(struct machine *m)
{
        int status = 0;
        pid_t pid;

        if (m->vmm_pid <= 0)
                return;
        kill(m->vmm_pid, SIGKILL);
        do {
                pid = waitpid(m->vmm_pid, &status, 0);
        } while (pid < 0 && errno == EINTR);
        m->vmm_pid = 0;
        machine_disks_hang_up(m);
        if (m->quit || m->end_told)
                return;
        error_set(&m->end, -EIO, "the process of machine '%s' has ended%s%s", m->known->name,
                  WIFSIGNALED(status) ? ": " : "",
                  WIFSIGNALED(status) ? sigdescr_np(WTERMSIG(status)) : "");
}

void co_machine_listen(void *machine)
{
        struct machine *m = machine;
        struct channel_message message;
        struct error e = ERROR_INIT;
        int r = 0;

        for (;;) {
                r = channel_receive_event(m->channel, &message);
                if (r == -EAGAIN)
                        r = co_machine_poll(m, m->channel, POLLIN, 0) < 0 && m->ending ? -ECANCELED
                                                                                       : 1;
                else if (r == 1)
                        take_event(m, &message);
                if (r != 1)
                        break;
        }
        if (r == -EBADMSG) {
                error_set(&e, r, "the machine's process says what makes no sense: it is ended");
                remember_end(m, &e);
        }
        m->channel_open = false;
        reap(m);
        m->state = MACHINE_ENDED;
        co_wake_all(&m->changed);
        machine_left(m);
}

static void co_wait_ended(struct machine *m)
{
        while (m->state != MACHINE_ENDED && !m->quit && loop_now_ns(m->loop) < m->stop_deadline_ns)
                co_machine_wait(m, m->stop_deadline_ns);
}

static void co_force(struct machine *m)
{
        struct channel_message stop = {.kind = CHANNEL_STOP, .number = ++m->last_number};
        uint64_t deadline_ns = loop_now_ns(m->loop) + KILL_WAIT_NS;

        m->quit = true;
        co_wake_all(&m->changed);
        if (m->channel_open && channel_send(m->channel, &stop, -1, false) < 0)
                deadline_ns = 0;
        while (m->state != MACHINE_ENDED && loop_now_ns(m->loop) < deadline_ns)
                co_machine_wait(m, deadline_ns);
        if (m->state != MACHINE_ENDED && m->vmm_pid > 0)
                kill(m->vmm_pid, SIGKILL);
        while (m->state != MACHINE_ENDED)
                co_machine_wait(m, loop_now_ns(m->loop) + KILL_WAIT_NS);
}

static int co_press_power_button(struct machine *m, struct error *err)
{
        int r;

        do
                r = co_machine_hold(m, m->stop_deadline_ns, err);
        while (r == -EBUSY && loop_now_ns(m->loop) < m->stop_deadline_ns); /* a later one's */
        if (r < 0)
                return r;
        r = co_say_held(m, CHANNEL_RESUME, err);
        if (r == 0)
                r = co_machine_say(m, CHANNEL_POWER_BUTTON, err);
        machine_let_go(m);
        return r;
}

bool co_machine_stop(struct machine *m, uint64_t timeout_ns)
{
        struct error e = ERROR_INIT;

        m->stopping = true;
        m->stop_deadline_ns = loop_now_ns(m->loop) + timeout_ns;
        co_wake_all(&m->changed);
        if (timeout_ns > 0 && (m->state == MACHINE_RUNNING || m->state == MACHINE_PAUSED)) {
                if (co_press_power_button(m, &e) == 0)
                        co_wait_ended(m);
                else if (m->state != MACHINE_ENDED && !m->quit)
                        log_warning("the power button cannot be pressed: %s", e.message);
        }
        if (m->state == MACHINE_ENDED)
                return m->quit;
        co_force(m);
        return true;
}

void co_machine_end(struct machine *m)
{
        while (m->saving)
                co_wait(&m->changed);
        m->ending = true;
        list_for_each (it, &m->waits)
                loop_cancel(m->loop, container_of(it, struct wait, link)->io);
        console_end(&m->console);
        co_wake_all(&m->changed);
        while (m->n_coroutines > 0)
                co_wait(&m->changed);
}
