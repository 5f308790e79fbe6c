/* errno.c - what went wrong, in the protocol's words (proto.md, "Error values"). */
#include <errno.h>
#include "nbd-server/internal.h"

uint32_t nbd_error_from_errno(int error, bool fast_zero)
{
        switch (-error) {
        case 0:
                return NBD_SUCCESS;
        case EPERM:
        case EACCES:
        case EROFS:
                return NBD_EPERM;
        case ENOMEM:
                return NBD_ENOMEM;
        case EINVAL:
                return NBD_EINVAL;
        case ENOSPC:
        case EDQUOT:
        case EFBIG:
                return NBD_ENOSPC;
        case EOPNOTSUPP:
                /* Legal only where the client asked for speed or nothing. */
                return fast_zero ? NBD_ENOTSUP : NBD_EINVAL;
        case ESHUTDOWN:
                return NBD_ESHUTDOWN;
        default:
                /* EOVERFLOW too: the protocol keeps that one for requests that are too long. */
                return NBD_EIO;
        }
}
