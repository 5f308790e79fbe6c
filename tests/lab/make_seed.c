/* make_seed.c - the seed of the VM file in argv[1], into the file argv[2]. */
#include <stdio.h>
#include <sys/sendfile.h>
#include <unistd.h>
#include "vm/seed.h"

static int failed(const char *sentence)
{
        fprintf(stderr, "%s\n", sentence);
        return 1;
}

int main(int argc, char **argv)
{
        struct error err = ERROR_INIT;
        struct vm_file *file = NULL;
        uint64_t size = 0;
        off_t offset = 0;
        int fd = -1, r;

        if (argc != 3 || !freopen(argv[2], "w", stdout))
                return failed("usage: make_seed VM-FILE IMAGE");
        r = vm_file_load(argv[1], &file, &err);
        if (r == 0)
                r = vm_seed_make(file, "instance", &fd, &size, &err);
        if (r < 0)
                return failed(err.message);
        if (sendfile(STDOUT_FILENO, fd, &offset, size) != (ssize_t)size)
                return failed("the image cannot be written");
        vm_file_free(file);
        return close(fd);
}
