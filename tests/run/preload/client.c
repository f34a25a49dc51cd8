/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* A small VFIO program: `client CASE` runs one case and ends with 0 if all was so; `client --list`
   prints their names. It knows nothing of moat. */
#define _GNU_SOURCE
#include "client.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;

int open_group(int error) {
    const int group = open(GROUP_PATH, O_RDWR | O_CLOEXEC);
    REQUIRE(error == 0 ? group >= 0 : group < 0 && errno == error);
    return group;
}

void* function_named(const char* name) {
    void* const function = dlsym(RTLD_DEFAULT, name);
    REQUIRE(function != NULL);
    return function;
}

struct device open_device(void) {
    struct device made;
    made.container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
    REQUIRE(made.container >= 0);
    REQUIRE(ioctl(made.container, VFIO_GET_API_VERSION) == VFIO_API_VERSION);
    made.group = open_group(0);
    REQUIRE(ioctl(made.group, VFIO_GROUP_SET_CONTAINER, &made.container) == 0);
    REQUIRE(ioctl(made.container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0);
    made.device = ioctl(made.group, VFIO_GROUP_GET_DEVICE_FD, DEVICE_NAME);
    REQUIRE(made.device >= 0);
    struct vfio_region_info region = {.argsz = sizeof region, .index = VFIO_PCI_BAR0_REGION_INDEX};
    REQUIRE(ioctl(made.device, VFIO_DEVICE_GET_REGION_INFO, &region) == 0);
    REQUIRE(region.size == bar_bytes && region.offset == 0);
    made.bar = mmap(NULL, bar_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, made.device, 0);
    REQUIRE(made.bar != MAP_FAILED);
    const uint16_t memory_and_master = 6;
    const off_t command = ((off_t)VFIO_PCI_CONFIG_REGION_INDEX << 40) + 4;
    REQUIRE(pwrite(made.device, &memory_and_master, 2, command) == 2);
    REQUIRE(made.bar[reg_identity] == identity);
    return made;
}

void close_device(struct device* device) {
    REQUIRE(munmap((void*)device->bar, bar_bytes) == 0);
    REQUIRE(close(device->device) == 0);
    REQUIRE(close(device->group) == 0);
    REQUIRE(close(device->container) == 0);
}

static void map(const struct device* device, void* memory, uint64_t iova, uint64_t bytes) {
    struct vfio_iommu_type1_dma_map request = {
        .argsz = sizeof request,
        .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        .vaddr = (uint64_t)(uintptr_t)memory,
        .iova = iova,
        .size = bytes,
    };
    REQUIRE(ioctl(device->container, VFIO_IOMMU_MAP_DMA, &request) == 0);
}

enum { to_memory = 2 };

static void copy(const struct device* device, uint64_t source, uint64_t target, uint32_t bytes,
                 uint32_t direction) {
    volatile uint64_t* const numbers = (volatile uint64_t*)device->bar;
    numbers[reg_source / 2] = source;
    numbers[reg_target / 2] = target;
    numbers[reg_count / 2] = bytes;
    device->bar[reg_command] = 1 | direction;
    while ((device->bar[reg_command] & 1) != 0) {
    }
}

/* Memory to the device's buffer, at 0x40000, and back to another place. */
static void dma(void) {
    struct device device = open_device();
    unsigned char* const memory =
        mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    for (unsigned i = 0; i < 100; ++i)
        memory[i] = (unsigned char)(i + 1);
    map(&device, memory, 0x100000, 8192);
    copy(&device, 0x100000, 0x40000, 100, 0);
    copy(&device, 0x40000, 0x101000, 100, to_memory);
    REQUIRE(memcmp(memory, memory + 4096, 100) == 0);
    struct vfio_iommu_type1_dma_unmap request = {
        .argsz = sizeof request, .iova = 0x100000, .size = 8192};
    REQUIRE(ioctl(device.container, VFIO_IOMMU_UNMAP_DMA, &request) == 0 && request.size == 8192);
    close_device(&device);
}

/* What moat is to find, with the stack of this function. */
__attribute__((noinline)) static void ring_for_unmapped(const struct device* device) {
    copy(device, 0x40000, 0x200000, 64, to_memory);
    __asm__ volatile("");
}

static void stray(void) {
    struct device device = open_device();
    ring_for_unmapped(&device);
    close_device(&device);
}

static void interrupt(void) {
    struct device device = open_device();
    const int event = eventfd(0, EFD_CLOEXEC);
    char bytes[sizeof(struct vfio_irq_set) + sizeof event];
    struct vfio_irq_set* const set = (struct vfio_irq_set*)bytes;
    *set = (struct vfio_irq_set){.argsz = sizeof bytes,
                                 .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
                                 .index = VFIO_PCI_INTX_IRQ_INDEX,
                                 .count = 1};
    memcpy(set->data, &event, sizeof event);
    struct vfio_irq_info info = {.argsz = sizeof info, .index = VFIO_PCI_INTX_IRQ_INDEX};
    REQUIRE(ioctl(device.device, VFIO_DEVICE_GET_IRQ_INFO, &info) == 0);
    if (info.count == 0) {
        set->index = VFIO_PCI_MSI_IRQ_INDEX;
        info.index = VFIO_PCI_MSI_IRQ_INDEX;
        REQUIRE(ioctl(device.device, VFIO_DEVICE_GET_IRQ_INFO, &info) == 0);
        if (info.count == 0)
            set->index = VFIO_PCI_MSIX_IRQ_INDEX;
    }
    REQUIRE(ioctl(device.device, VFIO_DEVICE_SET_IRQS, set) == 0);
    device.bar[0x60 / 4] = 4; /* raise */
    uint64_t count = 0;
    REQUIRE(read(event, &count, sizeof count) == sizeof count && count >= 1);
    close_device(&device);
}

static void closed_twice(void) {
    const int container = open("/dev/vfio/vfio", O_RDWR);
    REQUIRE(close(container) == 0);
    REQUIRE(close(container) == -1 && errno == EBADF);
    REQUIRE(ioctl(container, VFIO_GET_API_VERSION) == -1 && errno == EBADF);
}

/* The mapping keeps the device's file open, as Linux does. */
static void mapping_outlives_descriptors(void) {
    struct device device = open_device();
    REQUIRE(close(device.device) == 0 && close(device.group) == 0 && close(device.container) == 0);
    REQUIRE(device.bar[reg_identity] == identity);
    open_group(EBUSY);
    REQUIRE(munmap((void*)device.bar, bar_bytes) == 0);
    REQUIRE(close(open_group(0)) == 0);
}

static void parts_of_a_mapping_end(void) {
    struct device device = open_device();
    char* const start = (char*)device.bar;
    REQUIRE(munmap(start + 8192, 4096) == 0);
    device.bar[reg_source] = 77;
    REQUIRE(device.bar[reg_source] == 77);
    (void)*(volatile uint32_t*)(start + 12288); /* behind the hole */
    REQUIRE(munmap(start, 8192) == 0);
    device.bar = (volatile uint32_t*)start;
    close_device(&device);
    REQUIRE(close(open_group(0)) == 0);
}

struct worker {
    const struct device* device;
    unsigned reg;
};

static void* use_registers(void* argument) {
    const struct worker* const worker = argument;
    for (uint32_t i = 1; i <= 300; ++i) {
        worker->device->bar[worker->reg] = i;
        REQUIRE(worker->device->bar[worker->reg] == i);
        if (i % 30 == 0) { /* another mapping comes and goes */
            volatile uint32_t* const other =
                mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, worker->device->device, 0);
            REQUIRE(other != MAP_FAILED && other[reg_identity] == identity);
            REQUIRE(munmap((void*)other, 4096) == 0);
            const int copied = dup(worker->device->container);
            REQUIRE(ioctl(copied, VFIO_GET_API_VERSION) == 0 && close(copied) == 0);
        }
    }
    return NULL;
}

