/* negotiate.c - from the greeting to the chosen export. The whole of it stands under one deadline,
 * set by client_new(); the peer decides only how much of it is used. Reads are exact: nothing that
 * belongs to the next phase is ever buffered, so the switch to TLS finds no plain text
 * (CVE-2021-3716). */
#include <errno.h>
#include <stdlib.h>
#include "nbd-server/tls.h"

/* Bytes in full, or negative: -ECONNRESET at the end of the stream, -ECANCELED where the client was
 * cut. */
static int co_transfer(struct nbd_client *client, enum loop_io_op op, void *data, size_t length)
{
        size_t done = 0;

        while (done < length) {
                struct iovec iov = {(uint8_t *)data + done, length - done};
                struct loop_io io = {.op = op, .fd = client->fd, .iov = &iov, .n_iov = 1};

                if (client->state == CLIENT_DEAD)
                        return -ECANCELED;
                if (op == LOOP_RECV)
                        rights_arm(client, &io);
                client->negotiation_io = &io;
                int n = co_io(&io);
                client->negotiation_io = NULL;
                rights_take(client, &io, n);
                if (n == -EINTR || n == -EAGAIN)
                        continue;
                if (n <= 0)
                        return n < 0 ? n : -ECONNRESET;
                done += (size_t)n;
                client->between_options = false;
        }
        return 0;
}

static int co_receive(struct nbd_client *client, void *data, size_t length)
{
        return client->tls ? co_tls_receive(client, data, length)
                           : co_transfer(client, LOOP_RECV, data, length);
}

static int co_send(struct nbd_client *client, const void *data, size_t length)
{
        return client->tls ? co_tls_send(client, data, length)
                           : co_transfer(client, LOOP_SENDMSG, (void *)data, length);
}

static int refuse(struct nbd_client *client, const char *why)
{
        client_cut(client, why);
        return -EPROTO;
}

static int co_greet(struct nbd_client *client)
{
        struct nbd_greeting greeting = {
            .magic = be64_make(NBD_MAGIC),
            .option_magic = be64_make(NBD_OPTION_MAGIC),
            .flags = be16_make(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES),
        };
        be32 flags;
        int r = co_send(client, &greeting, sizeof(greeting));

        client->between_options = true;
        if (r == 0)
                r = co_receive(client, &flags, sizeof(flags));
        if (r < 0)
                return r;
        if (be32_get(flags) & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES))
                return refuse(client, "it set unknown client flags"); /* proto.md: MUST drop */
        client->fixed_newstyle = (be32_get(flags) & NBD_FLAG_FIXED_NEWSTYLE) != 0;
        client->no_zeroes = (be32_get(flags) & NBD_FLAG_NO_ZEROES) != 0;
        return 0;
}

/* One option's data, all of it taken before anything is replied. */
static int co_receive_option(struct nbd_client *client, struct option *ret_option,
                             uint8_t **ret_data)
{
        struct nbd_option header;

        client->between_options = true;
        int r = co_receive(client, &header, sizeof(header));
        if (r < 0)
                return r;
        if (be64_get(header.magic) != NBD_OPTION_MAGIC)
                return refuse(client, "it sent what is no option");
        uint32_t length = be32_get(header.length);
        if (length > OPTION_LENGTH_MAX)
                return refuse(client, "its option is too long");
        if (client->n_options++ >= OPTIONS_MAX)
                return refuse(client, "it sent too many options");
        uint8_t *data = malloc(length + 1);
        if (!data)
                return refuse(client, "no memory for its option");
        r = co_receive(client, data, length);
        if (r < 0) {
                free(data);
                return r;
        }
        *ret_option = (struct option){be32_get(header.option), data, length};
        *ret_data = data;
        return 0;
}

static int co_one_option(struct nbd_client *client, enum option_outcome *ret_outcome)
{
        struct option option;
        struct option_replies replies = {0};
        uint8_t *data = NULL;
        int r = co_receive_option(client, &option, &data);

        if (r < 0)
                return r;
        *ret_outcome = co_option(client, &option, &replies);
        if (replies.failed)
                r = refuse(client, "no memory for replies to its options");
        else if (*ret_outcome == OPTION_START_TLS && client_input_waits(client))
                r = refuse(client, "it sent plain text behind STARTTLS");
        else
                r = co_send(client, replies.data, replies.length);
        free(replies.data);
        free(data);
        if (r == 0 && *ret_outcome == OPTION_START_TLS) {
                r = co_tls_start(client);
                *ret_outcome = OPTION_CONTINUE;
        }
        return r;
}

int co_negotiate(struct nbd_client *client)
{
        enum option_outcome outcome = OPTION_CONTINUE;
        int r = co_greet(client);

        while (r == 0 && outcome == OPTION_CONTINUE)
                r = co_one_option(client, &outcome);
        if (r == 0 && (outcome == OPTION_CLOSE || client->state == CLIENT_DEAD))
                r = -ECONNABORTED;
        return r;
}
