/* nics.c - a passt that has ended while its machine runs: another one takes its place.
 *
 * The guest sees its cable pulled and put in again; connections that went by the old one are gone. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "vm/machine.h"
#include "vm/net.h"

/* One that ends again soon is not started as fast as it ends. */
#define STEADY_NS     (60 * MACHINE_SECOND_NS)
#define PAUSE_NS      MACHINE_SECOND_NS
#define PAUSE_MAX_NS  (64 * MACHINE_SECOND_NS)
#define PASST_WAIT_NS (VM_NET_WAIT_MS * UINT64_C(1000000))

struct restart {
        struct machine *m;
        size_t i;
};

static int co_listen(struct machine *m, struct vm_passt *passt)
{
        uint64_t deadline_ns = loop_now_ns(m->loop) + PASST_WAIT_NS;
        int r;

        while ((r = vm_passt_listen(passt)) == -EAGAIN) {
                uint64_t now_ns = loop_now_ns(m->loop);

                if (now_ns >= deadline_ns)
                        return -ETIMEDOUT;
                r = co_machine_poll(m, passt->says, POLLIN, deadline_ns - now_ns);
                if (r < 0)
                        return r;
        }
        return r;
}

static int co_replace(struct machine *m, size_t i, struct error *err)
{
        char id[CHILD_NIC_ID_SIZE];
        struct machine_order order = {.kind = CHANNEL_NIC_CONNECT, .id = id};
        struct vm_passt passt;
        int r = vm_passt_begin(&m->known->file->nics[i], &passt, err);

        if (r == 0)
                r = vm_passt_end(&passt, co_listen(m, &passt), &order.fd, err);
        if (r < 0)
                return r;
        child_nic_id(i, id);
        r = co_machine_order(m, &order, err);
        close(order.fd); /* with what the VMM has not taken passt ends */
        return r;
}

/* False: the machine has ended meanwhile. */
static bool co_hold_back(struct machine *m, struct machine_nic *nic)
{
        uint64_t now_ns = loop_now_ns(m->loop), deadline_ns;

        if (nic->started_ns == 0 || now_ns - nic->started_ns >= STEADY_NS)
                nic->pause_ns = 0;
        else
                nic->pause_ns = nic->pause_ns == 0 ? PAUSE_NS : 2 * nic->pause_ns;
        if (nic->pause_ns > PAUSE_MAX_NS)
                nic->pause_ns = PAUSE_MAX_NS;
        deadline_ns = now_ns + nic->pause_ns;
        while (!m->ending && m->channel_open && loop_now_ns(m->loop) < deadline_ns)
                co_machine_wait(m, deadline_ns);
        nic->started_ns = loop_now_ns(m->loop);
        return !m->ending && m->channel_open;
}

static void co_restart(void *arg)
{
        struct restart *restart = arg;
        struct machine *m = restart->m;
        size_t i = restart->i;
        char said[sizeof(((struct error *)0)->message)] = "";

        free(restart);
        while (co_hold_back(m, &m->nics[i])) {
                struct error e = ERROR_INIT;
                int r = co_replace(m, i, &e);

                if (r == 0) {
                        log_info("network card %zu is back: passt was started again", i);
                        break;
                }
                if (strcmp(said, e.message) != 0 && !m->ending) /* once for each reason */
                        log_warning("network card %zu stays without a network: %s", i, e.message);
                memcpy(said, e.message, sizeof(said));
        }
        m->nics[i].restarting = false;
        machine_left(m);
}

void machine_nic_lost(struct machine *m, const char *id)
{
        const struct vm_file *file = m->known->file;
        char own[CHILD_NIC_ID_SIZE] = "";
        struct restart *restart;
        size_t i = 0;

        for (; i < file->n_nics; i++) {
                child_nic_id(i, own);
                if (strcmp(own, id) == 0)
                        break;
        }
        if (i == file->n_nics || file->nics[i].type != VM_NIC_USER || m->nics[i].restarting)
                return;
        log_warning("network card %zu: passt has ended", i);
        restart = malloc(sizeof(*restart));
        if (restart) {
                *restart = (struct restart){m, i};
                m->nics[i].restarting = true;
        }
        if (!restart || machine_spawn(m, co_restart, restart) < 0) {
                log_error("network card %zu stays without a network: out of memory", i);
                m->nics[i].restarting = false;
                free(restart);
        }
}
