/* channel.c - messages between supervisor and VMM. */
#include "vm/channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/passed_fds.h"

int channel_open(int ret_fds[2], struct error *err)
{
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_fds) < 0)
                return error_set(err, -errno, "cannot make a channel to the machine: %s",
                                 strerror(errno));
        return 0;
}

int channel_send(int channel, const struct channel_message *m, int fd, bool wait)
{
        ssize_t n;

        do {
                n = passed_fds_send(channel, m, sizeof(*m), &fd, fd >= 0 ? 1 : 0,
                                    wait ? 0 : MSG_DONTWAIT);
        } while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : 0;
}

int channel_receive_order(int channel, struct channel_message *ret, int *ret_fd)
{
        int fd = -1;
        struct passed_fds fds = {.fds = &fd, .max = 1};
        ssize_t n = passed_fds_receive(channel, ret, sizeof(*ret), &fds);

        if (n == (ssize_t)sizeof(*ret)) {
                ret->id[CHANNEL_ID_SIZE - 1] = '\0';
                *ret_fd = fd;
                return 1;
        }
        if (fd >= 0)
                close(fd);
        return n > 0 ? -EBADMSG : (int)n;
}

/* ---- what a VMM says ---- */

int channel_error(const struct channel_message *m, struct error *err)
{
        error_set(err, m->result, "%s", m->text[0] ? m->text : strerror(-m->result));
        if (m->hint[0])
                error_hint(err, "%s", m->hint);
        return m->result;
}

static bool is_id(const char id[CHANNEL_ID_SIZE])
{
        size_t n = strnlen(id, CHANNEL_ID_SIZE);

        if (n == CHANNEL_ID_SIZE)
                return false;
        for (size_t i = 0; i < n; i++)
                if (!((id[i] >= 'a' && id[i] <= 'z') || (id[i] >= '0' && id[i] <= '9') ||
                      id[i] == '-'))
                        return false;
        return true;
}

/* It is shown on terminals and put into JSON. */
static void make_printable(char *text, size_t size)
{
        text[size - 1] = '\0';
        for (char *p = text; *p; p++)
                if (*p < ' ' || *p > '~')
                        *p = '?';
}

int channel_check_event(const void *bytes, size_t length, struct channel_message *ret)
{
        struct channel_message m;

        if (length != sizeof(m))
                return -EBADMSG;
        memcpy(&m, bytes, sizeof(m));
        if (m.kind < CHANNEL_READY || m.kind > CHANNEL_MEMORY_COPIED || !is_id(m.id) ||
            m.result > 0 || m.result < -4095)
                return -EBADMSG;
        make_printable(m.text, sizeof(m.text));
        make_printable(m.hint, sizeof(m.hint));
        *ret = m;
        return 1;
}

int channel_receive_event(int channel, struct channel_message *ret)
{
        /* One more, to see a longer one. Without a place for them the kernel drops descriptors. */
        uint8_t bytes[sizeof(struct channel_message) + 1];
        ssize_t n = recv(channel, bytes, sizeof(bytes), MSG_DONTWAIT);

        if (n < 0)
                return errno == EINTR ? -EAGAIN : -errno;
        return n == 0 ? 0 : channel_check_event(bytes, (size_t)n, ret);
}
