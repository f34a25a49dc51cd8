// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * A driver of QEMU's edu device with one bug per command, for the tests of moat watch. Write a
 * command to /sys/kernel/debug/edu_dma: the write returns when the device is done. A read returns
 * what the command did. The function that maps has the command's name, so stacks can be checked.
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/iommu.h>
#include <linux/iopoll.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>
#include <linux/string.h>
#include <linux/uaccess.h>

/* Source: QEMU's docs/specs/edu. */
#define EDU_VENDOR 0x1234
#define EDU_DEVICE 0x11e8
#define EDU_DMA_SOURCE 0x80
#define EDU_DMA_TARGET 0x88
#define EDU_DMA_COUNT 0x90
#define EDU_DMA_COMMAND 0x98
#define EDU_DMA_RUN BIT(0)
#define EDU_DMA_TO_MEMORY BIT(1)
#define EDU_BUFFER 0x40000
#define EDU_TIMEOUT_US 5000000

/* Bytes of a transfer; a stray transfer begins or ends half of them outside of its mapping. */
#define CHUNK 64
#define HALF (CHUNK / 2)
#define SEGMENTS 3
#define PAGES 4
/* Mappings of a page: all are new ones in a fresh machine; the last are, after the other commands.
 */
#define FEW 16
#define NEIGHBOURS 64
/* The kernel invalidates the IOTLB up to 10 ms after an unmap. */
#define SETTLE_MS 50
/* Later than any line about a fault can come. */
#define LONG_BEFORE_MS 400

struct edu {
	struct device *dev;
	void __iomem *bar;
	struct dentry *file;
	struct mutex lock; /* one command at a time */
	char *memory;	   /* of PAGES pages */
	struct scatterlist list[SEGMENTS];
	char result[160];
};

static int edu_transfer(struct edu *edu, u64 source, u64 target, u64 command)
{
	u64 state;

	writeq(source, edu->bar + EDU_DMA_SOURCE);
	writeq(target, edu->bar + EDU_DMA_TARGET);
	writeq(CHUNK, edu->bar + EDU_DMA_COUNT);
	writeq(command | EDU_DMA_RUN, edu->bar + EDU_DMA_COMMAND);
	return readq_poll_timeout(edu->bar + EDU_DMA_COMMAND, state, !(state & EDU_DMA_RUN), 1000,
				  EDU_TIMEOUT_US);
}

/* The device writes to memory. */
static int edu_write(struct edu *edu, dma_addr_t at)
{
	return edu_transfer(edu, EDU_BUFFER, at, EDU_DMA_TO_MEMORY);
}

/* The device reads memory. */
static int edu_read(struct edu *edu, dma_addr_t at)
{
	return edu_transfer(edu, at, EDU_BUFFER, 0);
}

static bool edu_is_mapped(struct edu *edu, dma_addr_t at)
{
	return iommu_iova_to_phys(iommu_get_domain_for_dev(edu->dev), at) != 0;
}

/* The device writes, partly outside of the mapping: -EBUSY if something is mapped there. */
static int edu_stray_at_once(struct edu *edu, dma_addr_t start, size_t size, dma_addr_t at)
{
	scnprintf(edu->result, sizeof(edu->result), "mapping %pad size %zu write %pad size %d",
		  &start, size, &at, CHUNK);
	if (edu_is_mapped(edu, at < start ? at : at + CHUNK - 1))
		return -EBUSY;
	return edu_write(edu, at);
}

/* The same; the mapping then lives until the kernel has logged the fault. */
static int edu_stray(struct edu *edu, dma_addr_t start, size_t size, dma_addr_t at)
{
	int error = edu_stray_at_once(edu, start, size, at);

	msleep(SETTLE_MS);
	return error;
}

static int edu_map_page_overrun(struct edu *edu)
{
	const size_t size = 1000;
	dma_addr_t start = dma_map_page(edu->dev, virt_to_page(edu->memory), PAGE_SIZE - size, size,
					DMA_BIDIRECTIONAL);
	int error;

	if (dma_mapping_error(edu->dev, start))
		return -ENOMEM;
	error = edu_stray(edu, start, size, start + size - HALF);
	dma_unmap_page(edu->dev, start, size, DMA_BIDIRECTIONAL);
	return error;
}