static void threads(void) {
    struct device device = open_device();
    const unsigned registers[] = {reg_source, reg_target, reg_count};
    pthread_t made[3];
    struct worker workers[3];
    for (unsigned i = 0; i < 3; ++i) {
        workers[i] = (struct worker){&device, registers[i]};
        REQUIRE(pthread_create(&made[i], NULL, use_registers, &workers[i]) == 0);
    }
    for (unsigned i = 0; i < 3; ++i)
        REQUIRE(pthread_join(made[i], NULL) == 0);
    close_device(&device);
}

static void dlopened(void) {
    void* const library = dlopen(getenv("CLIENT_LIBRARY"), RTLD_NOW);
    REQUIRE(library != NULL);
    uint32_t (*const read_identity)(void) = (uint32_t (*)(void))dlsym(library, "read_identity");
    REQUIRE(read_identity() == identity);
    REQUIRE(dlclose(library) == 0);
}

static void expect_exit(pid_t child, int status) {
    int ended = 0;
    REQUIRE(child > 0 && waitpid(child, &ended, 0) == child);
    REQUIRE(WIFEXITED(ended) && WEXITSTATUS(ended) == status);
}

static void forked(void) {
    struct device device = open_device();
    const pid_t child = fork();
    if (child == 0) {
        REQUIRE(device.bar[reg_identity] == 0xffffffff);
        REQUIRE(ioctl(device.container, VFIO_GET_API_VERSION) == -1 && errno == ENODEV);
        REQUIRE(close(device.device) == 0 && close(device.group) == 0);
        REQUIRE(close(device.container) == 0);
        struct device own = open_device(); /* devices of the child's own */
        close_device(&own);
        exit(7);
    }
    expect_exit(child, 7);
    REQUIRE(device.bar[reg_identity] == identity);
    REQUIRE(ioctl(device.container, VFIO_GET_API_VERSION) == 0);
    close_device(&device);
}

