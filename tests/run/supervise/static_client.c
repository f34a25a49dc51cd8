/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* A small static VFIO program on the edu device: `static_client CASE`. It knows nothing of moat. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s (errno %m)\n", __FILE__, __LINE__, #condition);     \
            exit(3);                                                                               \
        }                                                                                          \
    } while (0)

enum { bar_bytes = 1 << 20, identity = 0x010000ed, page = 4096, buffer_iova = 0x100000 };

/* Indices of 32-bit registers. */
enum {
    reg_identity = 0,
    reg_liveness = 1,
    reg_raise = 24,
    reg_source = 32,
    reg_target = 34,
    reg_count = 36,
    reg_command = 38
};

enum { from_memory = 0, to_memory = 2, device_buffer = 0x40000 };

static int container;
static int device;
static volatile uint32_t* bar;

static void open_device(void) {
    container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
    REQUIRE(container >= 0);
    const int group = open("/dev/vfio/1280", O_RDWR | O_CLOEXEC);
    REQUIRE(group >= 0);
    REQUIRE(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) == 0);
    REQUIRE(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0);
    device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "0000:05:00.0");
    REQUIRE(device >= 0);
    bar = mmap(NULL, bar_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, device, 0);
    REQUIRE(bar != MAP_FAILED);
    const uint16_t memory_and_master = 6;
    const off_t command = ((off_t)VFIO_PCI_CONFIG_REGION_INDEX << 40) + 4;
    REQUIRE(pwrite(device, &memory_and_master, 2, command) == 2);
    uint16_t vendor = 0;
    REQUIRE(pread(device, &vendor, 2, command - 4) == 2 && vendor == 0x1234);
    REQUIRE(bar[reg_identity] == identity);
}

static unsigned char* new_memory(size_t bytes) {
    unsigned char* const memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    return memory;
}

__attribute__((noinline)) static void map_buffer(void* memory, uint64_t bytes) {
    struct vfio_iommu_type1_dma_map request = {
        .argsz = sizeof request,
        .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        .vaddr = (uint64_t)(uintptr_t)memory,
        .iova = buffer_iova,
        .size = bytes,
    };
    REQUIRE(ioctl(container, VFIO_IOMMU_MAP_DMA, &request) == 0);
}

__attribute__((noinline)) static void unmap_buffer(uint64_t bytes) {
    struct vfio_iommu_type1_dma_unmap request = {
        .argsz = sizeof request, .iova = buffer_iova, .size = bytes};
    REQUIRE(ioctl(container, VFIO_IOMMU_UNMAP_DMA, &request) == 0 && request.size == bytes);
}

__attribute__((noinline)) static void copy(uint64_t source, uint64_t target, uint32_t bytes,
                                           uint32_t direction) {
    volatile uint64_t* const numbers = (volatile uint64_t*)bar;
    numbers[reg_source / 2] = source;
    numbers[reg_target / 2] = target;
    numbers[reg_count / 2] = bytes;
    bar[reg_command] = 1 | direction;
    while ((bar[reg_command] & 1) != 0) {
    }
}

static void dma(void) {
    open_device();
    unsigned char* const memory = new_memory(2 * page);
    for (unsigned i = 0; i < 100; ++i)
        memory[i] = (unsigned char)(i + 1);
    map_buffer(memory, 2 * page);
    copy(buffer_iova, device_buffer, 100, from_memory);
    copy(device_buffer, buffer_iova + page, 100, to_memory);
    REQUIRE(memcmp(memory, memory + page, 100) == 0);
    unmap_buffer(2 * page);
}

static void overrun(void) {
    open_device();
    map_buffer(new_memory(page), page);
    copy(device_buffer, buffer_iova + page - 16, 64, to_memory);
    unmap_buffer(page);
}

static void use_after_unmap(void) {
    open_device();
    map_buffer(new_memory(page), page);
    unmap_buffer(page);
    copy(device_buffer, buffer_iova + 128, 64, to_memory);
}

static void left_mapped(void) {
    open_device();
    map_buffer(new_memory(page), page);
}

/* With `event` -1: raises the interrupt, as the device would. */
static int set_interrupt(int event) {
    char bytes[sizeof(struct vfio_irq_set) + sizeof event];
    struct vfio_irq_set* const set = (struct vfio_irq_set*)bytes;
    *set = (struct vfio_irq_set){
        .argsz = sizeof bytes,
        .flags = VFIO_IRQ_SET_ACTION_TRIGGER |
                 (event < 0 ? VFIO_IRQ_SET_DATA_NONE : VFIO_IRQ_SET_DATA_EVENTFD),
        .index = VFIO_PCI_MSI_IRQ_INDEX,
        .count = 1};
    memcpy(set->data, &event, sizeof event);
    struct vfio_irq_info info = {.argsz = sizeof info, .index = VFIO_PCI_MSI_IRQ_INDEX};
    REQUIRE(ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, &info) == 0);
    if (info.count == 0)
        set->index = VFIO_PCI_INTX_IRQ_INDEX;
    return ioctl(device, VFIO_DEVICE_SET_IRQS, set);
}