static int edu_map_page_underrun(struct edu *edu)
{
	const size_t size = 1500;
	dma_addr_t start =
		dma_map_page(edu->dev, virt_to_page(edu->memory), 0, size, DMA_FROM_DEVICE);
	int error;

	if (dma_mapping_error(edu->dev, start))
		return -ENOMEM;
	error = edu_stray(edu, start, size, start - HALF);
	dma_unmap_page(edu->dev, start, size, DMA_FROM_DEVICE);
	return error;
}

static int edu_map_single_overrun(struct edu *edu)
{
	const size_t size = PAGE_SIZE + 500;
	dma_addr_t start =
		dma_map_single(edu->dev, edu->memory + PAGE_SIZE - 500, size, DMA_FROM_DEVICE);
	int error;

	if (dma_mapping_error(edu->dev, start))
		return -ENOMEM;
	error = edu_stray(edu, start, size, start + size - HALF);
	dma_unmap_single(edu->dev, start, size, DMA_FROM_DEVICE);
	return error;
}

/* The mapping ends before the kernel logs the fault, as happens to a driver that unmaps at once. */
static int edu_late_overrun(struct edu *edu)
{
	const size_t size = 700;
	dma_addr_t start =
		dma_map_single(edu->dev, edu->memory + PAGE_SIZE - size, size, DMA_FROM_DEVICE);
	int error;

	if (dma_mapping_error(edu->dev, start))
		return -ENOMEM;
	error = edu_stray_at_once(edu, start, size, start + size - HALF);
	dma_unmap_single(edu->dev, start, size, DMA_FROM_DEVICE);
	return error;
}

/* Segments that fill the second halves of their pages, so that the IOMMU's code joins none. */
static void edu_make_list(struct edu *edu)
{
	int i;

	sg_init_table(edu->list, SEGMENTS);
	for (i = 0; i < SEGMENTS; ++i)
		sg_set_buf(&edu->list[i], edu->memory + i * PAGE_SIZE + PAGE_SIZE / 2,
			   PAGE_SIZE / 2);
}

static int edu_list_overrun(struct edu *edu)
{
	struct scatterlist *last = &edu->list[SEGMENTS - 1];
	int error;

	edu_make_list(edu);
	if (dma_map_sg(edu->dev, edu->list, SEGMENTS, DMA_FROM_DEVICE) != SEGMENTS)
		return -ENOMEM;
	error = edu_stray(edu, sg_dma_address(last), sg_dma_len(last),
			  sg_dma_address(last) + sg_dma_len(last) - HALF);
	dma_unmap_sg(edu->dev, edu->list, SEGMENTS, DMA_FROM_DEVICE);
	return error;
}

static int edu_list_underrun(struct edu *edu)
{
	struct scatterlist *first = &edu->list[0];
	int error;

	edu_make_list(edu);
	if (dma_map_sg(edu->dev, edu->list, SEGMENTS, DMA_FROM_DEVICE) != SEGMENTS)
		return -ENOMEM;
	error = edu_stray(edu, sg_dma_address(first), sg_dma_len(first),
			  (sg_dma_address(first) & PAGE_MASK) - HALF);
	dma_unmap_sg(edu->dev, edu->list, SEGMENTS, DMA_FROM_DEVICE);
	return error;
}

static int edu_coherent_overrun(struct edu *edu)
{
	const size_t size = 2 * PAGE_SIZE;
	dma_addr_t start;
	void *memory = dma_alloc_coherent(edu->dev, size, &start, GFP_KERNEL);
	int error;

	if (!memory)
		return -ENOMEM;
	error = edu_stray(edu, start, size, start + size - HALF);
	dma_free_coherent(edu->dev, size, memory, start);
	return error;
}

static int edu_coherent_underrun(struct edu *edu)
{
	const size_t size = 2 * PAGE_SIZE;
	dma_addr_t start;
	void *memory = dma_alloc_coherent(edu->dev, size, &start, GFP_KERNEL);
	int error;

	if (!memory)
		return -ENOMEM;
	error = edu_stray(edu, start, size, start - HALF);
	dma_free_coherent(edu->dev, size, memory, start);
	return error;
}

