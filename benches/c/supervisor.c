/* The least that can be called a supervisor, and so the limit for any other one:
 *
 *   supervisor COUNT PROGRAM ARGUMENT
 *
 * starts COUNT children, starts each one again when it ends, and at SIGTERM ends and reaps all of
 * them. No pipes, no log, no policy, no record of anything. */

#include <errno.h>
#include <sys/wait.h>

#include "start.h"

static volatile sig_atomic_t stopping;
static volatile pid_t *pids;
static int count;

/* The children are told from here, so that there is no moment at which the signal could be missed. */
static void stop(int signal)
{
    (void)signal;
    stopping = 1;
    for (int i = 0; i < count; i++)
        if (pids[i] > 0)
            kill(pids[i], SIGTERM);
}

static void fill(int place, char *const child[])
{
    pids[place] = start(child);
    if (stopping)
        kill(pids[place], SIGTERM);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    char *child[] = { argv[2], argv[3], NULL };
    count = atoi(argv[1]);
    pids = calloc((size_t)count, sizeof *pids);
    if (!pids)
        die("calloc");
    struct sigaction action = { .sa_handler = stop };
    sigaction(SIGTERM, &action, NULL);

    for (int i = 0; i < count; i++)
        fill(i, child);
    for (;;) {
        pid_t ended = waitpid(-1, NULL, 0);
        if (ended < 0 && errno == ECHILD)
            return 0;
        for (int i = 0; ended > 0 && !stopping && i < count; i++)
            if (pids[i] == ended) {
                fill(i, child);
                break;
            }
    }
}
