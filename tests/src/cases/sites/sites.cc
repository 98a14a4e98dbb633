// Reads the beginning of a file from three places, as the workload `sites` does: a method, a method of
// a template, and a function that is put into its caller.
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace shop {

static char buffer[4096];

struct Reader {
    __attribute__((noinline)) virtual long small(int fd, const std::string &) const
    {
        long returned = pread(fd, buffer, 1009, 0);
        asm volatile("" : : "r"(returned));
        return returned;
    }
    virtual ~Reader() = default;
};

template <int SIZE> struct Sized {
    __attribute__((noinline)) long large(int fd)
    {
        long returned = pread(fd, buffer, SIZE, 0);
        asm volatile("" : : "r"(returned));
        return returned;
    }
};

__attribute__((always_inline)) inline long middle(int fd)
{
    long returned = pread(fd, buffer, 2003, 0);
    asm volatile("" : : "r"(returned));
    return returned;
}

} // namespace shop

int main(int count, char **arguments)
{
    if (count < 3)
        return 2;
    int fd = open(arguments[1], O_RDONLY);
    long calls = std::atol(arguments[2]);
    long sums[3] = {0, 0, 0};
    shop::Reader reader;
    shop::Sized<4001> sized;
    std::string name = "name";
    uint32_t state = 1;
    for (long call = 0; call < calls; call++) {
        state = state * 1103515245u + 12345u;
        uint32_t digit = (state >> 16) % 10;
        if (digit < 5)
            sums[0] += reader.small(fd, name);
        else if (digit < 8)
            sums[1] += sized.large(fd);
        else
            sums[2] += shop::middle(fd);
    }
    std::printf("%ld %ld %ld\n", sums[0], sums[1], sums[2]);
}
