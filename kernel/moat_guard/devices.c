// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The devices to guard: PCI functions with a driver, all of them or those of a list. For each one
 * a test mapping shows its domain. A driver that binds later is noticed before its first mapping.
 */
#define pr_fmt(text) KBUILD_MODNAME ": " text

#include <linux/iommu.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/sched/clock.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "moat_guard.h"

/* Longer trees are not counted to their end: the lock is held meanwhile. */
#define COUNTED_RANGES 100000UL

struct guard_device {
	struct list_head link;
	struct device *dev; /* referenced */
	const char *refused; /* why it has no guards; NULL: it has */
	struct guard_domain *domain;
};

static LIST_HEAD(devices);
/* Guards the list, the choice and the table of domains. Taken with a device's lock held. */
static DEFINE_MUTEX(lock);
static char chosen[GUARD_LIST_BYTES];
/* Settings may be written before the module is set up, and until it is gone. */
static bool running;

static bool is_chosen(struct device *dev)
{
	const char *at = chosen;
	size_t length = strlen(dev_name(dev));

	if (!*chosen)
		return true;
	while ((at = strstr(at, dev_name(dev)))) {
		if (at[length] == ',' || !at[length])
			return true;
		at += length;
	}
	return false;
}

static unsigned long count_ranges(struct iova_domain *iovad)
{
	unsigned long flags, count = 0;
	struct rb_node *node;

	spin_lock_irqsave(&iovad->iova_rbtree_lock, flags);
	for (node = rb_first(&iovad->rbroot); node && count < COUNTED_RANGES; node = rb_next(node))
		if (node != &iovad->anchor.node)
			++count;
	spin_unlock_irqrestore(&iovad->iova_rbtree_lock, flags);
	return count;
}

/* Why the device cannot be guarded, or NULL and its domain. */
static const char *find_domain(struct device *dev, struct guard_domain **domain)
{
	struct iommu_domain *translation = iommu_get_domain_for_dev(dev);
	struct iova_domain *iovad;
	int error;

	if (!translation)
		return "no-iommu";
	if (translation->type == IOMMU_DOMAIN_IDENTITY)
		return "identity-domain";
	if (!(translation->type & __IOMMU_DOMAIN_DMA_API))
		return "not-a-dma-domain";
	iovad = guard_domain_used(dev, &error);
	if (!iovad)
		return error == -ENXIO ? "mapping-passed-no-hook" : "test-mapping-failed";
	*domain = guard_domain_add(iovad);
	if (!*domain)
		return "too-many-domains";
	if (!(*domain)->pages)
		(*domain)->before = count_ranges(iovad);
	return NULL;
}

/* The allocator's domain may be gone: nothing here reads it. */
static void set_guard(struct guard_domain *domain, unsigned int kib)
{
	if (!domain->pages)
		domain->since = local_clock();
	WRITE_ONCE(domain->pages, DIV_ROUND_UP((unsigned long)kib << 10, domain->granule));
}

static struct guard_device *find_device(struct device *dev)
{
	struct guard_device *each;

	list_for_each_entry(each, &devices, link)
		if (each->dev == dev)
			return each;
	return NULL;
}

static struct guard_device *add_device(struct device *dev)
{
	struct guard_device *device = find_device(dev);

	if (device)
		return device;
	device = kzalloc(sizeof(*device), GFP_KERNEL);
	if (!device)
		return NULL;
	device->dev = get_device(dev);
	list_add_tail(&device->link, &devices);
	return device;
}

/* Domains of a group's devices are shared: one chosen device is enough. */
static bool domain_is_chosen(struct guard_domain *domain)
{
	struct guard_device *each;

	list_for_each_entry(each, &devices, link)
		if (each->domain == domain && is_chosen(each->dev))
			return true;
	return false;
}

/* The device leaves its domain, which goes with the last one. */
static void set_domain(struct guard_device *device, struct guard_domain *domain)
{
	struct guard_domain *old = device->domain;
	struct guard_device *each;

	device->domain = domain;
	if (!old)
		return;
	list_for_each_entry(each, &devices, link)
		if (each->domain == old)
			return;
	guard_domain_remove(old);
}

/* Called with the device's lock held, so that its driver stays. */
static void learn(struct device *dev)
{
	struct guard_domain *domain = NULL;
	struct guard_device *device;

	mutex_lock(&lock);
	if (!running || !guard_size_kib() || !is_chosen(dev) || pci_is_bridge(to_pci_dev(dev)))
		goto out;
	device = add_device(dev);
	if (!device)
		goto out;
	device->refused = find_domain(dev, &domain);
	set_domain(device, domain);
	if (domain)
		set_guard(domain, guard_size_kib());
out:
	mutex_unlock(&lock);
}

