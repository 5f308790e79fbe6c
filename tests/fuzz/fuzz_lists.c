/* fuzz_lists.c - files of an administrator: pre-shared keys, and the list of who may open what. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "nbd-server/tls.h"
#include "server/access.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_keys(const uint8_t *data, size_t size)
{
        char *text = malloc(size + 1);
        struct psk_user *users;
        struct error err = ERROR_INIT;
        size_t n;

        if (!text)
                abort();
        memcpy(text, data, size);
        text[size] = 0;
        if (psk_parse(text, "keys", &users, &n, &err) == 0) {
                struct nbd_tls tls = {.users = users, .n_users = n};
                for (size_t i = 0; i < n; i++)
                        if (psk_find(&tls, users[i].name, strlen(users[i].name)) != &users[i])
                                abort();
                free(users);
        }
        free(text);
}

static void read_access(const uint8_t *data, size_t size)
{
        static const char *const names[] = {"psk:alice", "cn:bob", "dn:CN=bob,O=*"};
        struct access_list *list;
        struct error err = ERROR_INIT;
        char path[32];
        int fd = memfd_create("access", MFD_CLOEXEC);

        if (fd < 0 || write(fd, data, size) != (ssize_t)size)
                abort();
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        if (access_load(path, &list, &err) == 0) {
                access_decide(list, names, 3, "tank/web");
                access_decide(list, names, 0, "tank/web@monday");
                access_unref(list);
        }
        close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        if (size > 0 && data[0] % 2)
                read_keys(data + 1, size - 1);
        else if (size > 0)
                read_access(data + 1, size - 1);
        return 0;
}
