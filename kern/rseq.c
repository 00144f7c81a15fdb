// SPDX-License-Identifier: GPL-2.0-only
/* Restartable sequences of the guest: aborted where the kernel would abort them on the host. */
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include "compat.h"
#include "vcpu.h"

/**
 * dune_rseq_read() - the critical section that the calling thread says it may be in
 * @cs: where to put it
 *
 * Context: process context, may fault.
 *
 * Return: whether there is one.
 */
bool dune_rseq_read(struct rseq_cs *cs)
{
	struct rseq __user *rseq = dune_task_rseq(current);
	u64 ptr;

	if (!rseq || get_user(ptr, &rseq->rseq_cs) || !ptr || ptr >= TASK_SIZE)
		return false;
	return !copy_from_user(cs, u64_to_user_ptr(ptr), sizeof(*cs)) && !cs->version;
}

/**
 * dune_rseq_aborted() - the calling thread's section was left by its abort handler
 * @cs: the section
 *
 * The handler has to be announced by the signature that the thread registered, as on the host.
 */
void dune_rseq_aborted(const struct rseq_cs *cs)
{
	struct rseq __user *rseq = dune_task_rseq(current);
	u32 sig;

	if (cs->abort_ip >= TASK_SIZE || get_user(sig, (u32 __user *)(cs->abort_ip - sizeof(u32))) ||
	    sig != dune_task_rseq_sig(current) || put_user(0, &rseq->rseq_cs))
		force_sig(SIGSEGV);
}
