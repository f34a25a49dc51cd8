// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Mappings for a PCI function that another driver has, for the tests of moat_guard; the device
 * itself stays idle. Write a command to /sys/kernel/debug/guard_traffic; a read returns its result.
 */
#include <linux/debugfs.h>
#include <linux/dma-mapping.h>
#include <linux/iommu.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/string.h>
#include <linux/uaccess.h>

/* The bus address of the function; its domain is 0. */
static unsigned int slot = 4;
module_param(slot, uint, 0444);

#define BUFFER_ORDER 6
#define BUFFER_PAGES (1U << BUFFER_ORDER)
#define HELD 150
#define SETS 2
#define NARROW 400
#define KINDS 3
/* Mappings of equal size, whose distances show what each takes of the address space. */
#define SPACED 9
#define MAX_SPACED_PAGES 8192
#define MAX_RACERS 8
#define RACE_PAIRS 20000

enum kind { SINGLE, COHERENT, LIST };

struct mapping {
	enum kind kind;
	dma_addr_t start;
	size_t size;
	void *coherent;
	struct scatterlist list[2];
	int segments;
};

static struct pci_dev *device;
static char *buffer;
static struct mapping *sets[SETS]; /* of HELD mappings, or NULL */
static struct dentry *file;
static char result[200];
static DEFINE_MUTEX(lock);

static int map(struct mapping *mapping, enum kind kind, size_t size)
{
	struct device *dev = &device->dev;

	mapping->kind = kind;
	mapping->size = size;
	switch (kind) {
	case SINGLE:
		mapping->start = dma_map_single(dev, buffer, size, DMA_TO_DEVICE);
		return dma_mapping_error(dev, mapping->start);
	case COHERENT:
		mapping->coherent = dma_alloc_coherent(dev, size, &mapping->start, GFP_KERNEL);
		return mapping->coherent ? 0 : -ENOMEM;
	case LIST:
		mapping->segments = size > PAGE_SIZE ? 2 : 1;
		sg_init_table(mapping->list, mapping->segments);
		sg_set_buf(&mapping->list[0], buffer, PAGE_SIZE);
		if (mapping->segments == 2)
			sg_set_buf(&mapping->list[1], buffer + PAGE_SIZE, size - PAGE_SIZE);
		if (!dma_map_sg(dev, mapping->list, mapping->segments, DMA_TO_DEVICE))
			return -ENOMEM;
		mapping->start = sg_dma_address(mapping->list);
		return 0;
	}
	return -EINVAL;
}

static void unmap(struct mapping *mapping)
{
	struct device *dev = &device->dev;

	if (mapping->kind == SINGLE)
		dma_unmap_single(dev, mapping->start, mapping->size, DMA_TO_DEVICE);
	else if (mapping->kind == COHERENT)
		dma_free_coherent(dev, mapping->size, mapping->coherent, mapping->start);
	else
		dma_unmap_sg(dev, mapping->list, mapping->segments, DMA_TO_DEVICE);
}

/* Whole pages, so that the next mapping begins where this one ends if nothing lies between. */
static size_t size_of(int i)
{
	return (1 + i * 7 % (BUFFER_PAGES - 1)) * PAGE_SIZE;
}

static void drop(struct mapping *set, int count)
{
	while (count--)
		unmap(&set[count]);
	kvfree(set);
}

/* A set of count mappings of all kinds. */
static struct mapping *hold(int count, size_t (*size)(int i))
{
	struct mapping *set = kvcalloc(count, sizeof(*set), GFP_KERNEL);
	int i;

	for (i = 0; set && i < count; ++i) {
		if (map(&set[i], i % KINDS, size(i))) {
			drop(set, i);
			return NULL;
		}
	}
	return set;
}

static int by_start(const void *a, const void *b)
{
	const struct mapping *left = *(struct mapping **)a, *right = *(struct mapping **)b;

	return left->start < right->start ? -1 : left->start > right->start;
}

/* The least distance of two live mappings, negative if they overlap; and mappings that do not lead
 * to their memory.
 */
