/* test_ova_files.c - OVF with files beside it; work that is watched; what is no image. */
#include <stdatomic.h>
#include "common/list.h"
#include "tests/unit/ova_fixture.h"

/* ---- an OVF, and files beside it ---- */

static void put_named(struct named_files *n, const char *name, const char *text)
{
        int fd = named_find(n, name);

        if (fd < 0)
                fd = named_add(n, name);
        assert_int_equal(ftruncate(fd, 0), 0);
        put_at(fd, text, strlen(text), 0);
}

static void co_beside(struct fixture *f)
{
        struct named_files n;
        struct ova *ova = NULL;
        struct ova_place place;
        struct image *image;
        struct error e = ERROR_INIT;
        char data[7];

        named_init(&n);
        put_at(f->fd, ONE_DISK, strlen(ONE_DISK), 0);
        assert_int_equal(co_ova_open(f->fd, "a/x.ovf", NULL, &n.opener, &ova, &e), -ENOENT);
        assert_non_null(strstr(e.message, "'a/x.ovf' names 'x.img'"));
        /* Its files are not looked for. */
        assert_int_equal(co_ova_open(f->fd, "a/x.ovf", NULL, NULL, &ova, NULL), 0);
        assert_int_equal(co_ova_open_disk(ova, 0, &image, NULL), -EPERM);
        ova_close(ova);
        put_named(&n, "x.img", "content");
        assert_int_equal(co_ova_open(f->fd, "a/x.ovf", NULL, &n.opener, &ova, NULL), 0);
        assert_false(ova->is_archive);
        assert_int_equal(co_ova_verify(ova, NULL, NULL), -ENOENT);
        assert_int_equal(ova_disk_place(ova, 0, &place, NULL), 0);
        assert_true(place.offset == 0 && place.length == 7);
        ova_place_clear(&place);
        assert_int_equal(co_ova_open_disk(ova, 0, &image, NULL), 0);
        assert_int_equal(image->driver->co_read(image, data, 7, 0, NULL), 0);
        assert_memory_equal(data, "content", 7);
        image_close(image);
        ova_close(ova);
        put_named(&n, "x.mf", "SHA1(x.img)= 040f06fd774092478d450774f5ba30c5da78acc8\n");
        assert_int_equal(co_ova_open(f->fd, "a/x.ovf", NULL, &n.opener, &ova, NULL), 0);
        assert_int_equal(co_ova_verify(ova, NULL, NULL), 0);
        put_named(&n, "x.img", "contents");
        assert_int_equal(co_ova_verify(ova, NULL, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "'x.img' is damaged"));
        ova_close(ova);
        put_named(&n, "x.mf", "SHA1(x.ovf)= 040f06fd774092478d450774f5ba30c5da78acc8\n");
        put_named(&n, "x.ovf", "another");
        assert_int_equal(co_ova_open(f->fd, "a/x.ovf", NULL, &n.opener, &ova, &e), -EBADMSG);
        assert_non_null(strstr(e.message, "'x.ovf' is damaged"));
        named_close(&n);
}

static void an_ovf_has_its_files_beside_it(void **state)
{
        run(*state, co_beside);
}

static void co_escaped(struct fixture *f)
{
        static const char *const names[] = {"a%20b%.img",
                                            "a b%.img"}; /* exactly, or what it means */

        for (size_t i = 0; i < 2; i++) {
                struct archive a = {.fd = f->fd};
                struct ova_place place;
                struct ova *ova;

                assert_int_equal(ftruncate(f->fd, 0), 0);
                add_text(&a, "x.ovf",
                         "<Envelope><References><File id='f' href='a%20b%.img'/></References>"
                         "<DiskSection><Disk diskId='d' fileRef='f'/></DiskSection>"
                         "<VirtualSystem id='a'><VirtualHardwareSection><Item>"
                         "<ResourceType>17</ResourceType><HostResource>ovf:/disk/d</HostResource>"
                         "</Item></VirtualHardwareSection></VirtualSystem></Envelope>");
                add_text(&a, names[i], "content");
                assert_int_equal(co_ova_open(f->fd, "x.ova", NULL, NULL, &ova, NULL), 0);
                assert_int_equal(ova_disk_place(ova, 0, &place, NULL), 0);
                assert_int_equal(place.length, 7);
                ova_place_clear(&place);
                ova_close(ova);
        }
}

static void names_of_files_may_be_escaped(void **state)
{
        run(*state, co_escaped);
}

