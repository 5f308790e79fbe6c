/* process.c - see process.h */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include "common/log.h"
#include "tests/crash/process.h"

void *process_share(size_t size)
{
        void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

        if (memory == MAP_FAILED) {
                perror("mmap");
                exit(1);
        }
        return memory;
}

void process_watch(unsigned seconds)
{
        setitimer(ITIMER_PROF, &(struct itimerval){.it_value.tv_sec = seconds}, NULL);
        alarm(20 * seconds);
}

pid_t process_start(void)
{
        pid_t pid;

        fflush(NULL);
        pid = fork();
        if (pid < 0) {
                perror("fork");
                exit(1);
        }
        if (pid == 0) {
                log_set_sink(NULL);
                /* Memory of one state serves the next: giving it back costs more than the rest. */
                mallopt(M_MMAP_THRESHOLD, 1 << 30);
                mallopt(M_TRIM_THRESHOLD, 1 << 30);
        }
        return pid;
}

bool process_finish(pid_t pid, int *ret_signal, char *text, size_t text_size)
{
        int status;

        *ret_signal = 0;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                return true;
        *ret_signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
        if (*ret_signal == SIGPROF || *ret_signal == SIGALRM)
                snprintf(text, text_size, "it hangs");
        else
                snprintf(text, text_size, "it died: %s",
                         *ret_signal != 0 ? strsignal(*ret_signal) : "by exit");
        return false;
}
