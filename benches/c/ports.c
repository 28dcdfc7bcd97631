/* The least that a parent of ports can do. Messages have a big-endian length of four bytes.
 *
 *   ports pingpong ECHO SIZE COUNT         median round trip, in microseconds
 *   ports pipelined ECHO SIZE COUNT        messages a second, many at once, up to 512 a write
 *   ports fanout ECHO SIZE COUNT PORTS     messages a second, one at a time with each of many programs
 *
 * prints one number. */

#include <arpa/inet.h>
#include <fcntl.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct port {
    int in, out;
    size_t got;
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

static struct port start(char *echo, int large)
{
    int in[2], out[2];
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
        die("pipe2");
    if (large && (fcntl(in[1], F_SETPIPE_SZ, 1 << 20) < 0 || fcntl(out[0], F_SETPIPE_SZ, 1 << 20) < 0))
        fprintf(stderr, "pipes stay small\n");
    pid_t pid = vfork();
    if (pid < 0)
        die("vfork");
    if (pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        execl(echo, echo, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    return (struct port){ .in = in[1], .out = out[0] };
}

static char *frame(size_t size)
{
    char *frame = calloc(1, size + 4);
    uint32_t head = htonl((uint32_t)size);
    memcpy(frame, &head, 4);
    return frame;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void pingpong(char *echo, size_t size, size_t count)
{
    struct port port = start(echo, size >= 1 << 16);
    char *message = frame(size), *answer = malloc(size + 4);
    double *took = calloc(count, sizeof *took);
    for (size_t at = 0; at < count + 100; at++) {
        double from = now();
        for (size_t put = 0; put < size + 4;) {
            ssize_t done = write(port.in, message + put, size + 4 - put);
            if (done < 0)
                die("write");
            put += (size_t)done;
        }
        for (size_t got = 0; got < size + 4;) {
            ssize_t done = read(port.out, answer + got, size + 4 - got);
            if (done <= 0)
                die("read");
            got += (size_t)done;
        }
        if (at >= 100)
            took[at - 100] = now() - from;
    }
    qsort(took, count, sizeof *took, compare);
    printf("%f\n", took[count / 2] * 1e6);
}

static void pipelined(char *echo, size_t size, size_t count)
{
    struct port port = start(echo, 1);
    size_t each = size + 4, batch = (1 << 20) / each;
    batch = batch < 1 ? 1 : batch > 512 ? 512 : batch;
    char *one = frame(size), *messages = malloc(batch * each), *answers = malloc(1 << 20);
    for (size_t at = 0; at < batch; at++)
        memcpy(messages + at * each, one, each);
    fcntl(port.in, F_SETFL, O_NONBLOCK);
    fcntl(port.out, F_SETFL, O_NONBLOCK);
    size_t put = 0, got = 0, whole = count * each;
    double from = now();
    while (got < whole) {
        struct pollfd fds[2] = { { .fd = port.out, .events = POLLIN },
                                 { .fd = put < whole ? port.in : -1, .events = POLLOUT } };
        if (poll(fds, 2, -1) < 0)
            die("poll");
        if (fds[1].revents) {
            size_t at = put % (batch * each), left = batch * each - at;
            left = left < whole - put ? left : whole - put;
            ssize_t done = write(port.in, messages + at, left);
            if (done > 0)
                put += (size_t)done;
        }
        if (fds[0].revents) {
            ssize_t done = read(port.out, answers, 1 << 20);
            if (done == 0 || (done < 0 && errno != EAGAIN))
                die("read");
            if (done > 0)
                got += (size_t)done;
        }
    }
    printf("%f\n", (double)count / (now() - from));
}

static void fanout(char *echo, size_t size, size_t count, size_t many)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    struct port *ports = calloc(many, sizeof *ports);
    char *message = frame(size), *answer = malloc(1 << 16);
    int poller = epoll_create1(EPOLL_CLOEXEC);
    for (size_t at = 0; at < many; at++) {
        ports[at] = start(echo, 0);
        struct epoll_event event = { .events = EPOLLIN, .data.u64 = at };
        if (epoll_ctl(poller, EPOLL_CTL_ADD, ports[at].out, &event))
            die("epoll_ctl");
    }
    double from = 0;
    /* The first message to each is not counted: it waits for the program to start. */
    size_t sent = 0, answered = 0, whole = many + count;
    for (size_t at = 0; at < many; at++, sent++)
        if (write(ports[at].in, message, size + 4) < 0)
            die("write");
    while (answered < whole) {
        struct epoll_event events[256];
        int ready = epoll_wait(poller, events, 256, -1);
        for (int at = 0; at < ready; at++) {
            struct port *port = &ports[events[at].data.u64];
            ssize_t done = read(port->out, answer, 1 << 16);
            if (done <= 0)
                die("read");
            port->got += (size_t)done;
            if (port->got < size + 4)
                continue;
            port->got = 0;
            answered++;
            if (answered == many)
                from = now();
            if (answered >= many && sent == many) {
                /* All have answered once: now it begins. */
                for (size_t to = 0; to < many; to++, sent++)
                    if (write(ports[to].in, message, size + 4) < 0)
                        die("write");
            } else if (answered > many && sent < whole) {
                sent++;
                if (write(port->in, message, size + 4) < 0)
                    die("write");
            }
        }
    }
    printf("%f\n", (double)count / (now() - from));
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    size_t size = strtoul(argv[3], NULL, 10), count = strtoul(argv[4], NULL, 10);
    if (!strcmp(argv[1], "pingpong"))
        pingpong(argv[2], size, count);
    else if (!strcmp(argv[1], "pipelined"))
        pipelined(argv[2], size, count);
    else if (argc == 6)
        fanout(argv[2], size, count, strtoul(argv[5], NULL, 10));
    else
        return 2;
    return 0;
}
