// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The two hooks. All ranges of the DMA API's address spaces come from alloc_iova_fast() and return
 * to free_iova_fast(). The first hook asks for a larger range itself; the second replaces the size
 * by that of the range's node in the allocator's tree, so nothing is remembered about ranges.
 * docs/design/kernel_guard.md proves that no range is freed too large.
 */
#define pr_fmt(text) KBUILD_MODNAME ": " text

#include <linux/dma-mapping.h>
#include <linux/hash.h>
#include <linux/log2.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "moat_guard.h"
#include "registers.h"

#ifndef CONFIG_DYNAMIC_FTRACE_WITH_ARGS
#error "moat_guard: the kernel lacks CONFIG_DYNAMIC_FTRACE_WITH_ARGS (arm64: before 6.2)"
#endif
#ifndef CONFIG_IOMMU_DMA
#error "moat_guard: the kernel lacks CONFIG_IOMMU_DMA"
#endif
#ifdef CONFIG_PREEMPT_RT
#error "moat_guard: on PREEMPT_RT the IOVA tree's lock sleeps, and hooks may not"
#endif
#ifdef CONFIG_LTO_CLANG
#error "moat_guard: with LTO the hooked functions may be inlined into their callers"
#endif

/* Ranges below this many pages are rounded up to a power of two. Source: drivers/iommu/iova.c. */
#define ROUNDED_BELOW 32
#define SLOT_BITS 8
#define SLOTS BIT(SLOT_BITS)
/* Slots from its hash on in which a domain may lie. */
#define MAX_REACH 8

static struct guard_domain slots[SLOTS + MAX_REACH];
/* Slots from its hash on in which a domain may lie now. It only grows. */
static unsigned int reach;
/* The task that finds out which domain a device uses, and what it found. */
static struct task_struct *learner;
static struct iova_domain *learned;

static struct guard_domain *slot_at(struct iova_domain *iovad, unsigned int step)
{
	return &slots[hash_ptr(iovad, SLOT_BITS) + step];
}

static __always_inline struct guard_domain *find_slot(struct iova_domain *iovad)
{
	struct guard_domain *first = slot_at(iovad, 0), *slot;

	if (likely(READ_ONCE(first->iovad) == iovad))
		return first;
	for (slot = first + 1; slot < first + READ_ONCE(reach); ++slot)
		if (READ_ONCE(slot->iovad) == iovad)
			return slot;
	return NULL;
}

struct guard_domain *guard_domain_find(struct iova_domain *iovad)
{
	return find_slot(iovad);
}

/* NULL if there are too many. */
struct guard_domain *guard_domain_add(struct iova_domain *iovad)
{
	struct guard_domain *domain = guard_domain_find(iovad);
	unsigned int i;

	if (domain)
		return domain;
	for (i = 0; i < MAX_REACH; ++i) {
		domain = slot_at(iovad, i);
		if (domain->iovad)
			continue;
		memset(domain, 0, sizeof(*domain));
		domain->granule = iovad->granule;
		WRITE_ONCE(reach, max(reach, i + 1));
		/* Hooks that find the domain find its counters cleared. */
		smp_store_release(&domain->iovad, iovad);
		return domain;
	}
	return NULL;
}

void guard_domain_remove(struct guard_domain *domain)
{
	WRITE_ONCE(domain->pages, 0);
	WRITE_ONCE(domain->iovad, NULL);
}

unsigned int guard_domain_number(const struct guard_domain *domain)
{
	return domain - slots;
}

/* Pages of the node that the allocator makes for a request. */
static __always_inline unsigned long node_pages(unsigned long size)
{
	bool is_power = !(size & (size - 1));

	return is_power || size >= ROUNDED_BELOW ? size : 2UL << __fls(size);
}

/*
 * Pages of a range and its guard. A range is aligned to the next power of two, so a guard that ends
 * slightly above one is cut there: by at most a quarter.
 */
static __always_inline unsigned long with_guard(unsigned long size, unsigned long guard)
{
	unsigned long total = size + guard, power;

	if (guard < 4)
		return total;
	power = 1UL << __fls(total);
	return total - power <= guard / 4 ? power : total;
}

static __always_inline bool fits_budget(struct guard_domain *domain, long cost,
					unsigned long limit_pfn)
{
	WRITE_ONCE(domain->limit_pfn, limit_pfn);
	return (atomic_long_read(&domain->held) + cost) * 100 <=
	       limit_pfn * READ_ONCE(guard_budget);
}

/*
 * take_range: alloc_iova_fast() behind the call of its hook. A direct jump needs no landing pad
 * there; guard_hooks_arm() checks where that call is.
 * hand_out: what alloc_iova_fast() becomes when the hook has the range already.
 */
