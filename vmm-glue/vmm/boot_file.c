/* boot_file.c - reading files that others have given. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm-glue/vmm/boot.h"

int boot_read(int fd, uint64_t offset, void *data, size_t size, const char *name, struct error *err)
{
        while (size > 0) {
                ssize_t n = pread(fd, data, size, (off_t)offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return error_set(err, -errno, "cannot read the %s: %s", name,
                                         strerror(errno));
                if (n == 0)
                        return error_set(err, -EINVAL, "the %s ends too early", name);
                data = (uint8_t *)data + n;
                offset += (uint64_t)n;
                size -= (size_t)n;
        }
        return 0;
}

int boot_file_size(int fd, const char *name, uint64_t *ret_size, struct error *err)
{
        struct stat st;

        if (fstat(fd, &st) < 0)
                return error_set(err, -errno, "cannot look at the %s: %s", name, strerror(errno));
        if (!S_ISREG(st.st_mode))
                return error_set(err, -EINVAL, "the %s is not a file", name);
        *ret_size = (uint64_t)st.st_size;
        return 0;
}