static void interrupt(void) {
    open_device();
    const int event = eventfd(0, EFD_CLOEXEC);
    REQUIRE(set_interrupt(event) == 0);
    bar[reg_raise] = 4;
    uint64_t count = 0;
    REQUIRE(read(event, &count, sizeof count) == sizeof count && count >= 1);
}

static void* use_register(void* argument) {
    const unsigned which = *(const unsigned*)argument;
    for (uint32_t i = 1; i <= 300; ++i) {
        bar[which] = i;
        REQUIRE(bar[which] == i);
        const int copied = dup(container);
        REQUIRE(ioctl(copied, VFIO_GET_API_VERSION) == 0 && close(copied) == 0);
    }
    return NULL;
}

static void threads_and_fork(void) {
    open_device();
    unsigned registers[] = {reg_source, reg_target, reg_count};
    pthread_t made[3];
    for (unsigned i = 0; i < 3; ++i)
        REQUIRE(pthread_create(&made[i], NULL, use_register, &registers[i]) == 0);
    const pid_t child = fork();
    if (child == 0) { /* has no device of its parent's, but may have its own */
        REQUIRE(bar[reg_identity] == 0xffffffff);
        REQUIRE(ioctl(container, VFIO_GET_API_VERSION) == -1 && errno == ENODEV);
        open_device();
        exit(7);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);
    for (unsigned i = 0; i < 3; ++i)
        REQUIRE(pthread_join(made[i], NULL) == 0);
    REQUIRE(bar[reg_identity] == identity);
}

/* The files are closed with the last that refers to them. */
static void reopened(void) {
    open_device();
    REQUIRE(open("/dev/vfio/1280", O_RDWR) == -1 && errno == EBUSY);
    REQUIRE(close_range(3, ~0U, 0) == 0);
    REQUIRE(bar[reg_identity] == identity); /* the mapping refers to it */
    REQUIRE(open("/dev/vfio/1280", O_RDWR) == -1 && errno == EBUSY);
    REQUIRE(munmap((void*)bar, bar_bytes) == 0);
    open_device();
}

/* Another program has none of the files. */
static void after_execution(void) {
    const int inherited = atoi(getenv("INHERITED"));
    REQUIRE(ioctl(inherited, VFIO_GET_API_VERSION) == -1 && errno == ENODEV);
    open_device();
    REQUIRE(ioctl(inherited, VFIO_GET_API_VERSION) == -1 && errno == ENODEV);
}

static void execution(void) {
    open_device();
    char number[16];
    snprintf(number, sizeof number, "%d", fcntl(container, F_DUPFD, 0));
    setenv("INHERITED", number, 1);
    execl("/proc/self/exe", "static_client", "after_execution", NULL);
}

static void killed(void) {
    open_device();
    map_buffer(new_memory(page), page);
    raise(SIGKILL);
}

static volatile sig_atomic_t seen_signal;

static void on_signal(int signal) {
    seen_signal = signal;
}

/* The program's own SIGBUS, and signals between accesses. */
static void signals(void) {
    open_device();
    REQUIRE(signal(SIGALRM, on_signal) != SIG_ERR && signal(SIGUSR1, on_signal) != SIG_ERR);
    ualarm(200, 200);
    for (uint32_t i = 0; i < 2000; ++i) {
        bar[reg_source] = i;
        REQUIRE(bar[reg_source] == i);
        const int opened = open("/dev/vfio/vfio", O_RDWR);
        REQUIRE(opened >= 0 && close(opened) == 0);
    }
    ualarm(0, 0);
    REQUIRE(seen_signal == SIGALRM);
    const int file = memfd_create("own", 0);
    char* const own = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    REQUIRE(own != MAP_FAILED);
    const pid_t child = fork();
    if (child == 0) {
        *(volatile char*)own = 1;
        exit(0);
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
            WTERMSIG(status) == SIGBUS);
}

