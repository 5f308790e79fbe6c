/* test_state.c - state files: what is saved comes back, what is damaged is refused, writers take
 * turns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "server/state.h"

static const uint8_t uuid_a[16] = {0xde, 0xad, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14};
static const uint8_t uuid_b[16] = {0xbe, 0xef};

static char folder[64];

static int setup(void **state)
{
        snprintf(folder, sizeof(folder), "/tmp/tarn-state-XXXXXX");
        if (!mkdtemp(folder))
                return -1;
        return setenv("TARN_STATE_DIR", folder, 1);
}

static int teardown(void **state)
{
        char command[128];

        snprintf(command, sizeof(command), "rm -rf '%s'", folder);
        return system(command);
}

static struct pool_state *new_state(const char *name)
{
        struct pool_state *s = state_new(name, uuid_a);

        assert_non_null(s);
        assert_int_equal(state_set_member(s, "/srv/one", uuid_a), 0);
        assert_int_equal(state_set_member(s, "/srv/\xc3\xa4 \"b\"", uuid_b), 0);
        return s;
}

static void write_text(const char *name, const char *text)
{
        char path[PATH_MAX];
        FILE *f;

        snprintf(path, sizeof(path), "%s/%s", folder, name);
        f = fopen(path, "w");
        assert_non_null(f);
        assert_true(fputs(text, f) >= 0);
        assert_int_equal(fclose(f), 0);
}

static void what_is_saved_is_loaded(void **unused)
{
        struct pool_state *s = new_state("tank"), *back;
        struct error e = ERROR_INIT;
        char *nbd[] = {"nbd+unix:///?socket=/x"};

        assert_int_equal(state_set_server(s, "/run/x.control", 4711, nbd, 1), 0);
        assert_int_equal(state_save(s, &e), 0);
        assert_int_equal(state_load("tank", &back, &e), 0);
        assert_string_equal(back->name, "tank");
        assert_memory_equal(back->uuid, uuid_a, 16);
        assert_int_equal(back->n_members, 2);
        assert_string_equal(back->members[1].path, "/srv/\xc3\xa4 \"b\"");
        assert_memory_equal(back->members[1].uuid, uuid_b, 16);
        assert_string_equal(back->server_control, "/run/x.control");
        assert_int_equal(back->server_pid, 4711);
        assert_int_equal(back->n_server_nbd, 1);
        assert_string_equal(back->server_nbd[0], nbd[0]);
        state_free(s);
        state_free(back);
}

static void a_pool_is_found_by_uuid(void **unused)
{
        struct pool_state *s = new_state("tank"), *back;

        assert_int_equal(state_save(s, NULL), 0);
        assert_int_equal(state_find_uuid(uuid_a, &back, NULL), 0);
        assert_string_equal(back->name, "tank");
        assert_int_equal(state_find_uuid(uuid_b, &back, NULL), -ENOENT);
        state_free(s);
        state_free(back);
}

static void an_unknown_pool_is_named_with_a_hint(void **unused)
{
        struct pool_state *back;
        struct error e = ERROR_INIT;

        assert_int_equal(state_load("nix", &back, &e), -ENOENT);
        assert_non_null(strstr(e.message, "'nix'"));
        assert_non_null(strstr(e.hint, "import"));
        assert_int_equal(state_load("../nix", &back, &e), -EINVAL);
}

static void damaged_files_are_refused_and_named(void **unused)
{
        static const char *const damaged[] = {
            "",
            "rubbish",
            "[]",
            "{}",
            "{\"name\":\"tank\"}",
            "{\"name\":\"../x\",\"uuid\":\"dead0102-0304-0506-0708-090a0b0c0d0e\",\"members\":[]}",
            "{\"name\":\"tank\",\"uuid\":\"short\",\"members\":[]}",
            "{\"uuid\":\"dead0102-0304-0506-0708-090a0b0c0d0e\",\"name\":\"a\",\"members\":[{}]}",
        };

        for (size_t i = 0; i < sizeof(damaged) / sizeof(damaged[0]); i++) {
                struct pool_state *back = NULL;
                struct error e = ERROR_INIT;

                write_text("tank.json", damaged[i]);
                assert_int_equal(state_load("tank", &back, &e), -EINVAL);
                assert_null(back);
                assert_non_null(strstr(e.message, "tank.json"));
        }
}

static void names_are_listed_in_order_without_what_is_no_state(void **unused)
{
        static const char *const made[] = {"zebra", "ape", "m.n-o_p"};
        char **names;
        size_t n;

        for (size_t i = 0; i < 3; i++) {
                struct pool_state *s = new_state(made[i]);

                assert_int_equal(state_save(s, NULL), 0);
                state_free(s);
        }
        write_text(".json", "");
        write_text("half.json.123", "");
        write_text("a b.json", "");
        assert_int_equal(state_names(&names, &n, NULL), 0);
        assert_int_equal(n, 3);
        assert_string_equal(names[0], "ape");
        assert_string_equal(names[2], "zebra");
        state_names_free(names, n);
        assert_int_equal(state_remove("ape", NULL), 0);
        assert_int_equal(state_names(&names, &n, NULL), 0);
        assert_int_equal(n, 2);
        state_names_free(names, n);
}

static void a_member_is_known_by_its_uuid(void **unused)
{
        struct pool_state *s = new_state("tank");

        assert_int_equal(state_set_member(s, "/elsewhere", uuid_a), 0);
        assert_int_equal(s->n_members, 2);
        assert_string_equal(s->members[0].path, "/elsewhere");
        state_drop_member(s, uuid_a);
        assert_int_equal(s->n_members, 1);
        assert_memory_equal(s->members[0].uuid, uuid_b, 16);
        state_free(s);
}

static void a_failed_save_leaves_the_old_file(void **unused)
{
        struct pool_state *s = new_state("tank"), *back;
        struct error e = ERROR_INIT;
        char tmp[PATH_MAX];

        assert_int_equal(state_save(s, NULL), 0);
        /* A folder where the new file is to be written: no save can succeed. */
        snprintf(tmp, sizeof(tmp), "%s/tank.json.%d", folder, (int)getpid());
        assert_int_equal(mkdir(tmp, 0755), 0);
        state_drop_member(s, uuid_a);
        assert_true(state_save(s, &e) < 0);
        assert_non_null(strstr(e.message, "tank.json"));
        assert_int_equal(state_load("tank", &back, NULL), 0);
        assert_int_equal(back->n_members, 2);
        state_free(s);
        state_free(back);
}

