/* Reads the beginning of a file from three places, as the workload `sites` does. */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char buffer[4096];

/* Which section of the file the places are in. */
#ifndef PLACED
#define PLACED
#endif

/* The last statement is there so that the call is none that the compiler makes a jump of. */
#define SITE(name, size)                                                       \
    PLACED __attribute__((noinline)) static long name(int fd)                  \
    {                                                                          \
        long returned = pread(fd, buffer, size, 0);                            \
        __asm__ volatile("" : : "r"(returned));                                \
        return returned;                                                       \
    }

SITE(site_small, 1009)
SITE(site_large, 4001)
SITE(site_middle, 2003)

/* How a place is called: directly, or by a signal handler. */
#ifdef SIGNAL
static int descriptor;
static long (*volatile wanted)(int);
static volatile long returned_there;

static void handler(int signal)
{
    (void)signal;
    returned_there = wanted(descriptor);
}

static long by_handler(long (*site)(int), int fd)
{
    descriptor = fd;
    wanted = site;
    raise(SIGUSR1);
    return returned_there;
}
#define CALL(site, fd) by_handler(site, fd)
#else
#define CALL(site, fd) site(fd)
#endif

int main(int count, char **arguments)
{
    if (count < 3)
        return 2;
    int fd = open(arguments[1], O_RDONLY);
    long calls = atol(arguments[2]);
    long sums[3] = {0, 0, 0};
#ifdef SIGNAL
    signal(SIGUSR1, handler);
#endif
    uint32_t state = 1;
    for (long call = 0; call < calls; call++) {
        state = state * 1103515245u + 12345u;
        uint32_t digit = (state >> 16) % 10;
        if (digit < 5)
            sums[0] += CALL(site_small, fd);
        else if (digit < 8)
            sums[1] += CALL(site_large, fd);
        else
            sums[2] += CALL(site_middle, fd);
    }
    printf("%ld %ld %ld\n", sums[0], sums[1], sums[2]);
    return 0;
}