/* Nothing of this may end the supervisor or stop it from serving. */
static void hostile(void) {
    open_device();
    void* const volatile none = (void*)16;
    const volatile size_t huge = (size_t)1 << 40;
    REQUIRE(syscall(SYS_openat, AT_FDCWD, none, O_RDWR) == -1 && errno == EFAULT);
    REQUIRE(syscall(SYS_openat, -7, "vfio", O_RDWR) == -1);
    REQUIRE(syscall(SYS_openat2, AT_FDCWD, "/dev/vfio/vfio", none, 24) != 0);
    for (unsigned long number = 0x3b00; number != 0x3c00; ++number) {
        REQUIRE(ioctl(container, number, none) != 1000);
        REQUIRE(ioctl(-1, number, none) == -1);
    }
    const off_t config = (off_t)VFIO_PCI_CONFIG_REGION_INDEX << 40;
    REQUIRE(pread(device, none, 4, config) == -1 && errno == EFAULT);
    REQUIRE(pwrite(device, none, 4, config) == -1 && errno == EFAULT);
    char byte = 0;
    REQUIRE(pread(device, &byte, huge, (off_t)77 << 40) == -1);
    REQUIRE(preadv(device, none, 1 << 20, config) <= 0);
    REQUIRE(write(device, none, huge) == -1);
    REQUIRE(ftruncate(device, page) == -1); /* a mapping would no longer fault */
    REQUIRE(mmap(NULL, page, PROT_READ, MAP_SHARED, device, (off_t)100 << 40) == MAP_FAILED);
    REQUIRE(mmap(NULL, bar_bytes * 2, PROT_READ, MAP_SHARED, device, 0) == MAP_FAILED);
    /* An eventfd that blocks, and a pipe without a reader. */
    const int event = eventfd(0, 0);
    const uint64_t full = ~(uint64_t)1;
    REQUIRE(set_interrupt(event) == 0 && write(event, &full, 8) == 8 && set_interrupt(-1) == 0);
    int ends[2];
    REQUIRE(pipe(ends) == 0 && close(ends[0]) == 0);
    REQUIRE(set_interrupt(ends[1]) == -1);
    (void)set_interrupt(-1);
    /* DMA to memory that is gone. */
    void* const memory = new_memory(page);
    map_buffer(memory, page);
    REQUIRE(munmap(memory, page) == 0);
    copy(device_buffer, buffer_iova, 64, to_memory);
    REQUIRE(munmap((void*)bar, bar_bytes) == 0 && close_range(3, ~0U, 0) == 0);
    open_device();
}

static void* read_vendor(void* descriptor) {
    uint16_t vendor = 0;
    const off_t config = (off_t)VFIO_PCI_CONFIG_REGION_INDEX << 40;
    REQUIRE(pread(*(int*)descriptor, &vendor, 2, config) == 2 && vendor == 0x1234);
    return NULL;
}

/* Low numbers, which a program chooses itself. */
static void low_numbers(void) {
    open_device();
    const off_t command = ((off_t)VFIO_PCI_CONFIG_REGION_INDEX << 40) + 4;
    const uint16_t memory_alone = 2;
    uint16_t value = 0;
    int low = 57;
    for (int round = 0; round != 2; ++round) {
        REQUIRE(dup2(device, low) == low);
        pthread_t thread;
        REQUIRE(pthread_create(&thread, NULL, read_vendor, &low) == 0);
        REQUIRE(pthread_join(thread, NULL) == 0);
        REQUIRE(pwrite(low, &memory_alone, 2, command) == 2);
        REQUIRE(pread(low, &value, 2, command) == 2 && value == memory_alone);
        struct vfio_device_info info = {.argsz = sizeof info};
        REQUIRE(ioctl(low, VFIO_DEVICE_GET_INFO, &info) == 0 && info.num_regions == 9);
        REQUIRE(mmap(NULL, 2 * bar_bytes, PROT_READ, MAP_SHARED, low, 0) == MAP_FAILED);
        REQUIRE(dup3(low, 58, O_CLOEXEC) == 58 && close(low) == 0);
        REQUIRE(pread(58, &value, 2, command - 4) == 2 && value == 0x1234);
        int ends[2]; /* the number is an ordinary one again */
        REQUIRE(pipe(ends) == 0 && dup2(ends[0], low) == low && write(ends[1], "ab", 2) == 2);
        REQUIRE(read(low, &value, 2) == 2 && value == ('a' | 'b' << 8));
        REQUIRE(pread(low, &value, 2, 0) == -1 && errno == ESPIPE);
        REQUIRE(close(ends[0]) == 0 && close(ends[1]) == 0);
    }
}

struct test_case {
    const char* name;
    void (*run)(void);
};

static const struct test_case cases[] = {
    {"dma", dma},
    {"overrun", overrun},
    {"use_after_unmap", use_after_unmap},
    {"left_mapped", left_mapped},
    {"interrupt", interrupt},
    {"threads_and_fork", threads_and_fork},
    {"reopened", reopened},
    {"low_numbers", low_numbers},
    {"execution", execution},
    {"after_execution", after_execution},
    {"killed", killed},
    {"signals", signals},
    {"hostile", hostile},
};

int main(int count, char** arguments) {
    REQUIRE(count == 2);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; ++i)
        if (strcmp(arguments[1], cases[i].name) == 0) {
            cases[i].run();
            return 0;
        }
    return 2;
}
