/* SPDX-License-Identifier: GPL-2.0-only */
/* Tracepoints: /sys/kernel/tracing/events/dune. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM dune

#if !defined(DUNE_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define DUNE_TRACE_H

#include <linux/sched/task_stack.h>
#include <linux/tracepoint.h>
#include <asm/processor.h>

#include "vcpu.h"

TRACE_EVENT(dune_entry,
	TP_PROTO(struct dune_vcpu *vcpu),
	TP_ARGS(vcpu),
	TP_STRUCT__entry(__field(void *, vcpu)),
	TP_fast_assign(__entry->vcpu = vcpu;),
	TP_printk("vcpu %p", __entry->vcpu)
);

TRACE_EVENT(dune_exit,
	TP_PROTO(struct dune_vcpu *vcpu, u32 reason),
	TP_ARGS(vcpu, reason),
	TP_STRUCT__entry(__field(void *, vcpu) __field(u32, reason)),
	TP_fast_assign(__entry->vcpu = vcpu; __entry->reason = reason;),
	TP_printk("vcpu %p reason %u", __entry->vcpu, __entry->reason)
);

TRACE_EVENT(dune_ept_violation,
	TP_PROTO(u64 gpa, u64 qualification),
	TP_ARGS(gpa, qualification),
	TP_STRUCT__entry(__field(u64, gpa) __field(u64, qualification)),
	TP_fast_assign(__entry->gpa = gpa; __entry->qualification = qualification;),
	TP_printk("gpa %#llx %s%s%s", __entry->gpa, __entry->qualification & 1 ? "r" : "-",
		  __entry->qualification & 2 ? "w" : "-", __entry->qualification & 4 ? "x" : "-")
);

TRACE_EVENT(dune_syscall,
	TP_PROTO(struct dune_vcpu *vcpu, long ret),
	TP_ARGS(vcpu, ret),
	TP_STRUCT__entry(__field(void *, vcpu) __field(unsigned long, nr) __field(long, ret)),
	/* Not an argument: the way without a trace would have to keep it over the call. */
	TP_fast_assign(__entry->vcpu = vcpu; __entry->nr = current_pt_regs()->orig_ax;
		       __entry->ret = ret;),
	TP_printk("vcpu %p nr %lu = %ld", __entry->vcpu, __entry->nr, __entry->ret)
);

TRACE_EVENT(dune_bounce,
	TP_PROTO(struct dune_vcpu *vcpu, unsigned long work),
	TP_ARGS(vcpu, work),
	TP_STRUCT__entry(__field(void *, vcpu) __field(unsigned long, work)),
	TP_fast_assign(__entry->vcpu = vcpu; __entry->work = work;),
	TP_printk("vcpu %p thread flags %#lx", __entry->vcpu, __entry->work)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