static int edu_use_after_unmap(struct edu *edu)
{
	const size_t size = 3000;
	dma_addr_t start = dma_map_single(edu->dev, edu->memory, size, DMA_FROM_DEVICE);

	if (dma_mapping_error(edu->dev, start))
		return -ENOMEM;
	dma_unmap_single(edu->dev, start, size, DMA_FROM_DEVICE);
	msleep(SETTLE_MS);
	return edu_stray(edu, start, size, start + HALF);
}

static int edu_write_to_read_only(struct edu *edu)
{
	const size_t size = 2000;
	dma_addr_t start = dma_map_single(edu->dev, edu->memory, size, DMA_TO_DEVICE);
	int error;

	if (dma_mapping_error(edu->dev, start))
		return -ENOMEM;
	scnprintf(edu->result, sizeof(edu->result), "mapping %pad size %zu write %pad size %d",
		  &start, size, &start, CHUNK);
	error = edu_write(edu, start);
	msleep(SETTLE_MS);
	dma_unmap_single(edu->dev, start, size, DMA_TO_DEVICE);
	return error;
}

/* The bug of a driver that passes a physical address. */
static int edu_never_mapped(struct edu *edu)
{
	return edu_stray(edu, virt_to_phys(edu->memory), 0, virt_to_phys(edu->memory));
}

/* The device copies a chunk: it reads one mapping and writes another. */
static int edu_copy(struct edu *edu, dma_addr_t source, dma_addr_t target)
{
	int error = edu_read(edu, source);

	return error ? error : edu_write(edu, target);
}

static void edu_fill(u8 *from, u8 *to, int seed)
{
	int i;

	for (i = 0; i < CHUNK; ++i) {
		from[i] = i * 7 + seed;
		to[i] = 0;
	}
}

static int edu_compare(const void *from, const void *to)
{
	return memcmp(from, to, CHUNK) ? -EIO : 0;
}

static int edu_correct_coherent(struct edu *edu)
{
	dma_addr_t start;
	void *memory = dma_alloc_coherent(edu->dev, 2 * PAGE_SIZE, &start, GFP_KERNEL);
	void *last = memory + 2 * PAGE_SIZE - CHUNK;
	int error;

	if (!memory)
		return -ENOMEM;
	edu_fill(memory, last, 1);
	error = edu_copy(edu, start, start + 2 * PAGE_SIZE - CHUNK);
	if (!error)
		error = edu_compare(memory, last);
	dma_free_coherent(edu->dev, 2 * PAGE_SIZE, memory, start);
	return error;
}

/* From the first bytes of the list's first segment to the last ones of its last. */
static int edu_correct_list(struct edu *edu)
{
	struct scatterlist *first = &edu->list[0], *last = &edu->list[SEGMENTS - 1];
	void *to = edu->memory + SEGMENTS * PAGE_SIZE - CHUNK;
	int error;

	edu_make_list(edu);
	edu_fill(sg_virt(first), to, 2);
	if (dma_map_sg(edu->dev, edu->list, SEGMENTS, DMA_BIDIRECTIONAL) != SEGMENTS)
		return -ENOMEM;
	error = edu_copy(edu, sg_dma_address(first),
			 sg_dma_address(last) + sg_dma_len(last) - CHUNK);
	dma_unmap_sg(edu->dev, edu->list, SEGMENTS, DMA_BIDIRECTIONAL);
	return error ? error : edu_compare(sg_virt(first), to);
}

/* From the end of one page to the end of the next; a mapping for each direction. */
static int edu_correct_pages(struct edu *edu)
{
	const size_t offset = PAGE_SIZE - CHUNK;
	void *from = edu->memory + offset, *to = from + PAGE_SIZE;
	dma_addr_t source, target;
	int error = -ENOMEM;

	edu_fill(from, to, 3);
	source = dma_map_page(edu->dev, virt_to_page(from), offset, CHUNK, DMA_TO_DEVICE);
	if (dma_mapping_error(edu->dev, source))
		return error;
	target = dma_map_single(edu->dev, to, CHUNK, DMA_FROM_DEVICE);
	if (!dma_mapping_error(edu->dev, target)) {
		error = edu_copy(edu, source, target);
		dma_unmap_single(edu->dev, target, CHUNK, DMA_FROM_DEVICE);
	}
	dma_unmap_page(edu->dev, source, CHUNK, DMA_TO_DEVICE);
	return error ? error : edu_compare(from, to);
}

