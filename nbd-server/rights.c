/* rights.c - descriptors that clients of Unix sockets pass along (unix(7), SCM_RIGHTS).
 *
 * The protocol has no use for any. But somebody closes them, and that may take as long as their
 * owner likes (common/closer.h): if there is no room for them when a message is received, it is the
 * kernel, in the name of the thread that receives; if they are never received, it is the thread that
 * closes the socket.
 *
 * Linux 6.16 lets a socket refuse them: sending them fails then, and nothing is to be done here for
 * those who connect from then on. From others, and all on older kernels, messages are received with
 * room for descriptors, and these and the socket are closed elsewhere. */
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include "common/closer.h"
#include "common/passed_fds.h"
#include "nbd-server/internal.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* Linux 6.16, asm-generic/socket.h */
#endif

struct rights {
        union {
                char buffer[CMSG_SPACE(PASSED_FDS_MAX * sizeof(int))];
                struct cmsghdr align;
        } control;
};

void rights_refuse(int listener)
{
        int off = 0;

        setsockopt(listener, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off));
}

static bool may_come(int fd)
{
        int domain = AF_UNSPEC, pass = 1;
        socklen_t length = sizeof(domain);

        if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain != AF_UNIX)
                return false;
        length = sizeof(pass);
        return getsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &pass, &length) < 0 || pass != 0;
}

int rights_expect(struct nbd_client *client)
{
        if (!may_come(client->fd))
                return 0;
        client->rights = malloc(sizeof(*client->rights));
        return client->rights ? 0 : -ENOMEM;
}

void rights_arm(const struct nbd_client *client, struct loop_io *io)
{
        if (!client->rights)
                return;
        io->op = LOOP_RECVMSG;
        io->msg = (struct msghdr){.msg_control = client->rights->control.buffer,
                                  .msg_controllen = sizeof(client->rights->control.buffer)};
}

void rights_take(struct nbd_client *client, struct loop_io *io, int result)
{
        if (!client->rights || io->op != LOOP_RECVMSG)
                return;
        if (result >= 0 && io->msg.msg_controllen > 0) {
                passed_fds_take(&io->msg, &(struct passed_fds){.n = 0});
                client_cut(client, "it passed descriptors, for which there is no use");
        }
        rights_arm(client, io);
}

/* The other end is to see it at once. */
void rights_close(int fd)
{
        if (may_come(fd)) {
                shutdown(fd, SHUT_RDWR);
                close_elsewhere(NULL, fd);
        } else {
                close(fd);
        }
}
