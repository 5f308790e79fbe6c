/* engine_play.c - see engine_play.h. */
#include "tests/fuzz/engine_play.h"
#include <errno.h>

void engine_play(struct volume *volume, uint64_t size, uint8_t kind, struct input *in)
{
        static const int errors[] = {0,      -EIO,       -ENOSPC, -ENOMEM,
                                     -EROFS, -ECANCELED, -EINVAL, -EDQUOT};
        unsigned more = kind >> 3 & 7;

        switch (kind & 7) {
        case 0:
                if (more < 4)
                        fake_hold(volume);
                else
                        fake_wait_for(volume, more == 4 ? FAKE_WAIT_SPACE : FAKE_WAIT_LIMITS);
                break;
        case 1:
                fake_release_all(volume);
                break;
        case 2:
                fake_fail(volume, input_u8(in) % (VOLUME_ZERO + 1), errors[more]);
                break;
        case 3:
                fake_fail_status(volume, errors[more]);
                break;
        case 4:
                fake_resize(volume, size >> more);
                break;
        case 5:
                fake_shrink_at_submit(volume, size >> more);
                break;
        case 6:
                fake_keep(volume, kind & 8);
                break;
        case 7:
                if (fake_n_held(volume) > 0)
                        fake_release_last(volume);
        }
}