static void forget(struct device *dev)
{
	struct guard_device *device;

	mutex_lock(&lock);
	device = find_device(dev);
	if (device) {
		set_domain(device, NULL);
		list_del(&device->link);
		put_device(device->dev);
		kfree(device);
	}
	mutex_unlock(&lock);
}

static int on_event(struct notifier_block *block, unsigned long event, void *data)
{
	/* The domain is set up when a driver binds, and nothing is mapped yet. */
	if (event == BUS_NOTIFY_BIND_DRIVER)
		learn(data);
	else if (event == BUS_NOTIFY_REMOVED_DEVICE)
		forget(data);
	return NOTIFY_DONE;
}

static struct notifier_block notifier = { .notifier_call = on_event };

static int learn_bound(struct device *dev, void *unused)
{
	device_lock(dev);
	if (dev->driver)
		learn(dev);
	device_unlock(dev);
	return 0;
}

/* Brings all domains in line with the settings. */
void guard_devices_apply(void)
{
	struct guard_device *each;

	mutex_lock(&lock);
	list_for_each_entry(each, &devices, link)
		if (each->domain)
			set_guard(each->domain,
				  domain_is_chosen(each->domain) ? guard_size_kib() : 0);
	mutex_unlock(&lock);
	bus_for_each_dev(&pci_bus_type, NULL, NULL, learn_bound);
}

static bool is_address(const char *text, size_t length)
{
	unsigned int domain, bus, slot, function;
	int read = 0;

	return sscanf(text, "%4x:%2x:%2x.%1x%n", &domain, &bus, &slot, &function, &read) == 4 &&
	       read == length && length == strlen("0000:00:00.0") && slot < 32 && function < 8;
}

/* "0000:00:04.0,0000:00:05.0"; empty: every function. */
int guard_devices_choose(const char *list)
{
	const char *at = list;
	size_t length;

	if (strlen(list) >= sizeof(chosen))
		return -E2BIG;
	for (; *at; at += length + (at[length] == ',')) {
		length = strcspn(at, ",");
		if (!is_address(at, length)) {
			pr_err("%.*s is no PCI address such as 0000:00:04.0\n", (int)length, at);
			return -EINVAL;
		}
	}
	mutex_lock(&lock);
	strscpy(chosen, list, sizeof(chosen));
	mutex_unlock(&lock);
	return 0;
}

int guard_devices_chosen(char *list, size_t bytes)
{
	int length;

	mutex_lock(&lock);
	length = scnprintf(list, bytes, "%s\n", chosen);
	mutex_unlock(&lock);
	return length;
}

static void show_device(struct seq_file *file, const struct guard_device *device)
{
	struct guard_domain *domain = device->domain;

	seq_printf(file, "device %s", dev_name(device->dev));
	if (device->refused)
		seq_printf(file, " refused=%s", device->refused);
	if (domain) {
		seq_printf(file, " domain=%u guard_bytes=%lu since_us=%llu",
			   guard_domain_number(domain), domain->pages * domain->granule,
			   div_u64(domain->since, NSEC_PER_USEC));
		seq_printf(file, " held_pages=%ld limit_pages=%lu before=%lu",
			   max(atomic_long_read(&domain->held), 0L), domain->limit_pfn + 1,
			   domain->before);
		seq_printf(file, " padded=%ld plain=%ld over_budget=%ld restored=%ld missed=%ld",
			   atomic_long_read(&domain->padded), atomic_long_read(&domain->plain),
			   atomic_long_read(&domain->over_budget),
			   atomic_long_read(&domain->restored), atomic_long_read(&domain->missed));
	}
	seq_putc(file, '\n');
}

void guard_devices_show(struct seq_file *file)
{
	struct guard_device *each;

	mutex_lock(&lock);
	list_for_each_entry(each, &devices, link)
		show_device(file, each);
	mutex_unlock(&lock);
}

int guard_devices_begin(void)
{
	int error = bus_register_notifier(&pci_bus_type, &notifier);

	if (error)
		return error;
	mutex_lock(&lock);
	running = true;
	mutex_unlock(&lock);
	guard_devices_apply();
	return 0;
}

void guard_devices_end(void)
{
	struct guard_device *each, *next;

	bus_unregister_notifier(&pci_bus_type, &notifier);
	mutex_lock(&lock);
	running = false;
	list_for_each_entry_safe(each, next, &devices, link) {
		if (each->domain)
			WRITE_ONCE(each->domain->pages, 0);
		list_del(&each->link);
		put_device(each->dev);
		kfree(each);
	}
	mutex_unlock(&lock);
}