static int edu_correct(struct edu *edu)
{
	int error = edu_correct_coherent(edu);

	if (!error)
		error = edu_correct_list(edu);
	return error ? error : edu_correct_pages(edu);
}

static void edu_unmap_pages(struct edu *edu, const dma_addr_t *starts, int count)
{
	while (count--)
		dma_unmap_single(edu->dev, starts[count], PAGE_SIZE, DMA_FROM_DEVICE);
}

/*
 * Maps one page many times: the first mappings use up the addresses that the IOMMU's code kept for
 * reuse, which lie anywhere; the last ones are adjacent, each below the one before.
 */
static int edu_map_pages(struct edu *edu, void *page, dma_addr_t *starts, int count)
{
	int i;

	for (i = 0; i < count; ++i) {
		starts[i] = dma_map_single(edu->dev, page, PAGE_SIZE, DMA_FROM_DEVICE);
		if (dma_mapping_error(edu->dev, starts[i])) {
			edu_unmap_pages(edu, starts, i);
			return -ENOMEM;
		}
	}
	return 0;
}

/* The page past the end belonged to a mapping that ended long before. Run this command first. */
static int edu_reused_overrun(struct edu *edu)
{
	dma_addr_t starts[FEW];
	int error = edu_map_pages(edu, edu->memory, starts, FEW);

	if (error)
		return error;
	dma_unmap_single(edu->dev, starts[FEW - 2], PAGE_SIZE, DMA_FROM_DEVICE);
	msleep(LONG_BEFORE_MS);
	error = edu_stray(edu, starts[FEW - 1], PAGE_SIZE, starts[FEW - 1] + PAGE_SIZE - HALF);
	dma_unmap_single(edu->dev, starts[FEW - 1], PAGE_SIZE, DMA_FROM_DEVICE);
	edu_unmap_pages(edu, starts, FEW - 2);
	return error;
}

/* The page past the end belongs to a mapping: the device changes what lies there. */
static int edu_neighbour_overrun(struct edu *edu)
{
	char *low = edu->memory, *high = edu->memory + PAGE_SIZE;
	dma_addr_t starts[NEIGHBOURS], start;
	int error;

	memset(high, 0xc5, PAGE_SIZE);
	error = edu_map_pages(edu, high, starts, NEIGHBOURS);
	if (error)
		return error;
	start = dma_map_single(edu->dev, low, PAGE_SIZE, DMA_FROM_DEVICE);
	error = -ENOMEM;
	if (!dma_mapping_error(edu->dev, start)) {
		error = edu_write(edu, start + PAGE_SIZE - HALF);
		dma_unmap_single(edu->dev, start, PAGE_SIZE, DMA_FROM_DEVICE);
	}
	edu_unmap_pages(edu, starts, NEIGHBOURS);
	if (!error)
		scnprintf(edu->result, sizeof(edu->result), "gap %lld neighbour %s",
			  (s64)(starts[NEIGHBOURS - 1] - start - PAGE_SIZE),
			  memchr_inv(high, 0xc5, PAGE_SIZE) ? "changed" : "intact");
	return error;
}

/* The time of a pair of map and unmap; under QEMU's -icount a nanosecond is an instruction. */
static int edu_cost(struct edu *edu)
{
	const unsigned int pairs = 20000;
	ktime_t began = ktime_get();
	unsigned int i;

	for (i = 0; i < pairs; ++i) {
		dma_addr_t start =
			dma_map_single(edu->dev, edu->memory, PAGE_SIZE, DMA_FROM_DEVICE);

		if (dma_mapping_error(edu->dev, start))
			return -ENOMEM;
		dma_unmap_single(edu->dev, start, PAGE_SIZE, DMA_FROM_DEVICE);
	}
	scnprintf(edu->result, sizeof(edu->result), "pairs %u ns_per_pair %lld", pairs,
		  ktime_to_ns(ktime_sub(ktime_get(), began)) / pairs);
	return 0;
}

