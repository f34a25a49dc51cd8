// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The module: its settings, which can be changed at any time, and the state in one file,
 * /sys/kernel/debug/moat_guard/state.
 */
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/seq_file.h>

#include "moat_guard.h"

#define STATE_VERSION 1

static unsigned int size_kib;
unsigned int guard_budget = 50;
static struct dentry *folder;

unsigned int guard_size_kib(void)
{
	return READ_ONCE(size_kib);
}

static int set_size(const char *text, const struct kernel_param *param)
{
	int error = param_set_uint_minmax(text, param, 0, GUARD_MAX_KIB);

	if (!error)
		guard_devices_apply();
	return error;
}

static int set_budget(const char *text, const struct kernel_param *param)
{
	return param_set_uint_minmax(text, param, 1, GUARD_MAX_BUDGET);
}

static int set_devices(const char *text, const struct kernel_param *param)
{
	char list[GUARD_LIST_BYTES];
	ssize_t length = strscpy(list, text, sizeof(list));
	int error = length < 0 ? length : guard_devices_choose(strim(list));

	if (!error)
		guard_devices_apply();
	return error;
}

static int get_devices(char *text, const struct kernel_param *param)
{
	return guard_devices_chosen(text, PAGE_SIZE);
}

static const struct kernel_param_ops size_ops = { .set = set_size, .get = param_get_uint };
static const struct kernel_param_ops budget_ops = { .set = set_budget, .get = param_get_uint };
static const struct kernel_param_ops devices_ops = { .set = set_devices, .get = get_devices };

module_param_cb(size, &size_ops, &size_kib, 0644);
MODULE_PARM_DESC(size, "KiB of each guard; 0: no guards (default)");
module_param_cb(budget, &budget_ops, &guard_budget, 0644);
MODULE_PARM_DESC(budget, "percent of a domain's addresses that guards may hold (default: 50)");
module_param_cb(devices, &devices_ops, NULL, 0644);
MODULE_PARM_DESC(devices, "PCI addresses such as 0000:00:04.0, with commas; empty: all (default)");

static int state_show(struct seq_file *file, void *unused)
{
	seq_printf(file, "moat_guard %d\n", STATE_VERSION);
	guard_devices_show(file);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(state);

static int __init guard_init(void)
{
	int error = guard_hooks_arm();

	if (error)
		return error;
	error = guard_devices_begin();
	if (error) {
		guard_hooks_disarm();
		return error;
	}
	folder = debugfs_create_dir("moat_guard", NULL);
	debugfs_create_file("state", 0444, folder, NULL, &state_fops);
	return 0;
}

static void __exit guard_exit(void)
{
	debugfs_remove(folder);
	guard_devices_end();
	guard_hooks_disarm();
}

module_init(guard_init);
module_exit(guard_exit);

MODULE_DESCRIPTION("Unmapped pages between the DMA mappings of kernel drivers");
MODULE_LICENSE("Dual MIT/GPL");