static void check(struct mapping **live, int count)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(&device->dev);
	s64 gap, least = S64_MAX;
	int i, wrong = 0;

	sort(live, count, sizeof(*live), by_start, NULL);
	for (i = 0; i < count; ++i) {
		if (live[i]->kind != COHERENT &&
		    iommu_iova_to_phys(domain, live[i]->start + live[i]->size - 1) !=
			    virt_to_phys(buffer) + live[i]->size - 1)
			++wrong;
		if (!i)
			continue;
		gap = live[i]->start - live[i - 1]->start - live[i - 1]->size;
		least = min(least, gap);
	}
	scnprintf(result, sizeof(result), "live %d least_gap %lld wrong %d", count, least, wrong);
}

static int check_sets(void)
{
	struct mapping **live = kvcalloc(SETS * HELD, sizeof(*live), GFP_KERNEL);
	int i, j, count = 0;

	if (!live)
		return -ENOMEM;
	for (i = 0; i < SETS; ++i)
		for (j = 0; sets[i] && j < HELD; ++j)
			live[count++] = &sets[i][j];
	check(live, count);
	kvfree(live);
	return 0;
}

static int run_hold(int number)
{
	if (sets[number])
		return -EBUSY;
	sets[number] = hold(HELD, size_of);
	return sets[number] ? check_sets() : -ENOMEM;
}

static int run_drop(int number)
{
	if (sets[number])
		drop(sets[number], HELD);
	sets[number] = NULL;
	return check_sets();
}

static size_t one_page(int i)
{
	return PAGE_SIZE;
}

/* Many mappings below 2^28: how many succeed? */
static int run_narrow(void)
{
	struct device *dev = &device->dev;
	struct mapping *set = kvcalloc(NARROW, sizeof(*set), GFP_KERNEL);
	int count = 0, error = dma_set_mask(dev, DMA_BIT_MASK(28));

	while (set && !error && count < NARROW && !map(&set[count], SINGLE, one_page(count)))
		++count;
	scnprintf(result, sizeof(result), "mapped %d of %d", count, NARROW);
	if (set)
		drop(set, count);
	return error ? error : dma_set_mask(dev, DMA_BIT_MASK(64));
}

/* Pairs of map and unmap of all kinds: the load that settings change under. */
static int run_churn(void)
{
	struct mapping set[16] = {};
	int i, round;

	for (round = 0; round < 300; ++round) {
		for (i = 0; i < ARRAY_SIZE(set); ++i)
			if (map(&set[i], i % KINDS, size_of(i + round)))
				break;
		while (i--)
			unmap(&set[i]);
		cond_resched();
	}
	return check_sets();
}

/* One memory page again and again, mapped to that many pages. */
static int map_repeated(struct sg_table *table, int pages)
{
	struct scatterlist *each;
	int i, error = sg_alloc_table(table, pages, GFP_KERNEL);

	if (error)
		return error;
	for_each_sgtable_sg(table, each, i) sg_set_buf(each, buffer, PAGE_SIZE);
	error = dma_map_sgtable(&device->dev, table, DMA_TO_DEVICE, 0);
	if (error)
		sg_free_table(table);
	return error;
}

/* The least distance of mappings made one after the other: what each takes of the address space. */
static int run_space(int pages)
{
	struct sg_table tables[SPACED];
	dma_addr_t start, last = 0;
	u64 least = U64_MAX;
	int i, error = 0, count = 0;

	if (pages < 1 || pages > MAX_SPACED_PAGES)
		return -EINVAL;
	while (count < SPACED && !(error = map_repeated(&tables[count], pages)))
		++count;
	for (i = 0; i < count; ++i) {
		start = sg_dma_address(tables[i].sgl);
		if (i)
			least = min(least, start > last ? start - last : last - start);
		last = start;
	}
	for (i = 0; i < count; ++i) {
		dma_unmap_sgtable(&device->dev, &tables[i], DMA_TO_DEVICE, 0);
		sg_free_table(&tables[i]);
	}
	scnprintf(result, sizeof(result), "%llu", least >> PAGE_SHIFT);
	return error;
}

static DECLARE_COMPLETION(raced);