static const struct {
	const char *name;
	int (*run)(struct edu *edu);
} edu_commands[] = {
	{ "map_page_overrun", edu_map_page_overrun },
	{ "map_page_underrun", edu_map_page_underrun },
	{ "map_single_overrun", edu_map_single_overrun },
	{ "late_overrun", edu_late_overrun },
	{ "list_overrun", edu_list_overrun },
	{ "list_underrun", edu_list_underrun },
	{ "coherent_overrun", edu_coherent_overrun },
	{ "coherent_underrun", edu_coherent_underrun },
	{ "use_after_unmap", edu_use_after_unmap },
	{ "write_to_read_only", edu_write_to_read_only },
	{ "never_mapped", edu_never_mapped },
	{ "reused_overrun", edu_reused_overrun },
	{ "neighbour_overrun", edu_neighbour_overrun },
	{ "correct", edu_correct },
	{ "cost", edu_cost },
};

static int edu_run(struct edu *edu, const char *name)
{
	size_t i;
	int error;

	for (i = 0; i < ARRAY_SIZE(edu_commands); ++i) {
		if (strcmp(edu_commands[i].name, name) != 0)
			continue;
		edu->result[0] = '\0';
		error = edu_commands[i].run(edu);
		msleep(SETTLE_MS);
		return error;
	}
	return -EINVAL;
}

static ssize_t edu_file_write(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	struct edu *edu = file->private_data;
	char name[32];
	int error;

	if (count >= sizeof(name))
		return -EINVAL;
	if (copy_from_user(name, from, count))
		return -EFAULT;
	name[count] = '\0';
	error = mutex_lock_interruptible(&edu->lock);
	if (error)
		return error;
	error = edu_run(edu, strim(name));
	mutex_unlock(&edu->lock);
	return error ? error : count;
}

static ssize_t edu_file_read(struct file *file, char __user *to, size_t count, loff_t *at)
{
	struct edu *edu = file->private_data;
	char line[sizeof(edu->result) + 1];
	int bytes;

	mutex_lock(&edu->lock);
	bytes = scnprintf(line, sizeof(line), "%s\n", edu->result);
	mutex_unlock(&edu->lock);
	return simple_read_from_buffer(to, count, at, line, bytes);
}

static const struct file_operations edu_file = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = edu_file_read,
	.write = edu_file_write,
};

static int edu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct edu *edu = devm_kzalloc(&pdev->dev, sizeof(*edu), GFP_KERNEL);
	int error;

	if (!edu)
		return -ENOMEM;
	edu->dev = &pdev->dev;
	mutex_init(&edu->lock);
	error = pcim_enable_device(pdev);
	if (error)
		return error;
	error = dma_set_mask_and_coherent(edu->dev, DMA_BIT_MASK(64));
	if (error)
		return error;
	if (!iommu_get_domain_for_dev(edu->dev))
		return dev_err_probe(edu->dev, -ENODEV, "not behind an IOMMU\n");
	edu->bar = devm_ioremap(edu->dev, pci_resource_start(pdev, 0), pci_resource_len(pdev, 0));
	edu->memory = (char *)devm_get_free_pages(edu->dev, GFP_KERNEL | __GFP_ZERO,
						  get_order(PAGES * PAGE_SIZE));
	if (!edu->bar || !edu->memory)
		return -ENOMEM;
	pci_set_master(pdev);
	pci_set_drvdata(pdev, edu);
	edu->file = debugfs_create_file("edu_dma", 0600, NULL, edu, &edu_file);
	return 0;
}

static void edu_remove(struct pci_dev *pdev)
{
	struct edu *edu = pci_get_drvdata(pdev);

	debugfs_remove(edu->file);
}

static const struct pci_device_id edu_ids[] = {
	{ PCI_DEVICE(EDU_VENDOR, EDU_DEVICE) },
	{},
};
MODULE_DEVICE_TABLE(pci, edu_ids);

static struct pci_driver edu_driver = {
	.name = "edu_dma",
	.id_table = edu_ids,
	.probe = edu_probe,
	.remove = edu_remove,
};
module_pci_driver(edu_driver);

MODULE_DESCRIPTION("QEMU's edu with one DMA bug per command, for the tests of moat watch");
MODULE_LICENSE("Dual MIT/GPL");
