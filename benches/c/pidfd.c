/* How soon the end of a process can be known at all:
 *
 *   pidfd PROGRAM ARGUMENT
 *
 * starts a child and waits on its pidfd; writes CLOCK_MONOTONIC (8 bytes) to standard output as soon
 * as that is readable, then reaps the child and starts the next one. Ends with its parent's pipe. */

#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "start.h"

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    char *child[] = { argv[1], argv[2], NULL };
    for (;;) {
        pid_t pid = start(child);
        int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (pidfd < 0)
            die("pidfd_open");
        /* The end of standard input is the end of us. */
        struct pollfd fds[2] = { { .fd = pidfd, .events = POLLIN }, { .fd = 0, .events = POLLIN } };
        poll(fds, 2, -1);
        unsigned long long at = now();
        if (fds[1].revents) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            return 0;
        }
        if (write(1, &at, sizeof at) != sizeof at)
            return 1;
        waitpid(pid, NULL, 0);
        close(pidfd);
    }
}