static void vforked(void) {
    struct device device = open_device();
    const pid_t child = vfork();
    if (child == 0) {
        close(device.container);
        close(device.device);
        _exit(7);
    }
    expect_exit(child, 7);
    REQUIRE(ioctl(device.container, VFIO_GET_API_VERSION) == 0);
    pid_t spawned = 0;
    char* arguments[] = {"true", NULL};
    REQUIRE(posix_spawnp(&spawned, "true", NULL, NULL, arguments, environ) == 0);
    expect_exit(spawned, 0);
    close_device(&device);
}

static sigjmp_buf after_fault;
static volatile uintptr_t fault_address;

static void on_fault(int signal, siginfo_t* info, void* context) {
    (void)signal;
    (void)context;
    fault_address = (uintptr_t)info->si_addr;
    siglongjmp(after_fault, 1);
}

static void fault_at(void* address) {
    fault_address = 0;
    if (sigsetjmp(after_fault, 1) == 0)
        *(volatile char*)address = 1;
    REQUIRE(fault_address == (uintptr_t)address);
}

/* A handler that the program set first gets its own faults, and again after it left with a jump. */
static void handler_from_before(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    REQUIRE(sigaction(SIGSEGV, &action, NULL) == 0);
    struct device device = open_device();
    void* const none = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fault_at(none);
    REQUIRE(device.bar[reg_identity] == identity);
    fault_at((char*)none + 8);
    struct sigaction old;
    REQUIRE(sigaction(SIGSEGV, NULL, &old) == 0 && old.sa_sigaction == on_fault);
    REQUIRE((old.sa_flags & SA_SIGINFO) != 0);
    close_device(&device);
}

static void expect_missing(int container, void* argument) {
    REQUIRE(ioctl(container, VFIO_IOMMU_GET_INFO, argument) == -1 && errno == EFAULT);
}

/* A page of a file that ends before it. */
static void* page_behind_file(void) {
    void* const page =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memfd_create("empty", MFD_CLOEXEC), 0);
    REQUIRE(page != MAP_FAILED);
    return page;
}

static void expect_every_bad_argument_missing(int container) {
    char* const pages =
        mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(pages != MAP_FAILED && mprotect(pages + 4096, 4096, PROT_NONE) == 0);
    expect_missing(container, NULL);
    expect_missing(container, (void*)(1UL << 63)); /* no address at all */
    expect_missing(container, pages + 4096);
    expect_missing(container, pages + 4096 - 8); /* half of it */
    expect_missing(container, page_behind_file());
    struct vfio_iommu_type1_info info = {.argsz = sizeof info};
    char* const last = pages + 4096 - sizeof info;
    memcpy(last, &info, sizeof info);
    REQUIRE(ioctl(container, VFIO_IOMMU_GET_INFO, last) == 0);
    memcpy(last, &info, sizeof info);
    REQUIRE(mprotect(pages, 4096, PROT_READ) == 0); /* the answer has no place */
    expect_missing(container, last);
    REQUIRE(munmap(pages, 8192) == 0);
}

