/* list.c - one list over several pools. */
#include "cli/list.h"

#include "server/json_memory.h"
#include "server/state.h"

static int collect_one(const char *command, const char *pool, unsigned wait_ms, const char *key,
                       const char *other_key, json_t *all)
{
        const struct cli_call call = {
            .pool = pool, .request = json_pack("{s:s}", "command", command), .wait_ms = wait_ms};
        json_t *reply;

        if (cli_call(&call, &reply) < 0)
                return EXIT_FAILURE;
        json_array_extend(json_object_get(all, key), json_object_get(reply, key));
        if (other_key)
                json_array_extend(json_object_get(all, other_key),
                                  json_object_get(reply, other_key));
        if (json_memory_failures() > 0)
                cli_no_memory();
        json_decref(reply);
        return EXIT_SUCCESS;
}

int cli_collect(const char *command, const char *pool, const char *key, const char *other_key,
                json_t **ret_all)
{
        struct error e = ERROR_INIT;
        json_t *all = json_object();
        char **names;
        size_t n;
        int status = EXIT_SUCCESS;

        json_object_set_new(all, key, json_array());
        if (other_key)
                json_object_set_new(all, other_key, json_array());
        if (json_memory_failures() > 0) /* it would be short of pools, or seem empty */
                cli_no_memory();
        *ret_all = all;
        if (pool)
                return collect_one(command, pool, 0, key, other_key, all);
        if (state_names(&names, &n, &e) < 0)
                return cli_fail(&e);
        for (size_t i = 0; i < n; i++)
                if (collect_one(command, names[i], CLI_LIST_WAIT_MS, key, other_key, all) !=
                    EXIT_SUCCESS)
                        status = EXIT_FAILURE;
        state_names_free(names, n);
        return status;
}
