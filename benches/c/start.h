/* The cheapest way there is to start a program: vfork and exec, nothing in between. */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static inline void die(const char *what)
{
    perror(what);
    exit(1);
}

static inline pid_t start(char *const argv[])
{
    static char *const environment[] = { NULL };
    pid_t pid = vfork();
    if (pid == 0) {
        execve(argv[0], argv, environment);
        _exit(127);
    }
    if (pid < 0)
        die("vfork");
    return pid;
}

static inline unsigned long long now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (unsigned long long)at.tv_sec * 1000000000u + (unsigned long long)at.tv_nsec;
}