/* ---- on the way ---- */

struct watching {
        struct ova_watch watch;
        uint64_t done, total;
        atomic_bool stop;
        uint64_t stop_at;
};

static void keep_progress(void *arg, uint64_t done, uint64_t total)
{
        struct watching *w = arg;

        assert_true(done > w->done && done <= total);
        w->done = done;
        w->total = total;
        w->stop = done >= w->stop_at;
}

static void watch_until(struct watching *w, uint64_t stop_at)
{
        *w = (struct watching){.watch = {.progress = keep_progress, .arg = w}, .stop_at = stop_at};
}

static void co_watched(struct fixture *f)
{
        static uint8_t data[3 * MIB];
        struct ovf_disk disks[2] = {0};
        struct ovf_nic nics[2] = {0};
        struct ovf_machine m = a_machine(disks, nics);
        struct watching w;
        struct error e = ERROR_INIT;
        struct ova *ova;
        uint32_t random = 1;
        int fds[2];

        for (size_t i = 0; i < sizeof(data); i++) {
                random = random * 1664525u + 1013904223u;
                data[i] = (uint8_t)(random >> 24);
        }
        for (size_t i = 0; i < m.n_disks; i++)
                fds[i] = co_make_disk(sizeof(data), data, "streamOptimized");
        watch_until(&w, UINT64_MAX);
        assert_int_equal(co_ova_write(f->fd, "x.ova", &m, fds, NULL, &w.watch, &e), 0);
        assert_true(w.done == w.total && w.total > MIB);
        assert_int_equal(co_ova_open(f->fd, "x.ova", NULL, NULL, &ova, NULL), 0);
        watch_until(&w, UINT64_MAX);
        assert_int_equal(co_ova_verify(ova, &w.watch, NULL), 0);
        assert_true(w.done == w.total && w.total > MIB);
        watch_until(&w, MIB);
        w.watch.cancelled = &w.stop;
        assert_int_equal(co_ova_verify(ova, &w.watch, &e), -ECANCELED);
        assert_string_equal(e.message, "interrupted");
        ova_close(ova);
        watch_until(&w, 1);
        w.watch.cancelled = &w.stop;
        assert_int_equal(co_ova_write(f->fd, "x.ova", &m, fds, NULL, &w.watch, &e), -ECANCELED);
        co_refused(f, -EBADMSG, "no .ovf"); /* what is there is no archive */
        for (size_t i = 0; i < m.n_disks; i++)
                close(fds[i]);
}

static void work_tells_its_progress_and_can_be_stopped(void **state)
{
        run(*state, co_watched);
}

static void co_recognised(struct fixture *f)
{
        static const char *const texts[] = {ONE_DISK, "\xef\xbb\xbf<?xml version='1.0'?>" ONE_DISK};
        const struct image_driver *driver;
        struct archive a = {.fd = f->fd};
        struct image *image;
        struct error e = ERROR_INIT;
        bool guessed;

        add_text(&a, "x.ovf", ONE_DISK);
        assert_int_equal(co_image_probe(f->fd, "x", &driver, &guessed, NULL), 0);
        assert_string_equal(driver->name, "tar");
        assert_true(ova_is_probed(driver) && !guessed);
        assert_int_equal(co_image_open(f->fd, "x", NULL, &image, &e), -ENOTSUP);
        assert_non_null(strstr(e.message, "'x' is a tar archive"));
        for (size_t i = 0; i < 2; i++) {
                assert_int_equal(ftruncate(f->fd, 0), 0);
                put_at(f->fd, texts[i], strlen(texts[i]), 0);
                assert_int_equal(co_image_probe(f->fd, "x", &driver, &guessed, NULL), 0);
                assert_string_equal(driver->name, "ovf");
                assert_true(ova_is_probed(driver));
        }
        assert_int_equal(ftruncate(f->fd, 0), 0);
        put_at(f->fd, "Envelope", 8, 0);
        assert_int_equal(co_image_probe(f->fd, "x", &driver, &guessed, NULL), 0);
        assert_true(guessed && !ova_is_probed(driver));
}

static void machines_are_no_images(void **state)
{
        run(*state, co_recognised);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
            ova_test(an_ovf_has_its_files_beside_it),
            ova_test(names_of_files_may_be_escaped),
            ova_test(work_tells_its_progress_and_can_be_stopped),
            ova_test(machines_are_no_images),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
