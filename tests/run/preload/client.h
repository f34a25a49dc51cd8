/* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception */
/* A small VFIO program: what the cases of client.c, entries.c and paths.c have in common. */
#ifndef MOAT_TESTS_RUN_CLIENT_H
#define MOAT_TESTS_RUN_CLIENT_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s (errno %m)\n", __FILE__, __LINE__, #condition);     \
            exit(3);                                                                               \
        }                                                                                          \
    } while (0)

struct test_case {
    const char* name;
    void (*run)(void);
};

extern const struct test_case entry_cases[]; /* one for each interposed function; ends with null */
extern const struct test_case path_cases[];

/* The edu device of group GROUP, opened as every VFIO program does. */
struct device {
    int container;
    int group;
    int device;
    volatile uint32_t* bar; /* BAR 0, of bar_bytes */
};

enum { group_number = 0x500, bar_bytes = 1 << 20, identity = 0x010000ed };

/* Indices of 32-bit registers. */
enum {
    reg_identity = 0,
    reg_liveness = 1,
    reg_source = 32,
    reg_target = 34,
    reg_count = 36,
    reg_command = 38
};

#define DEVICE_NAME "0000:05:00.0"
#define GROUP_PATH "/dev/vfio/1280"

/* Opens the group, and requires `error` of it (0: it opens). Return: the descriptor. */
int open_group(int error);

struct device open_device(void);
void close_device(struct device* device);

/* The function in libmoat-run.so, or whatever comes first. */
void* function_named(const char* name);

#endif