static void missing_arguments(void) {
    struct device device = open_device();
    expect_every_bad_argument_missing(device.container);
    struct vfio_iommu_type1_dma_map map = {
        .argsz = sizeof map, .flags = VFIO_DMA_MAP_FLAG_READ, .iova = 4096, .size = 4096};
    map.vaddr = (uint64_t)(uintptr_t)page_behind_file();
    REQUIRE(ioctl(device.container, VFIO_IOMMU_MAP_DMA, &map) == -1 && errno == EFAULT);
    close_device(&device);
}

static int container_of_handler;

static void call_and_jump(int signal) {
    (void)signal;
    expect_every_bad_argument_missing(container_of_handler);
    siglongjmp(after_fault, 1);
}

/* A handler blocks the signal that it handles, whether it returns or not. */
static void missing_arguments_in_a_handler(void) {
    struct device device = open_device();
    container_of_handler = device.container;
    signal(SIGSEGV, call_and_jump);
    signal(SIGBUS, call_and_jump);
    char* const bad[] = {(char*)16, page_behind_file()};
    for (unsigned i = 0; i < 4; ++i) {
        if (sigsetjmp(after_fault, 1) == 0) {
            *(volatile char*)bad[i % 2] = 1;
            REQUIRE(0);
        }
        expect_every_bad_argument_missing(device.container);
    }
    close_device(&device);
}

/* What moat is to find: memory that is gone while the device writes to it. */
static void memory_gone(void) {
    struct device device = open_device();
    void* const memory =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    map(&device, memory, 0x100000, 4096);
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED; /* nothing else gets its address */
    REQUIRE(mmap(memory, 4096, PROT_NONE, flags, -1, 0) == memory);
    copy(&device, 0x40000, 0x100000, 64, to_memory);
    copy(&device, 0x100100, 0x40000, 64, 0);
    close_device(&device);
}

static void fault_without_handler(void) {
    struct device device = open_device();
    const pid_t child = fork();
    if (child == 0) {
        *(volatile char*)16 = 1;
        exit(7);
    }
    int ended = 0;
    REQUIRE(waitpid(child, &ended, 0) == child && WIFSIGNALED(ended) && WTERMSIG(ended) == SIGSEGV);
    close_device(&device);
}

/* Reads 64 bytes at once, and stores with a repeated string instruction. */
static void wide_accesses(void) {
    struct device device = open_device();
    unsigned char* const bar = (unsigned char*)device.bar;
    device.bar[reg_source] = 0x12345678;
    uint32_t copied[4];
    __asm__ volatile("movdqu %1, %%xmm0\n\tmovdqu %%xmm0, %0"
                     : "=m"(copied)
                     : "m"(*(unsigned char(*)[16])(bar + 4 * reg_source))
                     : "xmm0");
    REQUIRE(copied[0] == 0x12345678);
    void* to = bar + 4 * reg_source;
    size_t count = 1;
    __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(0x55) : "memory");
    REQUIRE(count == 0 && device.bar[reg_source] == 0x55);
    close_device(&device);
}

static const struct test_case cases[] = {
    {"dma", dma},
    {"stray", stray},
    {"interrupt", interrupt},
    {"closed_twice", closed_twice},
    {"mapping_outlives_descriptors", mapping_outlives_descriptors},
    {"parts_of_a_mapping_end", parts_of_a_mapping_end},
    {"threads", threads},
    {"dlopened", dlopened},
    {"forked", forked},
    {"vforked", vforked},
    {"handler_from_before", handler_from_before},
    {"missing_arguments", missing_arguments},
    {"missing_arguments_in_a_handler", missing_arguments_in_a_handler},
    {"memory_gone", memory_gone},
    {"fault_without_handler", fault_without_handler},
    {"wide_accesses", wide_accesses},
    {NULL, NULL},
};

int main(int count, char** arguments) {
    REQUIRE(count == 2);
    const struct test_case* const tables[] = {cases, entry_cases, path_cases};
    int found = 0;
    for (unsigned i = 0; i < 3; ++i)
        for (const struct test_case* each = tables[i]; each->name != NULL; ++each)
            if (strcmp(arguments[1], "--list") == 0) {
                puts(each->name);
                found = 1;
            } else if (strcmp(arguments[1], each->name) == 0) {
                each->run();
                found = 1;
            }
    return found ? 0 : 2;
}