/* What state.c asks of the kernel, as the linker has it go by here (meson.build): 'f' for a file
 * that is flushed, 'r' for a rename, 'd' for a folder that is flushed. */
static char asked[16];

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);

static void note(char what)
{
        size_t n = strlen(asked);

        if (n + 1 < sizeof(asked))
                asked[n] = what;
}

int __wrap_fsync(int fd)
{
        struct stat st;

        assert_int_equal(fstat(fd, &st), 0);
        note(S_ISDIR(st.st_mode) ? 'd' : 'f');
        return __real_fsync(fd);
}

int __wrap_rename(const char *from, const char *to)
{
        note('r');
        return __real_rename(from, to);
}

static void a_save_is_durable_before_the_old_one_goes_and_when_it_returns(void **unused)
{
        struct pool_state *s = new_state("tank");

        memset(asked, 0, sizeof(asked));
        assert_int_equal(state_save(s, NULL), 0);
        assert_string_equal(asked, "frd");
        memset(asked, 0, sizeof(asked));
        assert_int_equal(state_remove("tank", NULL), 0);
        assert_string_equal(asked, "d");
        state_free(s);
}

static void the_lock_is_held_by_one_at_a_time(void **unused)
{
        int lock = state_lock(NULL), status, other;
        char path[PATH_MAX];
        pid_t child;

        assert_true(lock >= 0);
        snprintf(path, sizeof(path), "%s/.lock", folder);
        child = fork();
        if (child == 0) {
                other = open(path, O_RDWR | O_CLOEXEC);
                _exit(other >= 0 && flock(other, LOCK_EX | LOCK_NB) < 0 ? 0 : 1);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        state_unlock(lock);
        lock = state_lock(NULL);
        assert_true(lock >= 0);
        state_unlock(lock);
}

static void uuids_are_read_strictly(void **unused)
{
        static const char *const bad[] = {"",
                                          "dead0102-0304-0506-0708-090a0b0c0d0",
                                          "dead0102-0304-0506-0708-090a0b0c0d0e0",
                                          "dead01020304-0506-0708-090a0b0c0d0e-",
                                          "dead0102-0304-0506-0708-090a0b0c0d g",
                                          "dead0102-0304-0506-0708-090a0b0c0dxx"};
        char text[UUID_TEXT_SIZE];
        uint8_t uuid[16];

        uuid_format(uuid_a, text);
        assert_string_equal(text, "dead0102-0304-0506-0708-090a0b0c0d0e");
        assert_int_equal(uuid_parse_text(text, uuid), 0);
        assert_memory_equal(uuid, uuid_a, 16);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_int_equal(uuid_parse_text(bad[i], uuid), -EINVAL);
}

/* ---- attachments ---- */

static void attachments_come_back_as_they_were_saved(void **unused)
{
        struct state_attachment web = {.target = "web", .path = "/run/web.sock", .n_queues = 4};
        struct state_attachment snap = {
            .target = "web@s", .path = "/run/\xc3\xa4 \"s\"", .n_queues = 1, .readonly = true};
        struct pool_state *s = new_state("tank"), *back = NULL;
        struct state_attachment *a;

        assert_int_equal(state_set_attachment(s, &web), 0);
        assert_int_equal(state_set_attachment(s, &snap), 0);
        web.n_queues = 2;
        assert_int_equal(state_set_attachment(s, &web), 0); /* in the place of the first */
        assert_int_equal(s->n_attachments, 2);
        assert_int_equal(state_save(s, NULL), 0);
        state_free(s);
        assert_int_equal(state_load("tank", &back, NULL), 0);
        assert_int_equal(back->n_attachments, 2);
        a = state_find_attachment(back, "web");
        assert_non_null(a);
        assert_string_equal(a->path, "/run/web.sock");
        assert_int_equal(a->n_queues, 2);
        assert_false(a->readonly);
        a = state_find_attachment(back, "web@s");
        assert_non_null(a);
        assert_string_equal(a->path, snap.path);
        assert_true(a->readonly);
        state_drop_attachment(back, "web");
        assert_null(state_find_attachment(back, "web"));
        assert_non_null(state_find_attachment(back, "web@s"));
        assert_int_equal(back->n_attachments, 1);
        state_free(back);
}

static void there_is_a_limit_to_attachments(void **unused)
{
        struct pool_state *s = new_state("tank");

        for (unsigned i = 0; i <= STATE_ATTACHMENTS_MAX; i++) {
                struct state_attachment a = {.path = "/s", .n_queues = 1};

                snprintf(a.target, sizeof(a.target), "v%u", i);
                assert_int_equal(state_set_attachment(s, &a),
                                 i < STATE_ATTACHMENTS_MAX ? 0 : -ENOSPC);
        }
        state_free(s);
}

#define state_test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
        const struct CMUnitTest tests[] = {
            state_test(what_is_saved_is_loaded),
            state_test(a_pool_is_found_by_uuid),
            state_test(an_unknown_pool_is_named_with_a_hint),
            state_test(damaged_files_are_refused_and_named),
            state_test(names_are_listed_in_order_without_what_is_no_state),
            state_test(a_member_is_known_by_its_uuid),
            state_test(a_failed_save_leaves_the_old_file),
            state_test(a_save_is_durable_before_the_old_one_goes_and_when_it_returns),
            state_test(the_lock_is_held_by_one_at_a_time),
            state_test(uuids_are_read_strictly),
            state_test(attachments_come_back_as_they_were_saved),
            state_test(there_is_a_limit_to_attachments),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
