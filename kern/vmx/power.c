// SPDX-License-Identifier: GPL-2.0-only
/*
 * Before the machine sleeps or restarts, whoever owns VMX turns it off. By then no VMCS of ours may
 * be active, and no guest of ours run: from the notice on, guests bounce until it is over.
 */
#include <linux/notifier.h>
#include <linux/reboot.h>
#include <linux/smp.h>
#include <linux/suspend.h>

#include "vmx.h"

bool vmx_stopped;

static void vmx_stop(bool stop)
{
	WRITE_ONCE(vmx_stopped, stop);
	if (stop)
		on_each_cpu(vmx_clear_cpu, NULL, 1);
}

/* Each of the three is followed by its PM_POST_. */
static int vmx_pm_notify(struct notifier_block *nb, unsigned long event, void *unused)
{
	vmx_stop(event == PM_SUSPEND_PREPARE || event == PM_HIBERNATION_PREPARE ||
		 event == PM_RESTORE_PREPARE);
	return NOTIFY_OK;
}

static int vmx_reboot_notify(struct notifier_block *nb, unsigned long event, void *unused)
{
	vmx_stop(true);
	return NOTIFY_OK;
}

static struct notifier_block vmx_pm_nb = { .notifier_call = vmx_pm_notify };
/* Before KVM's, which has priority 0. */
static struct notifier_block vmx_reboot_nb = { .notifier_call = vmx_reboot_notify, .priority = 1 };

/** vmx_power_exit() - do not ask any more */
void vmx_power_exit(void)
{
	unregister_reboot_notifier(&vmx_reboot_nb);
	unregister_pm_notifier(&vmx_pm_nb);
}

/**
 * vmx_power_init() - ask to be told
 *
 * Return: 0 or a negative errno.
 */
int __init vmx_power_init(void)
{
	int ret = register_pm_notifier(&vmx_pm_nb) ?: register_reboot_notifier(&vmx_reboot_nb);

	if (ret)
		vmx_power_exit(); /* one that was not registered does not mind */
	return ret;
}