asm(".pushsection .text\n"
    ".type take_range, @function\n"
    "take_range: " GUARD_JUMP "alloc_iova_fast + " __stringify(GUARD_SITE + MCOUNT_INSN_SIZE) "\n"
    ".size take_range, . - take_range\n"
    ".type hand_out, @function\n"
    "hand_out: " GUARD_RETURN
    ".size hand_out, . - hand_out\n"
    ".popsection");
unsigned long take_range(struct iova_domain *iovad, unsigned long size, unsigned long limit_pfn,
			 bool flush_rcache);
void hand_out(void);

/* Takes the range and its guard; otherwise the allocator serves the request as it came. */
static noinline void notrace guarded_alloc(struct guard_domain *domain, unsigned long guard,
					   struct ftrace_regs *fregs)
{
	unsigned long size = guard_argument_1(fregs), limit_pfn = guard_argument_2(fregs);
	unsigned long total = with_guard(size, guard), pfn;
	long cost = node_pages(total) - node_pages(size);

	if (!fits_budget(domain, cost, limit_pfn)) {
		atomic_long_inc(&domain->over_budget);
		return;
	}
	pfn = take_range(domain->iovad, total, limit_pfn, false);
	if (!pfn) {
		atomic_long_inc(&domain->plain);
		return;
	}
	atomic_long_inc(&domain->padded);
	atomic_long_add(cost, &domain->held);
	guard_result(fregs) = pfn;
	guard_target(fregs) = (unsigned long)hand_out;
}

/* Whether ranges of the domain may have guards: else the tree's lock is not worth a look. */
static bool has_guards(struct guard_domain *domain)
{
	return READ_ONCE(domain->pages) || atomic_long_read(&domain->held) > 0;
}

/* Pages of the node that begins there, or 0. Called with the tree's lock held. */
static __always_inline unsigned long pages_at(struct iova_domain *iovad, unsigned long pfn)
{
	struct rb_node *at = iovad->rbroot.rb_node;

	while (at) {
		struct iova *node = rb_entry(at, struct iova, node);

		if (likely(pfn < node->pfn_lo))
			at = at->rb_left;
		else if (unlikely(pfn == node->pfn_lo))
			return iova_size(node);
		else
			at = at->rb_right;
	}
	return 0;
}

/* Frees the whole node, which is never smaller than the range. Its owner calls: it stays. */
static noinline void notrace guarded_free(struct guard_domain *domain, struct ftrace_regs *fregs)
{
	unsigned long flags, pages;
	long cost;

	spin_lock_irqsave(&domain->iovad->iova_rbtree_lock, flags);
	pages = pages_at(domain->iovad, guard_argument_1(fregs));
	spin_unlock_irqrestore(&domain->iovad->iova_rbtree_lock, flags);
	cost = pages - node_pages(guard_argument_2(fregs));
	if (cost <= 0) {
		if (!pages)
			atomic_long_inc(&domain->missed);
		return;
	}
	atomic_long_inc(&domain->restored);
	atomic_long_sub(cost, &domain->held);
	guard_argument_2(fregs) = pages;
}

static void notrace alloc_hook(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
			       struct ftrace_regs *fregs)
{
	struct iova_domain *iovad = (struct iova_domain *)guard_argument_0(fregs);
	struct guard_domain *domain = find_slot(iovad);
	unsigned long guard;

	if (unlikely(READ_ONCE(learner)) && learner == current && in_task())
		learned = iovad;
	guard = domain ? READ_ONCE(domain->pages) : 0;
	if (guard)
		guarded_alloc(domain, guard, fregs);
}

static void notrace free_hook(unsigned long ip, unsigned long parent_ip, struct ftrace_ops *ops,
			      struct ftrace_regs *fregs)
{
	struct iova_domain *iovad = (struct iova_domain *)guard_argument_0(fregs);
	struct guard_domain *domain = find_slot(iovad);

	if (domain && has_guards(domain))
		guarded_free(domain, fregs);
}

static struct ftrace_ops alloc_ops = { .func = alloc_hook, .flags = FTRACE_OPS_FL_IPMODIFY };
static struct ftrace_ops free_ops = { .func = free_hook };

static int __init arm(struct ftrace_ops *ops, const char *name, void *function)
{
	int error = ftrace_set_filter_ip(ops, (unsigned long)function, 0, 0);

	if (error) {
		pr_err("check failed: %s cannot be traced (%d)\n", name, error);
		return error;
	}
	error = register_ftrace_function(ops);
	if (error)
		pr_err("check failed: %s cannot be hooked (%d)%s\n", name, error,
		       error == -EBUSY ? ": a live patch or a probe changes it" : "");
	return error;
}