static int race_one(void *unused)
{
	dma_addr_t at;
	int i, failed = 0;

	for (i = 0; i < RACE_PAIRS; ++i) {
		at = dma_map_single(&device->dev, buffer, PAGE_SIZE, DMA_TO_DEVICE);
		if (dma_mapping_error(&device->dev, at))
			++failed;
		else
			dma_unmap_single(&device->dev, at, PAGE_SIZE, DMA_TO_DEVICE);
	}
	complete(&raced);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return failed;
}

/* Pairs of map and unmap by threads on as many processors: the time of a pair on each. */
static int run_race(int threads)
{
	struct task_struct *racers[MAX_RACERS];
	ktime_t began = ktime_get(), took;
	int i, count, failed = 0;

	for (count = 0; count < min(threads, MAX_RACERS); ++count) {
		racers[count] = kthread_create(race_one, NULL, "guard_race/%d", count);
		if (IS_ERR(racers[count]))
			break;
		kthread_bind(racers[count], count % num_online_cpus());
		wake_up_process(racers[count]);
	}
	for (i = 0; i < count; ++i)
		wait_for_completion(&raced);
	took = ktime_sub(ktime_get(), began);
	for (i = 0; i < count; ++i)
		failed += kthread_stop(racers[i]);
	scnprintf(result, sizeof(result), "threads %d failed %d ns_per_pair %lld", count, failed,
		  ktime_to_ns(took) / RACE_PAIRS);
	return 0;
}

static int run(const char *command)
{
	int number;

	result[0] = '\0';
	if (sscanf(command, "hold %d", &number) == 1 && number >= 0 && number < SETS)
		return run_hold(number);
	if (sscanf(command, "drop %d", &number) == 1 && number >= 0 && number < SETS)
		return run_drop(number);
	if (sscanf(command, "space %d", &number) == 1)
		return run_space(number);
	if (sscanf(command, "race %d", &number) == 1)
		return run_race(number);
	if (!strcmp(command, "narrow"))
		return run_narrow();
	if (!strcmp(command, "churn"))
		return run_churn();
	return -EINVAL;
}

static ssize_t traffic_write(struct file *f, const char __user *from, size_t count, loff_t *at)
{
	char command[32];
	int error;

	if (count >= sizeof(command))
		return -EINVAL;
	if (copy_from_user(command, from, count))
		return -EFAULT;
	command[count] = '\0';
	mutex_lock(&lock);
	error = run(strim(command));
	mutex_unlock(&lock);
	return error ? error : count;
}

static ssize_t traffic_read(struct file *f, char __user *to, size_t count, loff_t *at)
{
	char line[sizeof(result) + 1];
	int bytes;

	mutex_lock(&lock);
	bytes = scnprintf(line, sizeof(line), "%s\n", result);
	mutex_unlock(&lock);
	return simple_read_from_buffer(to, count, at, line, bytes);
}

static const struct file_operations traffic_file = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = traffic_read,
	.write = traffic_write,
};

static int __init traffic_init(void)
{
	device = pci_get_domain_bus_and_slot(0, 0, PCI_DEVFN(slot, 0));
	buffer = (char *)__get_free_pages(GFP_KERNEL, BUFFER_ORDER);
	if (!device || !buffer) {
		pci_dev_put(device);
		free_pages((unsigned long)buffer, BUFFER_ORDER);
		return -ENODEV;
	}
	dma_set_max_seg_size(&device->dev, BUFFER_PAGES * PAGE_SIZE);
	file = debugfs_create_file("guard_traffic", 0600, NULL, NULL, &traffic_file);
	return 0;
}

static void __exit traffic_exit(void)
{
	int i;

	debugfs_remove(file);
	for (i = 0; i < SETS; ++i)
		if (sets[i])
			drop(sets[i], HELD);
	free_pages((unsigned long)buffer, BUFFER_ORDER);
	pci_dev_put(device);
}

module_init(traffic_init);
module_exit(traffic_exit);

MODULE_DESCRIPTION("Mappings of a PCI function, for the tests of moat_guard");
MODULE_LICENSE("Dual MIT/GPL");
