/* ask.c - asking the supervisor of a machine that runs. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "server/client.h"
#include "vm/vm.h"

static int does_not_run(const char *name, struct error *err)
{
        struct known *k;
        int r = known_open(name, &k, err);

        if (r < 0)
                return r;
        known_free(k);
        error_set(err, -ENOTCONN, "machine '%s' does not run", name);
        return error_hint(err, "'tarn vm start %s' starts it", name);
}

int vm_connect(const char *name, int *ret_fd, struct error *err)
{
        char path[PATH_MAX];
        int r = known_socket(name, path, sizeof(path), err);

        if (r < 0)
                return r;
        r = socket_connect_unix(path, ret_fd);
        if (r == -ENOENT || r == -ECONNREFUSED)
                return does_not_run(name, err);
        return r < 0 ? error_set(err, r, "machine '%s' cannot be asked at '%s': %s", name, path,
                                 strerror(-r))
                     : 0;
}

int vm_ask(const char *name, json_t *request, json_t **ret_reply, struct error *err)
{
        struct client_call call = {.request = request, .signal_fd = -1};
        json_t *reply = NULL;
        int fd, r;

        if (!request)
                return error_set(err, -ENOMEM, "out of memory");
        r = vm_connect(name, &fd, err);
        if (r == 0) {
                r = client_run(fd, &call, &reply, err);
                close(fd);
        }
        json_decref(request);
        if (ret_reply)
                *ret_reply = reply;
        else
                json_decref(reply);
        return r;
}
