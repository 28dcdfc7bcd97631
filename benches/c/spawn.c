/* What starting and reaping a program costs at least:
 *
 *   spawn MIB PROGRAM
 *
 * touches MIB mebibytes in pages of 4 KiB and then, for each byte on standard input, starts the
 * program, waits for its end and writes how long both took together, in ns (8 bytes). */

#include <sys/mman.h>
#include <sys/wait.h>

#include "start.h"

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    size_t bytes = (size_t)atoi(argv[1]) << 20;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    for (size_t at = 0; at < bytes; at += 4096)
        memory[at] = 1;

    char *child[] = { argv[2], NULL };
    char byte;
    while (read(0, &byte, 1) == 1) {
        unsigned long long before = now();
        waitpid(start(child), NULL, 0);
        unsigned long long took = now() - before;
        if (write(1, &took, sizeof took) != sizeof took)
            return 1;
    }
    return 0;
}
