/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * Guards between the DMA mappings of kernel drivers: hooks.c pads what the IOVA allocator hands
 * out, devices.c knows which domains to pad, main.c has the settings and the state file.
 */
#ifndef MOAT_GUARD_H
#define MOAT_GUARD_H

#include <linux/atomic.h>
#include <linux/iova.h>

struct device;
struct seq_file;

#define GUARD_MAX_KIB (1U << 20)
#define GUARD_MAX_BUDGET 90U
/* Bytes of the list of devices; 13 for each and its comma. */
#define GUARD_LIST_BYTES 1024

/* An address space of the DMA API. Hooks read it without a lock. */
struct guard_domain {
	struct iova_domain *iovad; /* NULL: this slot is free */
	unsigned long granule; /* bytes of a page */
	unsigned long pages; /* of each guard; 0: ranges are not padded */
	unsigned long limit_pfn; /* the last page that the last request could have */
	unsigned long before; /* ranges older than the guards, reserved ones among them */
	u64 since; /* when guards began, on the clock of the kernel's log; ns */
	atomic_long_t held; /* pages of live guards */
	atomic_long_t padded;
	atomic_long_t plain; /* not padded: no padded range was free */
	atomic_long_t over_budget; /* not padded: live guards hold their share */
	atomic_long_t restored; /* freed with their guard */
	atomic_long_t missed; /* freed, but no range of the tree begins there */
} ____cacheline_aligned;

/* hooks.c */
int guard_hooks_arm(void);
void guard_hooks_disarm(void);
struct iova_domain *guard_domain_used(struct device *dev, int *error);

/* hooks.c: the table of domains. Callers hold a lock of their own. */
struct guard_domain *guard_domain_find(struct iova_domain *iovad);
struct guard_domain *guard_domain_add(struct iova_domain *iovad);
void guard_domain_remove(struct guard_domain *domain);
unsigned int guard_domain_number(const struct guard_domain *domain);

/* devices.c */
int guard_devices_begin(void);
void guard_devices_end(void);
void guard_devices_apply(void);
int guard_devices_choose(const char *list);
int guard_devices_chosen(char *list, size_t bytes);
void guard_devices_show(struct seq_file *file);

/* main.c: settings */
unsigned int guard_size_kib(void);
/* Percent of a domain's addresses that guards may hold. */
extern unsigned int guard_budget;

#endif