static void disarm(struct ftrace_ops *ops)
{
	unregister_ftrace_function(ops);
	ftrace_free_filter(ops);
}

/* Takes a range of a domain of our own: padded as computed, and freed whole? */
static int __init check_range(struct guard_domain *domain, unsigned long size, unsigned long guard)
{
	struct iova_domain *iovad = domain->iovad;
	unsigned long wanted = node_pages(with_guard(size, guard));
	unsigned long pfn;
	struct iova *node;

	domain->pages = guard;
	atomic_long_set(&domain->restored, 0);
	pfn = alloc_iova_fast(iovad, size, DMA_BIT_MASK(32) >> PAGE_SHIFT, true);
	node = pfn ? find_iova(iovad, pfn) : NULL;
	if (!node || iova_size(node) != wanted) {
		pr_err("check failed: %lu pages and a guard of %lu gave %lu pages, not %lu%s\n", size,
		       guard, node ? iova_size(node) : 0, wanted,
		       guard ? "; is kernel.ftrace_enabled 0?" : "");
		return -EOPNOTSUPP;
	}
	free_iova_fast(iovad, pfn, size);
	if (atomic_long_read(&domain->restored) != !!guard || atomic_long_read(&domain->held)) {
		pr_err("check failed: the hook of free_iova_fast did not see a range\n");
		return -EOPNOTSUPP;
	}
	return 0;
}

/* The sizes lie on both sides of those that the allocator rounds. */
static int __init check_domain(struct iova_domain *iovad)
{
	static const unsigned long sizes[][2] __initconst = {
		{ 3, 0 }, { 17, 0 }, { 33, 0 }, { 1, 1 }, { 16, 8 }, { 32, 1 }, { 1, 256 },
	};
	struct guard_domain *domain = guard_domain_add(iovad);
	int error = domain ? 0 : -ENOSPC;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sizes) && !error; ++i)
		error = check_range(domain, sizes[i][0], sizes[i][1]);
	if (domain)
		guard_domain_remove(domain);
	return error;
}

static int __init check_hooks(void)
{
	struct iova_domain *iovad = kzalloc(sizeof(*iovad), GFP_KERNEL);
	int error = iovad ? iova_cache_get() : -ENOMEM;

	if (error)
		goto out;
	init_iova_domain(iovad, PAGE_SIZE, 1);
	error = iova_domain_init_rcaches(iovad);
	if (!error)
		error = check_domain(iovad);
	put_iova_domain(iovad);
	iova_cache_put();
out:
	kfree(iovad);
	return error;
}

/* take_range() enters the function behind its call of the hook. */
static int __init check_site(void)
{
	if (guard_is_call((const u8 *)alloc_iova_fast + GUARD_SITE))
		return 0;
	pr_err("check failed: alloc_iova_fast has no call of a hook at byte %d; is kernel.ftrace_enabled 0?\n",
	       GUARD_SITE);
	return -EOPNOTSUPP;
}

int __init guard_hooks_arm(void)
{
	int error = arm(&free_ops, "free_iova_fast", free_iova_fast);

	if (error)
		return error;
	error = arm(&alloc_ops, "alloc_iova_fast", alloc_iova_fast);
	if (error) {
		disarm(&free_ops);
		return error;
	}
	error = check_site();
	if (!error)
		error = check_hooks();
	if (error)
		guard_hooks_disarm();
	return error;
}

/* Ranges with guards may be live: they are then freed too small, which wastes but never overlaps. */
void guard_hooks_disarm(void)
{
	disarm(&alloc_ops);
	disarm(&free_ops);
	/* A task that was preempted in hand_out() has left it afterwards. */
	synchronize_rcu_tasks();
}

/*
 * Maps a page for the device: the hook sees the domain. NULL with an error: -ENOMEM, not mapped;
 * -ENXIO, the mapping passed no hook.
 */
struct iova_domain *guard_domain_used(struct device *dev, int *error)
{
	struct page *page = alloc_page(GFP_KERNEL);
	dma_addr_t address;

	*error = -ENOMEM;
	if (!page)
		return NULL;
	learned = NULL;
	WRITE_ONCE(learner, current);
	address = dma_map_page(dev, page, 0, PAGE_SIZE, DMA_TO_DEVICE);
	WRITE_ONCE(learner, NULL);
	if (!dma_mapping_error(dev, address)) {
		dma_unmap_page(dev, address, PAGE_SIZE, DMA_TO_DEVICE);
		*error = learned ? 0 : -ENXIO;
	}
	__free_page(page);
	return *error ? NULL : learned;
}
